"""Files anywhere: one small layer over ``pyarrow.fs``: local paths, ``s3://``, ``gs://``, ``hf://``.

Writes are atomic on a local disk (written beside the target, then renamed) and on object
stores (an object appears whole or not at all).
"""

import errno
import functools
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cldmray.errors import BadInputError, StorageError

LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
"""A percent sign that encodes nothing."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
PROBE_BYTES = 4096
"""An empty file fits on a full disk, one of this size does not."""

RETRY_SECONDS = 60
"""How long a storage at ``gs://`` is asked again; Google's own 15 minutes pass without a word where
there are no credentials."""

HUB_TIMEOUT = 10.0
"""Seconds that the hub has to answer before only its local cache is asked."""
PARTIAL = ".partial"
"""Ending of a local file that is being written, or was when its writer was killed."""
ROOT_VARIABLE = "CLDMRAY_STORAGE"
"""Environment variable: where reports and artifacts go that have no place of their own."""
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray tells the runtime environment to a job that was submitted."""
JOB_ROOT = "~/cldmray"
"""Root of all jobs of a machine that run in Ray's copies of a project."""


def in_job_package() -> bool:
    """Whether this process is a submitted job in Ray's copy of the project, which Ray deletes."""
    return "working_dir" in (json.loads(os.environ.get(JOB_CONFIG, "{}")).get("runtime_env") or {})


def job_root() -> str | None:
    """Where a submitted job keeps what has no place of its own; None for any other process.

    It is the local folder that ``CLDMRAY_STORAGE`` names, else ``cldmray`` in the home folder: one
    place for all jobs of a machine, because the current folder is lost with the job.
    """
    if not in_job_package():
        return None
    named = os.environ.get(ROOT_VARIABLE)
    root = named if named and "://" not in named else JOB_ROOT
    return str(Path(root).expanduser().absolute())


def is_in_job_root(folder: str) -> bool:
    """Whether a path lies in ``~/cldmray``, which the machines of a cluster do not share."""
    if "://" in folder:
        return False
    return Path(folder).expanduser().absolute().is_relative_to(Path(JOB_ROOT).expanduser())


def use_job_root() -> str | None:
    """Let ``CLDMRAY_STORAGE`` name :func:`job_root` where it names nothing.

    Returns:
        The folder; None where nothing was changed.
    """
    root = job_root()
    if root is None or os.environ.get(ROOT_VARIABLE):
        return None
    os.environ[ROOT_VARIABLE] = root
    return root


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """File system and path of a URI or local path (relative and ``~`` paths are made absolute).

    Blanks, accents and other characters of a URI need not be escaped. ``hf://datasets/OWNER/NAME``
    is a data set of the Hugging Face hub, which is read only.
    """
    if uri.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem())), uri.removeprefix("hf://")
    if "://" in uri:
        address = escaped(uri)
        if uri.startswith("gs://") and "retry_limit_seconds=" not in uri:
            address += f"{'&' if '?' in uri else '?'}retry_limit_seconds={RETRY_SECONDS}"
        filesystem, path = fs.FileSystem.from_uri(address)
        return filesystem, path
    return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())


@functools.lru_cache(maxsize=64)
def hub_commit(model: str, revision: str | None) -> str:
    """Commit that a revision of a hub model stands for, so that a branch that moves is noticed.

    Returns:
        What the hub says; offline, what its local cache holds; else ``revision`` or ``""``.
    """
    from huggingface_hub import constants, model_info

    try:
        return model_info(model, revision=revision, timeout=HUB_TIMEOUT).sha or ""
    except Exception:
        folder = f"models--{model.replace('/', '--')}"
        reference = Path(constants.HF_HUB_CACHE, folder, "refs", revision or "main")
        return reference.read_text().strip() if reference.is_file() else revision or ""


def escaped(uri: str) -> str:
    """A URI with what Arrow refuses in it percent-encoded; what is encoded already stays.

    >>> escaped("s3://bucket/Zoë 100%/a%20b#1?region=eu-central-1")
    's3://bucket/Zo%C3%AB%20100%25/a%20b%231?region=eu-central-1'
    """
    return quote(LONE_PERCENT.sub("%25", uri), safe="%/:?&=@+,;!$'()*~[]")


def join(root: str, *parts: str) -> str:
    """Join parts to a URI or path with ``/``."""
    return "/".join([root.rstrip("/"), *parts])


def real_path(filesystem: fs.FileSystem, path: str) -> str:
    """A folder's path without links and dots, so that one folder has one path."""
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    return os.path.realpath(path) if is_local else path.rstrip("/")


def is_within(place: str, folder: str) -> bool:
    """Whether a place is a folder or lies below it; False where one cannot be opened.

    >>> is_within("data/../faces/out", "faces/"), is_within("faces-out", "faces")
    (True, False)
    """
    try:
        (own, path), (other, above) = resolve(place), resolve(folder)
    except (pa.ArrowException, OSError, ValueError):
        return False
    inner, outer = (real.rstrip("/") for real in (real_path(own, path), real_path(other, above)))
    return own == other and f"{inner}/".startswith(f"{outer}/")


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def unwritable(place: str, code: int | None, reason: str) -> StorageError:
    """The error that says where nothing can be written, why, and what to do.

    Args:
        place: URI or other words.
        code: the system's number of the error, where it is known.
        reason: in words, used where the number says nothing.
    """
    cure = "see that it is there and that you may write there"
    if code is not None:
        reason = os.strerror(code)
        cure = "make room there" if code in FULL else cure
        cure = "make it writable" if code in READ_ONLY else cure
    return StorageError(
        f"cannot write {place}: {' '.join(reason.split())}; {cure}, then run the same command "
        "again: finished stages are kept and found"
    )


@contextmanager
def _writing(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(uri, error.errno, str(error)) from error


def make_folder(uri: str) -> None:
    """Create a folder and its parents where the file system has folders.

    Raises:
        StorageError: it cannot be made.
    """
    filesystem, path = resolve(uri)
    with _writing(uri):
        filesystem.create_dir(path, recursive=True)


def check_writable(key: str, folder: str) -> None:
    """Find out whether files can be written to a folder, which is made if it is absent.

    Args:
        key: the setting that names the folder.
        folder: path or URI.

    Raises:
        StorageError: they cannot, or the URI cannot be opened; the message begins with the key.
    """
    probe = join(folder, f".{uuid.uuid4().hex}{PARTIAL}")
    try:
        write_bytes(probe, bytes(PROBE_BYTES))
        filesystem, path = resolve(probe)
    except StorageError as error:
        raise StorageError(f"{key}: {error}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(f"{key}: cannot open {folder}: {error}") from error
    with suppress(OSError):
        filesystem.delete_file(path)


def list_files(uri: str, recursive: bool = True) -> list[fs.FileInfo]:
    """All files under a folder, sorted by path.

    Raises:
        BadInputError: the folder does not exist.
    """
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).type != fs.FileType.Directory:
        raise BadInputError(f"no such folder: {uri}")
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=recursive))
    return sorted((info for info in infos if info.is_file), key=lambda info: info.path)


def read_bytes(uri: str) -> bytes:
    """Content of a file.

    Raises:
        FileNotFoundError: it does not exist.
    """
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file atomically, creating its folder.

    Raises:
        StorageError: the storage is full, read-only or fails; no part of the file stays.
    """
    with _replacing(uri) as stream:
        stream.write(content)


@contextmanager
def _replacing(uri: str) -> Iterator[pa.NativeFile]:
    """A stream whose content becomes the file in one step, when the context ends well."""
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    target = f"{path}.{uuid.uuid4().hex}{PARTIAL}" if local else path
    with _writing(uri):
        filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        try:
            with filesystem.open_output_stream(target) as stream:
                yield stream
            if local:
                filesystem.move(target, path)
        except BaseException:
            if local:
                with suppress(OSError):
                    Path(target).unlink(missing_ok=True)
            raise


def delete(uri: str) -> None:
    """Delete a file, if it is there."""
    filesystem, path = resolve(uri)
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)


def move(uri: str, target: str) -> None:
    """Give a file another name, in one step on a local disk; what was there is replaced.

    Raises:
        StorageError: the file is absent, or the storage fails.
    """
    filesystem, path = resolve(uri)
    with _writing(target):
        filesystem.move(path, resolve(target)[1])


def write_table(uri: str, table: pa.Table) -> None:
    """Write one Parquet file atomically.

    Raises:
        StorageError: see :func:`write_bytes`.
    """
    write_blocks(uri, [table])


def write_blocks(uri: str, blocks: Iterable[pa.Table]) -> None:
    """Write one Parquet file atomically, in which each block is a row group.

    Args:
        blocks: tables of one schema, at least one; one of them at a time is held in memory.

    Raises:
        StorageError: see :func:`write_bytes`.
    """
    blocks = iter(blocks)
    first = next(blocks)
    with (
        _replacing(uri) as stream,
        pq.ParquetWriter(stream, first.schema, compression="zstd") as writer,
    ):
        for block in chain([first], blocks):
            writer.write_table(block, row_group_size=max(1, len(block)))


def table_schema(uri: str) -> pa.Schema:
    """Schema of one Parquet file; of its rows nothing is read.

    Raises:
        BadInputError: the file is absent or not Parquet; the message names it.
    """
    filesystem, path = resolve(uri)
    try:
        return pq.read_schema(path, filesystem=filesystem)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise BadInputError(f"cannot read the Parquet table {uri}: {error}") from error


def read_table(
    uri: str, columns: list[str] | None = None, row_groups: Sequence[int] | None = None
) -> pa.Table:
    """Read one Parquet file, or some of its row groups.

    Raises:
        BadInputError: the file is absent or not Parquet; the message names it.
    """
    filesystem, path = resolve(uri)
    try:
        if row_groups is None:
            return pq.read_table(path, columns=columns, filesystem=filesystem)
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            return file.read_row_groups(row_groups, columns)
    except (FileNotFoundError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise BadInputError(f"cannot read the Parquet table {uri}: {error}") from error
