"""WebDataset: tar files whose members of one key make one sample."""

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import field
from posixpath import dirname
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Sample, Side, listing_table, named_samples
from cldmray.faces.decode import MAX_FILE_BYTES
from cldmray.faces.sources.files import (
    IDENTITY_NAMES,
    ListedFile,
    list_archives,
    normalize_name,
    open_listed,
    root_info,
)
from cldmray.faces.sources.groups import read_groups
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.settings import NonEmpty, checked_dataclass

LAYOUT = "tar files of images with their identity (.json or .cls, or a folder a person)"
IMAGES = {"jpg", "jpeg", "png", "webp", "ppm", "bmp", "tif", "tiff", "heic", "avif", "img", "image"}
"""Extensions of the member that holds a sample's image."""
TEXTS = ("cls", "identity")
"""Extensions of members whose whole text is the identity; a ``.txt`` is a caption."""
LONGEST_TEXT = 1 << 16
"""Bytes of a member of text, at most."""


class _Member(NamedTuple):
    """A sample's image within its tar file, and what says whom it shows."""

    key: str
    identity: str
    offset: int
    size: int


@checked_dataclass
class WebDatasetFaces(ImageFileSource):
    """One tar file, or all ``*.tar`` files below a folder, as ``webdataset`` writes them.

    The person is named by a sample's ``.json`` (its field ``identity``, ``label`` or the like), by
    its ``.cls``, or else by the folder in its key. Tar files are not unpacked: a location is a
    place in one, so that they may lie at ``s3://``.

    Attributes:
        root: local path or URI of the file or folder.
        name, crop, size: see :class:`FaceSource`.
        groups_file: CSV, JSONL or Parquet file with the column ``identity`` and one column an
            attribute, such as ``sex``; it changes no image.
        identity_field: of the JSON that names the person; None: the first of the usual ones.
    """

    root: str
    name: NonEmpty = "webdataset"
    crop: Crop | None = None
    size: Side = 128
    groups_file: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)
    identity_field: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)

    def listing(self) -> pa.Table:
        """See :meth:`FaceSource.listing`; a location is ``file#offset,size``.

        Raises:
            BadInputError: no tar file, one that is damaged, or a sample without an identity.
        """
        filesystem, folder, _ = root_info(self.root)
        files = list_archives(self.root, ".tar", LAYOUT)
        images = [
            Sample(
                member.identity,
                f"{member.key.removeprefix(f'{member.identity}/')}.",
                f"{file.location}#{member.offset},{member.size}",
                file.version,
            )
            for file in files
            for member in _members(filesystem, folder, file, self.identity_field)
        ]
        if not images:
            raise BadInputError(f"faces.root: {self.root} holds no image; expected {LAYOUT}")
        return listing_table(self.name, named_samples(images))

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        """See :meth:`FaceSource.read`; each tar file is opened once."""
        filesystem, folder, _ = root_info(self.root)
        wanted: dict[str, list[int]] = defaultdict(list)
        for place, location in enumerate(locations):
            wanted[location.rpartition("#")[0]].append(place)
        contents: list[bytes | None] = [None] * len(locations)
        for file, places in wanted.items():
            try:
                with open_listed(filesystem, folder, file) as stream:
                    for place in places:
                        offset, _, size = locations[place].rpartition("#")[2].partition(",")
                        stream.seek(int(offset))
                        content = stream.read(min(int(size), MAX_FILE_BYTES + 1))
                        contents[place] = bytes(content) if len(content) == int(size) else None
            except (OSError, ValueError, pa.ArrowException):
                continue
        return contents

    def groups(self) -> pa.Table | None:
        """See :meth:`FaceSource.groups`."""
        return read_groups(self.groups_file)


def _members(
    filesystem: fs.FileSystem, folder: str, file: ListedFile, identity_field: str | None
) -> Iterator[_Member]:
    """The samples of one tar file, in its order."""
    images: dict[str, tuple[int, int]] = {}
    identities: dict[str, str] = {}
    path = f"{folder}/{file.label}"
    # A local file is sought through; a remote one is read once, since each seek is a request.
    mode = "r:" if isinstance(filesystem, fs.LocalFileSystem) else "r|"
    try:
        with (
            open_listed(filesystem, folder, file.location) as stream,
            tarfile.open(fileobj=stream, mode=mode) as tar,  # type: ignore[call-overload]
        ):
            for item in tar:
                place, _, kind = item.name.removeprefix("./").rpartition("/")[2].partition(".")
                above = dirname(item.name.removeprefix("./"))
                key = normalize_name(f"{above}/{place}" if above else place)
                if not item.isfile() or not place:
                    continue
                if kind.lower() in IMAGES:
                    images.setdefault(key, (item.offset_data, item.size))
                elif item.size <= LONGEST_TEXT and kind.lower() in ("json", *TEXTS):
                    content = tar.extractfile(item).read()
                    identity = _identity(kind.lower(), content, identity_field)
                    if identity and (kind.lower() == "json" or key not in identities):
                        identities[key] = normalize_name(identity)
    except (OSError, tarfile.TarError, pa.ArrowException) as error:
        raise BadInputError(f"faces.root: cannot read {path}: {error}") from error
    for key, (offset, size) in images.items():
        identity = identities.get(key) or key.rpartition("/")[0].rpartition("/")[2]
        if not identity:
            raise BadInputError(
                f"faces.root: {path}: sample {len(identities)} names nobody; expected {LAYOUT}, or "
                "set faces.identity_field"
            )
        yield _Member(key, identity, offset, size)


def _identity(kind: str, content: bytes, identity_field: str | None) -> str:
    """The person that a member of a sample names; empty: nobody."""
    try:
        text = content.decode("utf-8").strip()
        if kind != "json":
            return text
        values: Any = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(values, dict):
        return ""
    fields = IDENTITY_NAMES if identity_field is None else (identity_field,)
    return next((str(values[name]) for name in fields if values.get(name) is not None), "")
