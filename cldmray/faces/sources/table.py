"""Folder of images with a table that says whom each shows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from posixpath import dirname
from urllib.parse import unquote

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.faces.base import Crop, ImageFileSource, Sample, Side, listing_table, named_samples
from cldmray.faces.sources.companions import without_companions
from cldmray.faces.sources.files import (
    IDENTITY_NAMES,
    ListedFile,
    columns_error,
    list_folder,
    normalize_name,
    read_files,
    read_text_table,
    table_path,
)
from cldmray.faces.sources.groups import majority
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.settings import NonEmpty, checked_dataclass

PATHS = ("path", "file_name", "filename", "file", "image")
"""Columns that name the image, the first that is there; ``file_name`` is Hugging Face's."""
MOST_GROUPS = 20
"""Values of a column that tells groups, at most; one with more is left out."""
EXPECTED = "a CSV, JSONL or Parquet file with a column path and a column identity"


@checked_dataclass
class TableFaces(ImageFileSource):
    """Images in any folders, and a table with one row an image.

    Attributes:
        table: local path or URI of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file. Further
            columns of at most 20 values, such as ``sex``, tell groups of people: a person is in the
            group of most of its images.
        root: folder below which the paths lie; None: the table's own.
        name, crop, size: see :class:`FaceSource`.
        path_column: names the image; None: ``path``, ``file_name``, ``filename``, ``file`` or
            ``image``.
        identity_column: names the person; None: ``identity``, ``label``, ``person`` or
            ``subject``.

    >>> import tempfile
    >>> from pathlib import Path
    >>> root = Path(tempfile.mkdtemp())
    >>> _ = (root / "1.png").write_bytes(b"any bytes")
    >>> _ = (root / "faces.csv").write_text("path,identity\\n1.png,Ada\\n")
    >>> TableFaces(str(root / "faces.csv")).listing()["identity"].to_pylist()
    ['Ada']
    """

    table: NonEmpty
    root: str | None = None
    name: NonEmpty = "table"
    crop: Crop | None = None
    size: Side = 128
    path_column: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)
    identity_column: str | None = field(default=None, metadata=EXCLUDED_FROM_KEY)

    def listing(self) -> pa.Table:
        """See :meth:`FaceSource.listing`.

        Raises:
            BadInputError: the table or a column is missing, or no row names a file that is there.
        """
        rows, path_key, identity_key = self._rows()
        files = {file.label: file for file in list_folder(self.folder, "the table's images")}
        prefixes = _prefixes(self.folder)
        images: list[Sample] = []
        listed: set[str] = set()
        for path, identity in zip(
            rows[path_key].to_pylist(), rows[identity_key].to_pylist(), strict=True
        ):
            file = _file_of(path or "", files, prefixes)
            listed.update([] if file is None else [file.label])
            if file is not None and identity:
                owner = normalize_name(identity)
                image = file.label.removeprefix(f"{owner}/")
                images.append(Sample(owner, image, file.location, file.version))
        if not images:
            raise BadInputError(
                f"faces.table: none of the {len(rows)} rows of {self.table} has a person and a "
                f"path of a file below {self.folder}; set faces.root or faces.path_column"
            )
        notes = []
        if absent := len(rows) - len(images):
            reason = "name no person or no file that is there"
            notes.append(f"{absent} of {len(rows)} rows of the table {reason}.")
        if others := len({file.label for file in without_companions(files.values())[0]} - listed):
            verb = "image below the root stands" if others == 1 else "images below the root stand"
            left = "it was" if others == 1 else "they were"
            notes.append(f"{others} {verb} in no row of the table; {left} left out.")
        return listing_table(self.name, named_samples(images), notes)

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return read_files(self.folder, locations)

    def groups(self) -> pa.Table | None:
        """See :meth:`FaceSource.groups`."""
        rows, path_key, identity_key = self._rows()
        identities = [normalize_name(identity or "") for identity in rows[identity_key].to_pylist()]
        columns = {}
        for name in rows.column_names:
            values = rows[name].to_pylist()
            if (
                name not in (path_key, identity_key)
                and 1 < len(set(values) - {None}) <= MOST_GROUPS
            ):
                columns[name] = majority(identities, values)
        if not columns:
            return None
        listed = sorted(set(identities) - {""})
        groups = {
            name: [values.get(identity) for identity in listed] for name, values in columns.items()
        }
        return pa.table(
            {
                name: pa.array(values, pa.string())
                for name, values in {"identity": listed, **groups}.items()
            }
        )

    @property
    def folder(self) -> str:
        """See :meth:`FaceSource.folder`."""
        return (dirname(self.table) or ".") if self.root is None else self.root

    def _rows(self) -> tuple[pa.Table, str, str]:
        """The table as text, and the names of the columns of paths and identities."""
        rows = read_text_table(self.table, "faces.table", EXPECTED)
        listed = []
        for key, given, usual in (
            ("path_column", self.path_column, PATHS),
            ("identity_column", self.identity_column, IDENTITY_NAMES),
        ):
            wanted = usual if given is None else (given,)
            column = next((name for name in wanted if name in rows.column_names), None)
            if column is None:
                fault = f"none called {' or '.join(wanted)}"
                raise columns_error(self.table, f"faces.{key}", rows, fault, EXPECTED)
            listed.append(column)
        return rows, listed[0], listed[1]


def _prefixes(root: str) -> list[str]:
    """What a path in a table may begin with where it is not given from the root on."""
    roots = [root] if "://" in root else [root, os.path.abspath(os.path.expanduser(root))]
    return [table_path(f"{each.rstrip('/')}/") for each in roots]


def _file_of(
    path: str, files: Mapping[str, ListedFile], prefixes: Sequence[str]
) -> ListedFile | None:
    """The file that a table's path means: as it is, below the root, or percent-encoded."""
    name = table_path(path)
    for candidate in (name, *map(name.removeprefix, prefixes), unquote(name)):
        if candidate in files:
            return files[candidate]
    return None
