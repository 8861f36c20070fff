"""WebDataset: tar files whose members of one key make one sample."""

import json
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import field
from posixpath import basename, dirname
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Sample, Side, listing_table, named_samples
from cldmray.faces.decode import MAX_FILE_BYTES
from cldmray.faces.sources.companions import is_companion
from cldmray.faces.sources.files import (
    IDENTITY_NAMES,
    ListedFile,
    list_archives,
    normalize_name,
    open_listed,
    root_info,
)
from cldmray.faces.sources.groups import read_groups
from cldmray.hashing import EXCLUDED_FROM_KEY, safe_location
from cldmray.settings import NonEmpty, checked_dataclass

LAYOUT = "tar files of images with their identity (.json or .cls, or a folder a person)"
IMAGES = {
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff", "heic",
    "heif", "avif", "ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "j2c", "jpx", "jpf", "img", "image",
}  # fmt: skip
"""Extensions of the member that holds a sample's image."""
TEXTS = ("cls", "identity")
"""Extensions of members whose whole text is the identity; a ``.txt`` is a caption."""
READ = {"json", *TEXTS, *IMAGES}
"""Extensions of members that are read."""
LONGEST_TEXT = 1 << 16
"""Bytes of a member of text, at most."""


class _Key(NamedTuple):
    """A member's name without its extension, and up to its first dot, which tells the sample."""

    whole: str
    sample: str


class _Member(NamedTuple):
    """A sample's image within its tar file, and what says whom it shows."""

    key: str
    identity: str
    offset: int
    size: int


class _Contents(NamedTuple):
    """The samples of a tar file, in its order, and how many members are left out.

    Attributes:
        members: one a sample.
        n_further: further images of samples.
        n_unread: of no kind that is read or that is known to be no image.
    """

    members: list[_Member]
    n_further: int
    n_unread: int


@checked_dataclass
class WebDatasetFaces(ImageFileSource):
    """One tar file, or all ``*.tar`` files below a folder, as ``webdataset`` writes them.

    The person is named by a sample's ``.json`` (its field ``identity``, ``label`` or the like), by
    its ``.cls``, or else by the folder in its key. ``a.1.jpg`` is an image of its own, of the
    person that ``a.json`` names, unless there is ``a.jpg``: then it is a further one of that
    sample, such as a mask, and left out. Tar files are not unpacked: a location is a place in one,
    so that they may lie at ``s3://``.

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
            BadInputError: no tar file, one that is damaged or holds two members of one name, or a
                sample without an identity.
        """
        filesystem, folder, _ = root_info(self.root)
        files = list_archives(self.root, ".tar", LAYOUT)
        images: list[Sample] = []
        n_further = n_unread = 0
        for file in files:
            contents = _contents(filesystem, folder, file, self.identity_field)
            n_further += contents.n_further
            n_unread += contents.n_unread
            images += [
                Sample(
                    member.identity,
                    f"{member.key.removeprefix(f'{member.identity}/')}.",
                    f"{file.location}#{member.offset},{member.size}",
                    file.version,
                )
                for member in contents.members
            ]
        unread = f"Members without the ending of an image or a text, left out: {n_unread}."
        if not images:
            reason = f" ({unread[:-1]})" if n_unread else ""
            raise BadInputError(
                f"faces.root: {self.root} holds no image{reason}; expected {LAYOUT}"
            )
        further = f"Further images of samples, such as masks, left out: {n_further}."
        notes = [note for note, n in ((further, n_further), (unread, n_unread)) if n]
        return listing_table(self.name, named_samples(images), notes)

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


def _contents(
    filesystem: fs.FileSystem, folder: str, file: ListedFile, identity_field: str | None
) -> _Contents:
    """What one tar file holds.

    Raises:
        BadInputError: it is damaged or holds two members of one name, or a sample has no identity.
    """
    images: dict[_Key, tuple[int, int]] = {}
    names: set[str] = set()
    n_images = n_unread = 0
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
                name = normalize_name(item.name.removeprefix("./"))
                key, kind = _key(name)
                if not item.isfile():
                    continue
                if not kind:
                    n_unread += not _is_ignored(name)
                    continue
                if name in names:
                    raise BadInputError(
                        f"faces.root: {path}: two members of one key: {safe_location(name)} (names "
                        "of people are hashed, see cldmray.hashing.safe_location) is there twice, "
                        "so that nobody can tell whose image is whose: give each sample a key"
                    )
                names.add(name)
                if kind in IMAGES:
                    n_images += 1
                    images.setdefault(key, (item.offset_data, item.size))
                elif item.size <= LONGEST_TEXT:
                    content = tar.extractfile(item).read()
                    identity = _identity(kind, content, identity_field)
                    if identity and (kind == "json" or key.whole not in identities):
                        identities[key.whole] = normalize_name(identity)
    except (OSError, tarfile.TarError, pa.ArrowException) as error:
        raise BadInputError(f"faces.root: cannot read {path}: {error}") from error
    samples = {key.whole for key in images if key.whole == key.sample}
    own = {
        key: place
        for key, place in images.items()
        if key.whole == key.sample or key.sample not in samples
    }
    members = []
    for number, (key, (offset, size)) in enumerate(own.items()):
        named = identities.get(key.whole) or identities.get(key.sample)
        identity = named or basename(dirname(key.whole))
        if not identity:
            raise BadInputError(
                f"faces.root: {path}: sample {number} names nobody; expected {LAYOUT}, or "
                "set faces.identity_field"
            )
        members.append(_Member(key.whole, identity, offset, size))
    return _Contents(members, n_images - len(own), n_unread)


def _is_ignored(name: str) -> bool:
    """Whether a member that is not read is a hidden file, or known to be no image."""
    return is_companion(name) or any(part.startswith(".") for part in name.split("/"))


def _key(name: str) -> tuple[_Key, str]:
    """Key and extension, in lower case, of a member; without extension one that is not read.

    >>> _key("Ann/1.png")[0].whole, _key("Ann/1.2.PNG"), _key("Ann/1.npy")[1]
    ('Ann/1', (_Key(whole='Ann/1.2', sample='Ann/1'), 'png'), '')
    """
    above, slash, file = name.rpartition("/")
    sample, _, first = file.partition(".")
    whole, _, last = file.rpartition(".")
    if first.lower() in READ:
        whole, last = sample, first
    kind = last.lower() if sample and last.lower() in READ else ""
    return _Key(f"{above}{slash}{whole}", f"{above}{slash}{sample}"), kind


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
