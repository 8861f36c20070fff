"""Folder of images with one sub-folder a person."""

from collections.abc import Sequence
from dataclasses import field

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.faces.base import (
    Crop,
    FaceSource,
    Sample,
    Side,
    listing_table,
    sample_names,
)
from cldmray.faces.sources.files import list_folder, read_files
from cldmray.faces.sources.groups import read_groups
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.settings import NonEmpty, checked_dataclass

LAYOUT = "one sub-folder a person, each with that person's images"


@checked_dataclass
class FolderFaces(FaceSource):
    """``root/<identity>/<image>``; the sub-folder's name is the identity.

    Every file that is not hidden is listed, whatever its extension; images in deeper folders
    belong to the first one; files directly in the root are left out.

    Attributes:
        root: local path, ``s3://`` or ``gs://`` URI.
        name, crop, size: see :class:`FaceSource`.
        groups_file: CSV or Parquet file with the column ``identity`` and one column an attribute,
            such as ``sex``; it changes no image, only which groups get rows of their own.

    >>> import tempfile
    >>> from pathlib import Path
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "Ada").mkdir()
    >>> _ = (root / "Ada" / "1.png").write_bytes(b"any bytes")
    >>> FolderFaces(str(root)).listing()["location"].to_pylist()
    ['Ada/1.png']
    """

    root: str
    name: NonEmpty = "folder"
    crop: Crop | None = None
    size: Side = 64
    groups_file: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)

    def listing(self) -> pa.Table:
        return listing_table(self.name, folder_samples(self.root))

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self.root, locations)

    def groups(self) -> pa.Table | None:
        """See :meth:`FaceSource.groups`."""
        return read_groups(self.groups_file)


def folder_samples(root: str) -> list[Sample]:
    """Samples of a folder with one sub-folder a person.

    Raises:
        BadInputError: the folder is missing or has no image in a sub-folder.
    """
    files = [file for file in list_folder(root, LAYOUT) if "/" in file.label]
    if not files:
        raise BadInputError(f"faces.root: no images in sub-folders of {root}; expected {LAYOUT}")
    images = []
    for file in files:
        identity, _, image = file.label.partition("/")
        images.append((identity, image))
    return [
        Sample(identity, name, file.location, file.version)
        for (identity, _), name, file in zip(images, sample_names(images), files, strict=True)
    ]
