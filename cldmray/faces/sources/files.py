"""Files under a root on any file system: listed whatever their names, read without failing.

Also reads small text files that list identities or images, one a line.
"""

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from posixpath import basename, dirname
from typing import IO, NamedTuple, cast
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.csv as csv
from pyarrow import fs

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.faces.decode import MAX_FILE_BYTES

ESCAPE = "bytes:"
REMOTE_READERS = 16
QUOTED = re.compile(r"'.*'", re.DOTALL)
"""What a storage quotes in an error: paths, in which names of people stand."""
ROW = re.compile(r"(CSV parse error: .*?\bgot \d+):.*", re.DOTALL)
"""Arrow's error on a row of a CSV, which it quotes."""
IDENTITY_NAMES = ("identity", "label", "person", "subject")
"""Columns of tables and fields of JSON that name the person, the first that is there."""

JSON_LINES = (".jsonl", ".ndjson")


class ListedFile(NamedTuple):
    """A file under a root.

    Attributes:
        location: path from the root, with ``/``; names that are not UTF-8 are escaped.
        label: the same as readable text, see :func:`normalize_name`.
        version: size in bytes and modification time in nanoseconds.
    """

    location: str
    label: str
    version: str


def open_root(root: str) -> tuple[fs.FileSystem, str]:
    """File system and path of a root.

    Raises:
        BadInputError: the root is empty or no path or URI that can be opened.
    """
    if not root:
        raise BadInputError("faces.root: is empty; give a path or URI")
    try:
        return storage.resolve(root)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInputError(f"faces.root: cannot open {root}: {error}") from error


def root_info(root: str) -> tuple[fs.FileSystem, str, fs.FileInfo]:
    """File system of a root, the folder that locations are relative to, and what the root is.

    Raises:
        BadInputError: see :func:`open_root`; or the storage does not answer.
    """
    filesystem, path = open_root(root)
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        raise BadInputError(f"faces.root: cannot open {root}: {error}") from error
    return filesystem, dirname(path) if info.is_file else path, info


def list_archives(root: str, ending: str, expected: str) -> list[ListedFile]:
    """The file that a root is, or the files of an ending below the folder that it is.

    Raises:
        BadInputError: there is none, or the folder cannot be listed.
    """
    _, _, info = root_info(root)
    if info.is_file:
        return [listed_file(basename(info.path), version(info))]
    files = [file for file in list_folder(root, expected) if file.label.endswith(ending)]
    if not files:
        raise BadInputError(f"faces.root: no *{ending} file in {root}; expected {expected}")
    return files


def list_folder(root: str, expected: str) -> list[ListedFile]:
    """All files below a folder, however deep, sorted by location; hidden ones are left out.

    Args:
        root: local path or URI.
        expected: what the folder should hold, for the message.

    Raises:
        BadInputError: the folder is missing or cannot be listed.
    """
    filesystem, base = open_root(root)
    try:
        if filesystem.get_file_info(base).type != fs.FileType.Directory:
            raise BadInputError(f"faces.root: no such folder: {root}; expected {expected}")
        if isinstance(filesystem, fs.LocalFileSystem):
            files = list(_walk(base, "", frozenset()))
        else:
            start = len(base.rstrip("/")) + 1
            files = [
                ListedFile(info.path[start:], normalize_name(info.path[start:]), version(info))
                for info in storage.list_files(root)
                if not any(part.startswith(".") for part in info.path[start:].split("/"))
            ]
    except OSError as error:
        reason = error.strerror or QUOTED.sub("'...'", str(error))
        raise BadInputError(f"faces.root: cannot list {root}: {reason}") from error
    return sorted(files)


def version(info: fs.FileInfo) -> str:
    """Version of a file: its size and modification time."""
    return f"{info.size}-{info.mtime_ns}"


def read_files(root: str, locations: Sequence[str]) -> list[bytes | None]:
    """Content of files under a root; None where one cannot be opened.

    At most ``decode.MAX_FILE_BYTES + 1`` bytes of a file are read.
    """
    filesystem, base = open_root(root)
    if isinstance(filesystem, fs.LocalFileSystem):
        return [_read_local(base, location) for location in locations]

    def read_remote(location: str) -> bytes | None:
        try:
            with filesystem.open_input_stream(f"{base}/{location}") as stream:
                return bytes(stream.read(MAX_FILE_BYTES + 1))
        except (OSError, pa.ArrowException):
            return None

    with ThreadPoolExecutor(REMOTE_READERS) as pool:
        return list(pool.map(read_remote, locations))


def _walk(base: str, below: str, ancestors: frozenset[tuple[int, int]]) -> Iterator[ListedFile]:
    """Files under ``base/below``; links are followed, but never round in a circle."""
    status = os.stat(os.path.join(base, below))
    here = (status.st_dev, status.st_ino)
    if here in ancestors:
        return
    with os.scandir(os.path.join(base, below)) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            if entry.name.startswith("."):
                continue
            try:
                details = entry.stat()
            except OSError:
                yield listed_file(path, "cannot be opened")
                continue
            if stat.S_ISDIR(details.st_mode):
                yield from _walk(base, f"{path}/", ancestors | {here})
            elif stat.S_ISREG(details.st_mode):
                yield listed_file(path, f"{details.st_size}-{details.st_mtime_ns}")


def listed_file(path: str, file_version: str) -> ListedFile:
    """A file on a local disk by its path below the root."""
    raw = os.fsencode(path)
    label = raw.decode("utf-8", "backslashreplace")
    needs_no_escape = label == path and not path.startswith(ESCAPE)
    location = path if needs_no_escape else ESCAPE + quote(raw)
    return ListedFile(location, normalize_name(label), file_version)


def local_path(base: str, location: str) -> bytes:
    """Path of a listed file on a local disk, in the bytes that the system knows it by."""
    raw = os.fsencode(location)
    if location.startswith(ESCAPE):
        raw = unquote_to_bytes(location.removeprefix(ESCAPE))
    return os.path.join(os.fsencode(base), raw)


def _read_local(base: str, location: str) -> bytes | None:
    try:
        with open(local_path(base, location), "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None


def normalize_name(name: str) -> str:
    """A name in the one form in which names are compared: composed Unicode characters (NFC).

    Systems write the same name in two forms, so that the ``é`` of one disk is ``e`` and an accent
    on another. Names of identities and images pass here wherever they are read: from folders,
    tables, lists and files of groups.

    >>> normalize_name("Zoe" + chr(0x308)) == "Zoë"
    True
    """
    return unicodedata.normalize("NFC", name)


def table_path(name: str) -> str:
    """A path in a table as the path of a listed file: ``/`` between its parts, no ``./`` before.

    Tables that were written on Windows hold backslashes.

    >>> table_path(".\\\\Ann\\\\1.jpg")
    'Ann/1.jpg'
    """
    return normalize_name(name.replace("\\", "/").removeprefix("./"))


def open_listed(filesystem: fs.FileSystem, folder: str, location: str) -> IO[bytes]:
    """A listed file as a stream with ``read`` and ``seek``, whatever its name."""
    if isinstance(filesystem, fs.LocalFileSystem):
        return open(local_path(folder, location), "rb")
    return cast(IO[bytes], filesystem.open_input_file(f"{folder}/{location}"))


def read_text_table(uri: str, key: str, expected: str) -> pa.Table:
    """A small table with all of its columns as text; null where a CSV's field is empty.

    Columns that are no scalars, such as images, are left out.

    Args:
        uri: local path or URI; its ending says the format: ``.parquet``, ``.jsonl``, ``.tsv``, else
            CSV.
        key: configuration key that gave the path, for the message.
        expected: what the file should hold, for the message.

    Raises:
        BadInputError: the file cannot be read.
    """
    try:
        if uri.endswith(".parquet"):
            table = storage.read_table(uri)
        elif uri.endswith(JSON_LINES):
            table = _read_jsonl(storage.read_bytes(uri).decode("utf-8-sig"))
        else:
            table = _read_csv(storage.read_bytes(uri), "\t" if uri.endswith(".tsv") else ",")
        columns = {
            name: column.cast(pa.string())
            for name, column in zip(table.column_names, table.columns, strict=True)
            if not (pa.types.is_nested(column.type) or is_binary(column.type))
        }
    except (OSError, ValueError, OverflowError, pa.ArrowException, BadInputError) as error:
        reason = _without_values(str(error))
        raise BadInputError(f"{key}: cannot read {uri}: {reason}; expected {expected}") from error
    if len(set(table.column_names)) < len(table.column_names):
        raise columns_error(uri, key, table, "two of one name", expected)
    return pa.table(columns)


def columns_error(uri: str, key: str, table: pa.Table, fault: str, expected: str) -> BadInputError:
    """The error on a table's columns; it quotes no name, since a first line may be a row.

    Args:
        uri: of the table.
        key: configuration key that gave it.
        table: what was read.
        fault: what is wrong, after "it has 2 columns, ".
        expected: what the file should hold.
    """
    count = len(table.column_names)
    columns = "1 column" if count == 1 else f"{count} columns"
    has_names = uri.endswith((".parquet", *JSON_LINES))
    cure = "" if has_names else "its first line must name the columns; "
    return BadInputError(f"{key}: {uri} has {columns}, {fault}; {cure}expected {expected}")


def _without_values(reason: str) -> str:
    """An error of Arrow without what it quotes of the table, which may name people.

    >>> _without_values("CSV parse error: Expected 2 columns, got 3: 1.png,Ann Lee,f")
    'CSV parse error: Expected 2 columns, got 3'
    """
    if reason.startswith(("Could not convert", "Expected bytes", "cannot mix")):
        return "a value is of another kind than those before it in its column"
    return ROW.sub(r"\1", reason)


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes, in any of Arrow's layouts."""
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _read_jsonl(text: str) -> pa.Table:
    """A table with the fields of any line as text; null where a line lacks one."""
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    fields = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pylist([{name: _text(row.get(name)) for name in fields} for row in rows])


def _text(value: object) -> object:
    """A number or truth value of JSON as the text that Arrow makes of it; else the value.

    >>> _text(7), _text(7.0), _text(True), _text("7"), _text([7])
    ('7', '7', 'true', '7', [7])
    """
    if isinstance(value, int | float):
        return pa.scalar(value).cast(pa.string()).as_py()
    return value


def _read_csv(content: bytes, delimiter: str) -> pa.Table:
    parse = csv.ParseOptions(delimiter=delimiter)
    names = csv.open_csv(pa.BufferReader(content), parse_options=parse).schema.names
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=[""],
    )
    reader = pa.BufferReader(content)
    return csv.read_csv(reader, parse_options=parse, convert_options=options)


def read_lines(uri: str, key: str, expected: str) -> list[str]:
    """Lines of a UTF-8 text file without surrounding blanks; empty ones are left out.

    Args:
        uri: local path or URI.
        key: configuration key that gave the path, for the message.
        expected: what the file should hold, for the message.

    Raises:
        BadInputError: the file cannot be read, is not UTF-8 or has no line.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInputError(f"{key}: cannot read {uri}: {error}; expected {expected}") from error
    lines = [normalize_name(line.strip()) for line in text.split("\n") if line.strip()]
    if not lines:
        raise BadInputError(f"{key}: {uri} is empty; expected {expected}")
    return lines


def read_pairs(uri: str, key: str, expected: str) -> dict[str, str]:
    """Mapping from lines of two words, as in CelebA's ``000001.jpg 2880``.

    In a file ``*.csv`` a comma divides them, and the first line names the columns.

    Raises:
        BadInputError: see :func:`read_lines`; or a line has not two words, or the first word of
            a line stood before with another second one. The message gives the entry's number.
    """
    pairs: dict[str, str] = {}
    is_csv = uri.endswith(".csv")
    lines = read_lines(uri, key, expected)
    for number, line in enumerate(lines[is_csv:], start=1 + is_csv):
        columns = [part.strip() for part in line.split("," if is_csv else None)]
        if len(columns) != 2 or pairs.setdefault(columns[0], columns[1]) != columns[1]:
            raise BadInputError(
                f"{key}: {uri}: entry {number}: expected a file name and a number, each file once"
            )
    return pairs
