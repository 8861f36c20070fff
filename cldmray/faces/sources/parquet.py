"""Parquet files of images, as Hugging Face's ``datasets`` writes them: one row an image."""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from itertools import accumulate, groupby
from posixpath import splitext
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Sample, Side, listing_table, named_samples
from cldmray.faces.decode import MAX_FILE_BYTES
from cldmray.faces.sources.files import (
    ESCAPE,
    REMOTE_READERS,
    ListedFile,
    is_binary,
    list_archives,
    local_path,
    normalize_name,
    root_info,
    table_path,
    version,
)
from cldmray.faces.sources.groups import read_groups
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.settings import NonEmpty, checked_dataclass

IDENTITY, LABEL, IMAGE, NAME = "identity", "label", "image", "name"
BYTES, PATH = "bytes", "path"
PARTS = 4
"""Blocks of usual size that a row group may make one block of."""
BATCH = 64
"""Images of a row group that are in memory at once."""
LAYOUT = "Parquet files with the columns identity or label, and image (encoded bytes)"


@checked_dataclass
class ParquetFaces(ImageFileSource):
    """One Parquet file, or all ``*.parquet`` files below a folder.

    Columns: ``identity`` or else ``label`` (text or whole numbers, which stand for the names of
    Hugging Face's class labels where the file has them), ``image`` (encoded bytes, or a struct with
    ``bytes`` or, where these are null, the ``path`` of a file, as Hugging Face writes it) and, if
    there is one, ``name`` (the image's file name); without it an image is named after its file and
    row.

    Attributes:
        root: local path or URI of the file or folder; ``hf://datasets/OWNER/NAME`` on the hub.
        name, crop, size: see :class:`FaceSource`.
        groups_file: CSV or Parquet file with the column ``identity`` and one column an attribute,
            such as ``sex``; it changes no image, only which groups get rows of their own.
    """

    root: str
    name: NonEmpty = "parquet"
    crop: Crop | None = None
    size: Side = 128
    groups_file: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)

    def listing(self) -> pa.Table:
        """See :meth:`FaceSource.listing`; a location is ``file#row``, a version the file's.

        That of an image which the file only names counts as well.

        Raises:
            BadInputError: no Parquet file, a missing column or an empty identity.
        """
        filesystem, folder, _ = root_info(self.root)
        files = list_archives(self.root, ".parquet", LAYOUT)
        images = []
        for file in files:
            rows = _rows_of(filesystem, folder, file)
            apart = _versions_apart(filesystem, folder, file)
            images += [
                Sample(identity, image, f"{file.location}#{row}", file.version + apart.get(row, ""))
                for row, (identity, image) in enumerate(rows)
            ]
        if not images:
            raise BadInputError(f"faces.root: {self.root} has no rows; expected {LAYOUT}")
        return listing_table(self.name, named_samples(images))

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        """See :meth:`FaceSource.read`; each row group that holds a wanted row is read once."""
        filesystem, folder, _ = root_info(self.root)
        wanted: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for place, location in enumerate(locations):
            file, _, number = location.rpartition("#")
            wanted[file][int(number)].append(place)
        contents: list[bytes | None] = [None] * len(locations)
        for file, places in wanted.items():
            for row, content in _images(filesystem, folder, file, sorted(places)).items():
                for place in places[row]:
                    contents[place] = content
        return contents

    def reading_blocks(self, listing: pa.Table, rows: int) -> list[pa.Table]:
        """See :meth:`FaceSource.reading_blocks`; blocks are of whole row groups.

        Each row group is read once, unless it holds more than ``PARTS`` times ``rows`` wanted rows,
        which are divided so that several tasks have work.
        """
        filesystem, folder, _ = root_info(self.root)
        split = [location.rpartition("#") for location in listing["location"].to_pylist()]
        starts = {file: _group_starts(filesystem, folder, file) for file, _, _ in split}
        keys = [
            (file, bisect_right(starts[file], int(number)), int(number))
            for file, _, number in split
        ]
        blocks: list[list[int]] = [[]]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for _, group in groupby(order, key=lambda place: keys[place][:2]):
            places = list(group)
            if len(blocks[-1]) + len(places) <= rows:
                blocks[-1] += places
                continue
            most = PARTS * rows
            blocks += [places[start : start + most] for start in range(0, len(places), most)]
        kept = [block for block in blocks if block] or [[]]
        return [listing.take(pa.array(block, pa.int64())).combine_chunks() for block in kept]

    def groups(self) -> pa.Table | None:
        """See :meth:`FaceSource.groups`."""
        return read_groups(self.groups_file)


def _rows_of(filesystem: fs.FileSystem, folder: str, file: ListedFile) -> list[tuple[str, str]]:
    """Identity and image name of each row."""
    path = f"{folder}/{file.label}"
    try:
        with _opened(filesystem, folder, file.location) as table:
            schema = table.schema_arrow
            column = LABEL if IDENTITY not in schema.names and LABEL in schema.names else IDENTITY
            missing = {column, IMAGE} - set(schema.names)
            if missing or not _holds_bytes(schema.field(IMAGE).type):
                fault = (
                    f"lacks {', '.join(sorted(missing))}" if missing else "has no bytes in image"
                )
                raise BadInputError(f"faces.root: {path} {fault}; expected {LAYOUT}")
            named = NAME in schema.names
            rows = table.read([column, NAME] if named else [column])
        identities = _identities(rows[column], class_names(schema, column))
        stem = splitext(file.label)[0]
        names = (
            [table_path(name or "") for name in rows[NAME].cast(pa.string()).to_pylist()]
            if named
            else [f"{stem}/{row}" for row in range(len(identities))]
        )
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"faces.root: cannot read {path}: {error}") from error
    for row, (identity, name) in enumerate(zip(identities, names, strict=True)):
        if not identity or not name:
            raise BadInputError(f"faces.root: {path}: row {row} has an empty identity or name")
    return [
        (identity, name.removeprefix(f"{identity}/"))
        for identity, name in zip(identities, names, strict=True)
    ]


def _versions_apart(filesystem: fs.FileSystem, folder: str, file: ListedFile) -> dict[int, str]:
    """Versions of the images that a Parquet file only names, by their rows.

    The bytes of other images are not read where the file counts its nulls.
    """
    paths: dict[int, str] = {}
    try:
        with _opened(filesystem, folder, file.location) as table:
            kind = table.schema_arrow.field(IMAGE).type
            if not pa.types.is_struct(kind) or PATH not in kind.names:
                return {}
            places = [table.schema.column(number).path for number in range(len(table.schema))]
            column = places.index(f"{IMAGE}.{BYTES}")
            for group, first in enumerate(_starts(table)[:-1]):
                counts = table.metadata.row_group(group).column(column).statistics
                if counts is not None and counts.has_null_count and not counts.null_count:
                    continue
                for batch in table.iter_batches(BATCH, row_groups=[group], columns=[IMAGE]):
                    images = batch.column(0)
                    named = zip(images.field(PATH), images.field(BYTES).is_valid(), strict=True)
                    for row, (path, is_here) in enumerate(named, first):
                        if path.as_py() and not is_here.as_py():
                            paths[row] = path.as_py()
                    first += len(batch)
    except (OSError, pa.ArrowException) as error:
        path = f"{folder}/{file.label}"
        raise BadInputError(f"faces.root: cannot read {path}: {error}") from error
    with ThreadPoolExecutor(REMOTE_READERS) as pool:
        versions = pool.map(lambda path: _version_at(path, filesystem, folder), paths.values())
        return {row: f" {text}" for row, text in zip(paths, versions, strict=True)}


def _version_at(path: str, filesystem: fs.FileSystem, folder: str) -> str:
    try:
        filesystem, path = _place(path, filesystem, folder)
        return version(filesystem.get_file_info(path))
    except (OSError, ValueError, pa.ArrowException):
        return "cannot be opened"


def _place(path: str, filesystem: fs.FileSystem, folder: str) -> tuple[fs.FileSystem, str]:
    """Where the file of a path lies; those that are neither absolute nor URIs begin at a folder."""
    if path.startswith("/") or "://" in path:
        return storage.resolve(path)
    return filesystem, f"{folder}/{path}"


def _opened(filesystem: fs.FileSystem, folder: str, location: str) -> pq.ParquetFile:
    """A listed Parquet file, whatever its name."""
    if location.startswith(ESCAPE):
        return pq.ParquetFile(pa.PythonFile(open(local_path(folder, location), "rb"), mode="r"))
    return pq.ParquetFile(f"{folder}/{location}", filesystem=filesystem)


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Names of a column's class labels, which ``datasets`` keeps in a file's metadata; else none.

    >>> features = {"label": {"names": ["Ann", "Bob"], "_type": "ClassLabel"}}
    >>> metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    >>> class_names(pa.schema([("label", pa.int64())], metadata), "label")
    ['Ann', 'Bob']
    """
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names: list[str] = info["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return names


def _identities(column: pa.ChunkedArray, names: list[str]) -> list[str]:
    """Identities as text, empty where there is none; class labels by their names."""
    values = column.to_pylist()
    if names:
        return [
            normalize_name(names[value]) if value is not None and 0 <= value < len(names) else ""
            for value in values
        ]
    return [normalize_name(value or "") for value in column.cast(pa.string()).to_pylist()]


def _images(
    filesystem: fs.FileSystem, folder: str, file: str, rows: Sequence[int]
) -> dict[int, bytes | None]:
    """Image bytes of rows (ascending) of one file; rows that cannot be read are left out."""
    contents: dict[int, bytes | None] = {}
    try:
        with _opened(filesystem, folder, file) as table:
            starts = _starts(table)
            groups: dict[int, list[int]] = defaultdict(list)
            for row in rows:
                if 0 <= row < starts[-1]:
                    groups[bisect_right(starts, row) - 1].append(row)
            for group, wanted in groups.items():
                first = starts[group]
                batches = table.iter_batches(BATCH, row_groups=[group], columns=[IMAGE])
                for batch in batches:
                    end = bisect_right(wanted, first + len(batch) - 1)
                    for row in wanted[:end]:
                        image = batch.column(0)[row - first].as_py()
                        contents[row] = _content(image, filesystem, folder)
                    wanted, first = wanted[end:], first + len(batch)
                    if not wanted:
                        break
    except (OSError, pa.ArrowException, KeyError):
        return contents
    return contents


def _starts(table: pq.ParquetFile) -> list[int]:
    """First row of each row group, and the number of all rows."""
    counts = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    return [0, *accumulate(counts)]


def _group_starts(filesystem: fs.FileSystem, folder: str, file: str) -> list[int]:
    """:func:`_starts` of a file; all rows are one group where it cannot be read any more."""
    try:
        with _opened(filesystem, folder, file) as table:
            return _starts(table)
    except (OSError, pa.ArrowException):
        return [0]


def _content(image: Any, filesystem: fs.FileSystem, folder: str) -> bytes | None:
    """Bytes of one image: as they are, of its struct, or of the file that the struct names.

    Args:
        filesystem, folder: where paths begin that are neither absolute nor URIs.
    """
    if not isinstance(image, Mapping):
        return bytes(image) if image is not None else None
    content: bytes | None = image.get(BYTES)
    path: str | None = image.get(PATH)
    if content is not None or not path:
        return content
    try:
        filesystem, path = _place(path, filesystem, folder)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read(MAX_FILE_BYTES + 1))
    except (OSError, ValueError, pa.ArrowException):
        return None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return BYTES in kind.names and _holds_bytes(kind.field(BYTES).type)
    return is_binary(kind)
