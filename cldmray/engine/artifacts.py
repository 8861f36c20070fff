"""Artifacts: tables that stages leave for each other, committed by a manifest.

Every write task writes its own Parquet files; the driver then commits them by writing
``manifest.json`` in one atomic step. Readers see the files that the manifest names and nothing
else, so a task that was retried or killed leaves no row twice and none half-written.

Blocks are cut where the stage before cut its own, and files are named after their content, so that
a table is the same, byte by byte, however many actors wrote it, in whatever order, and whoever was
killed. Before the commit, small files are gathered into files of about ``FILE_BYTES``, in which
each block stays a row group. Of two runs that write the same stage at once, the first that commits
is read by both. Ray reads slices of these, so that small tables keep many workers
busy.
"""

import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasink, Datasource, ReadTask, WriteResult

from cldmray import storage
from cldmray.arrays import Images
from cldmray.engine import cluster
from cldmray.engine.cluster import TASK_CPUS
from cldmray.engine.content_hash import content_hash
from cldmray.engine.tasks import map_in_tasks
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import REJECTED, decode_images

MANIFEST = "manifest.json"
REJECTED_FILE = "rejected.parquet"
WEIGHTS = "weights.safetensors"
"""File of what an attacker has learnt, in the folder of its artifact."""
SORTED_BY = ("sample_id", "sample", "view")
FILE_BYTES = 128 * 2**20
"""Size of a file, unless a single block is larger or the table smaller."""
DECODED_AT_ONCE = 256
"""Images whose pixels are held before a reader has prepared them."""
LEAST_BLOCKS, LEAST_ROWS = 16, 32
"""Small tables are cut into that many blocks, unless blocks had fewer rows than that."""


def block_count(rows: int, block_rows: int) -> int:
    """Blocks that a table of ``rows`` > 0 rows is cut into, each of at most ``block_rows``."""
    least = min(LEAST_BLOCKS, math.ceil(rows / LEAST_ROWS))
    return max(math.ceil(rows / block_rows), least)


ArtifactKey = str
"""16 hexadecimal characters: hash of a stage's name, settings, inputs' keys and code.

Equal keys mean equal artifacts, so that a key stands in for its content and is known before the
artifact has been produced: ``stages.plan(spec).key``.
"""


@dataclass(frozen=True)
class Manifest:
    """What a finished stage left in its folder.

    Attributes:
        files: names of its Parquet files and the rows of each.
        content: order-free hash of all rows, 32 hexadecimal characters.
        rejected: rows of ``rejected.parquet``.
        splits: rows of each split, where the table has splits.
        row_groups: rows of each row group, of the files that have several.
    """

    files: dict[str, int]
    content: str = ""
    rejected: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    row_groups: dict[str, list[int]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(self.files.values())


@dataclass(frozen=True)
class Artifact:
    """A committed table in the cache: what a stage leaves for others, and for later audits.

    Attributes:
        folder: local path or URI.
        manifest: its files and rows.
        key: hash of what decides its content.
        reused: whether it was found instead of produced.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> table = pa.table({"sample_id": ["b", "a"], "split": ["evaluation", "attacker"]})
        >>> storage.write_table(storage.join(folder, "part.parquet"), table)
        >>> commit(folder, Manifest({"part.parquet": 2}, splits={"evaluation": 1, "attacker": 1}))
        >>> artifact = Artifact(folder, read_manifest(folder), key="0123456789abcdef")
        >>> artifact.read(["sample_id"])["sample_id"].to_pylist()
        ['a', 'b']
        >>> artifact.count("attacker")
        1
    """

    folder: str
    manifest: Manifest
    key: ArtifactKey
    reused: bool = False

    @property
    def uris(self) -> list[str]:
        """The Parquet files."""
        return [storage.join(self.folder, name) for name in self.manifest.files]

    def stream(self, columns: list[str], block_rows: int) -> Dataset:
        """The table as a Ray Data stream; blocks come in no fixed order.

        Where blocks are cut depends on the table and on ``block_rows`` alone: an image's last
        bits may depend on its neighbours in a batch.

        Args:
            columns: the columns to read.
            block_rows: rows of a block at most; small tables are cut finer, so that there is
                work for several actors.

        Raises:
            BadInputError: the table is empty.
        """
        return stream_tables([self], columns, block_rows)

    def blocks(self) -> "list[Slice]":
        """The row groups of all files, as the tasks of the stage have written them."""
        return [
            Slice(storage.join(self.folder, name), group, 0, rows)
            for name, count in self.manifest.files.items()
            for group, rows in enumerate(self.manifest.row_groups.get(name, [count]))
        ]

    def slices(self, block_rows: int) -> "list[Slice]":
        """The blocks that :meth:`stream` reads.

        Raises:
            BadInputError: the table is empty.
        """
        rows = self.manifest.rows
        if not rows:
            raise BadInputError(f"{self.folder}: the table is empty")
        size = math.ceil(rows / block_count(rows, block_rows))
        return [
            block._replace(start=start, rows=min(size, block.rows - start))
            for block in self.blocks()
            for start in range(0, block.rows, size)
        ]

    def read(self, columns: list[str] | None = None, split: str | None = None) -> pa.Table:
        """The table in memory, sorted by those of :data:`SORTED_BY` that it has.

        Args:
            columns: the columns to return, all by default. Of the others only those are read that
                the rows are chosen and sorted by.
            split: whose rows to return, all by default.

        Raises:
            BadInputError: the table is empty; that of a split may be.
        """
        whole = _in_order(pa.concat_tables(self._files(columns, split)))
        return whole if columns is None else whole.select(columns)

    def images(self, split: str, prepare: Callable[[Images], Images]) -> Images:
        """The images of a split in the order of :meth:`read`, shape (N, height, width, 3).

        They are decoded file by file, ``DECODED_AT_ONCE`` at a time, so that beside the result only
        the encoded images of one file are held.

        Args:
            split: whose images to return; there may be none.
            prepare: called with some images, shape (n, h, w, 3); gives what is kept of each.

        Raises:
            BadInputError: the table is empty; that of the split may be.
        """
        keys = pa.concat_tables(self._files([], split))
        place = np.empty(keys.num_rows, np.int64)
        place[_order(keys).to_numpy()] = np.arange(keys.num_rows)
        images = np.zeros((0, 0, 0, 3), np.uint8)
        start = 0
        for file in self._files(["image"], split):
            for part in file.select(["image"]).to_batches(max_chunksize=DECODED_AT_ONCE):
                if not part.num_rows:
                    continue
                some = prepare(decode_images(part["image"].to_pylist()))
                if not start:
                    images = np.empty((len(place), *some.shape[1:]), np.uint8)
                images[place[start : start + len(some)]] = some
                start += len(some)
        return images

    def _files(self, columns: list[str] | None, split: str | None) -> Iterator[pa.Table]:
        """Each file's rows of a split, with the columns and with those that they are sorted by.

        Raises:
            BadInputError: the table is empty.
        """
        if not self.manifest.files:
            raise BadInputError(f"{self.folder}: the table is empty")
        needed = None
        if columns is not None:
            there = storage.table_schema(self.uris[0]).names
            others = [name for name in (*SORTED_BY, *(["split"] if split else [])) if name in there]
            needed = list(dict.fromkeys([*columns, *others]))
        for uri in self.uris:
            if split is None:
                yield storage.read_table(uri, needed)
                continue
            splits = storage.read_table(uri, ["split"])["split"]
            yield self._rows_where(uri, pc.equal(splits, split), needed)

    def read_samples(self, columns: Sequence[str], sample_ids: Sequence[str]) -> pa.Table:
        """Rows of some samples, sorted by sample id, without reading the images of all others."""
        ids = pa.array(sample_ids, pa.string())
        parts = []
        for uri in self.uris:
            wanted = pc.is_in(storage.read_table(uri, ["sample_id"])["sample_id"], ids)
            parts.append(self._rows_where(uri, wanted, columns))
        return pa.concat_tables(parts).sort_by("sample_id")

    def _rows_where(
        self, uri: str, wanted: pa.ChunkedArray, columns: Sequence[str] | None
    ) -> pa.Table:
        """Rows of a file; of its row groups only those are read that hold a wanted one."""
        name = uri.rpartition("/")[2]
        kept, groups, start = [], [], 0
        for group, rows in enumerate(self.manifest.row_groups.get(name, [len(wanted)])):
            part = wanted.slice(start, rows)
            start += rows
            if pc.any(part, min_count=0).as_py():
                groups.append(group)
                kept += part.chunks
        names = None if columns is None else list(columns)
        if not groups:
            empty = storage.table_schema(uri).empty_table()
            return empty if names is None else empty.select(names)
        table = storage.read_table(uri, names, groups)
        return table.filter(pa.chunked_array(kept, pa.bool_()))

    def count(self, split: str) -> int:
        """Rows of a split, as the manifest says; no file is opened."""
        return self.manifest.splits.get(split, 0)

    def rejected(self) -> pa.Table:
        """Samples that the stage refused, sorted by ``sample_id``; schema ``records.REJECTED``."""
        uri = storage.join(self.folder, REJECTED_FILE)
        if not self.manifest.rejected:
            return REJECTED.empty_table()
        return storage.read_table(uri).cast(REJECTED).sort_by("sample_id")


def stream_tables(tables: Sequence[Artifact], columns: list[str], block_rows: int) -> Dataset:
    """Several tables as one stream, cut into the blocks of each; see :meth:`Artifact.stream`.

    A column that a table does not have is null there.

    Raises:
        BadInputError: one of the tables is empty.
    """
    slices = [piece for table in tables for piece in table.slices(block_rows)]
    cluster.start()
    stream: Dataset = ray.data.read_datasource(
        Slices(slices, columns), override_num_blocks=len(slices), num_cpus=TASK_CPUS
    )
    return stream


class Slice(NamedTuple):
    """Consecutive rows of a row group of a Parquet file."""

    uri: str
    row_group: int
    start: int
    rows: int

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows as one table; a column that the file does not have is null."""
        there = set(storage.table_schema(self.uri).names)
        names = [name for name in columns if name in there]
        table = storage.read_table(self.uri, names, [self.row_group])
        table = table.slice(self.start, self.rows).combine_chunks()
        for name in columns:
            if name not in there:
                table = table.append_column(name, pa.nulls(len(table), pa.string()))
        yield table.select(columns)

    def read_samples(self, columns: Sequence[str], sample_ids: pa.Array) -> pa.Table:
        """Rows of some samples; where the row group holds none, nothing else is read of it.

        Args:
            columns: the columns to return.
            sample_ids: of the rows.
        """
        (ids,) = self.read(["sample_id"])
        here = pc.is_in(ids["sample_id"], sample_ids)
        if not pc.any(here, min_count=0).as_py():
            return storage.table_schema(self.uri).empty_table().select(columns)
        (table,) = self.read(list(columns))
        return table.filter(here)


class Slices(Datasource):
    """A Ray Data source with one task and one block for each slice.

    Ray's own Parquet source merges small files into one block, and a stream of slices that a map
    reads is fused with what follows, so that one task reads many of them.
    """

    def __init__(self, slices: list[Slice], columns: list[str]) -> None:
        Datasource.__init__(self)
        self.slices = slices
        self.columns = columns

    def get_name(self) -> str:
        """Name in Ray's progress and statistics."""
        return "Stage"

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes; unknown."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task for each slice; called by Ray."""
        return [
            ReadTask(
                partial(piece.read, self.columns),
                BlockMetadata(
                    num_rows=piece.rows,
                    size_bytes=None,
                    exec_stats=None,
                    input_files=(piece.uri,),
                ),
            )
            for piece in self.slices
        ]


@dataclass(frozen=True)
class Part:
    """One block as a task has written it.

    Attributes:
        file: name of its file.
        rows: good ones; where there is none, there is no file.
        content: sum of the hashes of its rows.
        rejected: the others, schema ``records.REJECTED``.
        splits: rows of each split.
        size: bytes of the rows in memory, nearly those of the file where they hold images.
    """

    file: str
    rows: int
    content: int
    rejected: list[dict[str, Any]]
    splits: dict[str, int]
    size: int


class RecordsSink(Datasink[list[Part]]):
    """Writes each block of a stream of records as a file, for :func:`commit_parts`.

    A column ``reason``, where the stream has one, tells rejected rows (not empty) from good ones.

    Args:
        folder: local path or URI of the stage.
        schema: of the good rows; further columns of the stream are dropped.

    Attributes:
        parts: what was written, once the stream has ended.
        token: part of the names of files until they are committed, so that two runs of a stage
            write none of the same name.
        started_ns: when the run began.
    """

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema
        self.parts: list[Part] = []
        self.token = uuid.uuid4().hex
        self.started_ns = time.time_ns()

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[Part]:
        """Write the blocks of one task; called by Ray in a worker."""
        parts = []
        for block in blocks:
            table = BlockAccessor.for_block(block).to_arrow()
            if not table.num_rows:
                continue
            rejected: list[dict[str, Any]] = []
            if "reason" in table.column_names:
                good = pc.equal(table["reason"], "")
                rejected = table.filter(pc.invert(good)).select(REJECTED.names).to_pylist()
                table = table.filter(good)
            table = _in_order(table.select(self.schema.names).cast(self.schema)).combine_chunks()
            content = content_hash(table)
            name = f"part-{content:032x}_{self.token}.parquet"
            if table.num_rows:
                storage.write_table(storage.join(self.folder, name), table)
            splits: dict[str, int] = {}
            if "split" in self.schema.names:
                counted = table["split"].value_counts().to_pylist()
                splits = {row["values"]: row["counts"] for row in counted}
            parts.append(Part(name, table.num_rows, content, rejected, splits, table.nbytes))
        return parts

    def on_write_complete(self, write_result: WriteResult[list[Part]]) -> None:
        """Take note of the files of all tasks; called by Ray on the driver."""
        self.parts = [part for parts in write_result.write_returns for part in parts or []]


def write_records(stream: Dataset, folder: str, schema: pa.Schema) -> None:
    """Write a stream as one committed table; see :class:`RecordsSink`.

    Tasks that compute and tasks that write need the same, so that Ray Data makes one of both. If it
    kept CPUs for writing, two cores would compute one block at a time.
    """
    sink = RecordsSink(folder, schema)
    stream.write_datasink(sink, ray_remote_args={"num_cpus": TASK_CPUS})
    commit_parts(sink, map_in_tasks)


Gather = Callable[[Sequence[Part]], tuple[str, list[int]]]
"""Makes one file of several parts; gives its name and the rows of its row groups."""


def commit_parts(
    sink: RecordsSink,
    run: Callable[[Gather, list[list[Part]]], Iterable[tuple[str, list[int]]]] = map,
) -> None:
    """Gather the files of all tasks into files of about ``FILE_BYTES``, and commit the table.

    Where another run has committed the stage meanwhile, its table stays and this one is dropped.

    Args:
        sink: what the tasks have written, in any order.
        run: calls a function for each of many values, as ``map`` does.
    """
    folder, groups = sink.folder, _groups(sink.parts)
    try:
        if read_manifest(folder) is None:
            row_groups = dict(run(partial(_gathered, folder), groups))
            if read_manifest(folder) is None:
                _commit_files(folder, sink.parts, row_groups)
    except CldmrayError:  # the run that has committed may have swept what was to be gathered
        if read_manifest(folder) is None:
            raise
    _sweep(sink, {_file_of(group) for group in groups})


def _groups(parts: Iterable[Part]) -> list[list[Part]]:
    """The parts of each file."""
    together: list[list[Part]] = []
    room = 0
    for part in sorted((part for part in parts if part.rows), key=lambda part: part.file):
        is_again = bool(together) and together[-1][-1].file == part.file
        if part.size > room and not is_again:
            together.append([])
            room = FILE_BYTES
        together[-1].append(part)
        room -= part.size
    return together


def _commit_files(folder: str, parts: Sequence[Part], row_groups: dict[str, list[int]]) -> None:
    """Commit files by the rows of their row groups, and list the rejected rows of all parts."""
    rejected = [row for part in parts for row in part.rejected]
    if rejected:
        table = pa.Table.from_pylist(rejected, REJECTED).sort_by("sample_id")
        storage.write_table(storage.join(folder, REJECTED_FILE), table)
    splits: Counter[str] = Counter()
    for part in parts:
        splits.update(part.splits)
    manifest = Manifest(
        files={name: sum(counts) for name, counts in row_groups.items()},
        content=f"{sum(part.content for part in parts) % 2**128:032x}",
        rejected=len(rejected),
        splits=dict(splits),
        row_groups={name: counts for name, counts in row_groups.items() if len(counts) > 1},
    )
    commit(folder, manifest)


def _file_of(parts: Sequence[Part]) -> str:
    """Name of the file that parts become, by their content."""
    return f"part-{sum(part.content for part in parts) % 2**128:032x}.parquet"


def _gathered(folder: str, parts: Sequence[Part]) -> tuple[str, list[int]]:
    """Write several parts as one file and delete theirs, so that little is there twice.

    A task that is repeated, because its result was lost, finds the file and not all of the parts.
    """
    name = _file_of(parts)
    target = storage.join(folder, name)
    files = [storage.join(folder, part.file) for part in parts]
    if all(map(storage.exists, files)) or not storage.exists(target):
        if len(files) == 1:
            storage.move(files[0], target)
        else:
            storage.write_blocks(target, (storage.read_table(file) for file in files))
    for file in files:
        storage.delete(file)
    return name, [part.rows for part in parts]


def _sweep(sink: RecordsSink, own: Container[str]) -> None:
    """Delete what this run, and what was killed before it began, left beside the table's files.

    Younger files of others are left alone: another run may be writing the same stage.

    Args:
        own: names of the files that this run has gathered.
    """
    manifest = read_manifest(sink.folder)
    named = manifest.files if manifest else {}
    for info in storage.list_files(sink.folder, recursive=False):
        name = info.base_name
        if name in named or not (name.startswith("part-") or name.endswith(storage.PARTIAL)):
            continue
        is_older = info.mtime_ns is not None and info.mtime_ns < sink.started_ns
        if is_older or sink.token in name or name in own:
            storage.delete(storage.join(sink.folder, name))


def commit(folder: str, manifest: Manifest) -> None:
    """Write the manifest, which makes the stage's files visible."""
    text = json.dumps(asdict(manifest), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(folder, MANIFEST), text.encode())


def read_manifest(folder: str) -> Manifest | None:
    """The manifest of a finished stage; None where the stage has not finished.

    Raises:
        BadInputError: it was damaged.
    """
    uri = storage.join(folder, MANIFEST)
    if not storage.exists(uri):
        return None
    try:
        return Manifest(**json.loads(storage.read_bytes(uri)))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{uri} is damaged; delete {folder} to run it again") from error


def _in_order(table: pa.Table) -> pa.Table:
    return table.take(_order(table))


def _order(table: pa.Table) -> pa.Array:
    """Rows of a table, sorted by those of :data:`SORTED_BY` that it has."""
    keys = [(name, "ascending") for name in SORTED_BY if name in table.column_names]
    return pc.sort_indices(table, keys) if keys else pa.array(range(table.num_rows))
