"""Sources of face images, and the split of the people.

:func:`cldmray.faces.decode.decode` turns their files into images."""

from cldmray.faces.base import FaceSource, sample_names
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.sources.celeba import CelebaFaces
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.lfw import LfwFaces
from cldmray.faces.sources.parquet import ParquetFaces
from cldmray.faces.sources.table import TableFaces
from cldmray.faces.sources.webdataset import WebDatasetFaces
from cldmray.faces.splits import (
    SplitConfig,
    assert_disjoint,
    assign,
    celeba_partition,
    split_listing,
)
from cldmray.faces.synthetic import SyntheticFaces

__all__ = [
    "CelebaFaces",
    "FaceSource",
    "FolderFaces",
    "InvalidImageError",
    "LfwFaces",
    "ParquetFaces",
    "SplitConfig",
    "SyntheticFaces",
    "TableFaces",
    "WebDatasetFaces",
    "assert_disjoint",
    "assign",
    "celeba_partition",
    "sample_names",
    "split_listing",
]
