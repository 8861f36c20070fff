"""Labeled Faces in the Wild (Huang, Ramesh, Berg, Learned-Miller, 2007)."""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Shares, Side, listing_table
from cldmray.faces.sources.files import read_files
from cldmray.faces.sources.folder import folder_samples
from cldmray.faces.sources.groups import read_groups
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.settings import NonEmpty, checked_dataclass

MAX_IMAGES_PER_IDENTITY = 530
FACE = (64, 186)
"""First row and column of ArcFace's square in the aligned images, and those that follow it."""


@checked_dataclass
class LfwFaces(ImageFileSource):
    """LFW's aligned images, 250x250 pixels, ``root/<Person_Name>/<Person_Name>_0001.jpg``.

    Attributes:
        root: local path or URI of that layout; None fetches the funneled version (about 230 MB)
            with scikit-learn into its data home, once a machine.
        name, size: see :class:`FaceSource`.
        crop: the default is the 128x128 pixels that hold the face of the deepfunneled version.
        groups_file: CSV or Parquet file with the column ``identity`` and one column an attribute,
            such as ``sex``; it changes no image, only which groups get rows of their own.
    """

    root: str | None = None
    aligned_already: ClassVar[bool] = True
    name: NonEmpty = "lfw"
    crop: Crop | None = field(default_factory=lambda: [61, 56, 189, 184])
    size: Side = 128
    groups_file: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)

    def listing(self) -> pa.Table:
        """See :meth:`FaceSource.listing`.

        Raises:
            BadInputError: the root has another layout, or LFW cannot be fetched.
        """
        return listing_table(self.name, *folder_samples(self._folder()))

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self._folder(), locations)

    def groups(self) -> pa.Table | None:
        """See :meth:`FaceSource.groups`."""
        return read_groups(self.groups_file)

    @property
    def face_crop(self) -> Shares | None:
        if self.finds_faces or self.crop is None:
            return super().face_crop
        left, top, right, _ = self.crop
        side = right - left
        low, high = FACE
        return (low - left) / side, (low - top) / side, (high - left) / side, (high - top) / side

    def _folder(self) -> str:
        return fetched_lfw() if self.root is None else self.root


def fetched_lfw() -> str:
    """Folder of the funneled LFW in scikit-learn's data home, fetched if it is not there.

    Raises:
        BadInputError: it is not there and cannot be fetched.
    """
    from sklearn.datasets import fetch_lfw_people, get_data_home

    folder = Path(get_data_home()) / "lfw_home" / "lfw_funneled"
    if not folder.is_dir():
        try:
            fetch_lfw_people(min_faces_per_person=MAX_IMAGES_PER_IDENTITY)
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"faces.root: LFW could not be fetched into {folder.parent} ({error}); "
                "give faces.root the path of a folder in LFW's layout"
            ) from error
    return str(folder)
