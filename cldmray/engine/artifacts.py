"""Artifacts: tables that stages leave for each other, committed by a manifest.

Every write task writes its own Parquet files; the driver then commits them by writing
``manifest.json`` in one atomic step. Readers see the files that the manifest names and nothing
else, so a task that was retried or killed leaves no row twice and none half-written.

Files are named after their content and cut where the stage before cut its own, so that a table is
the same, byte by byte, however many actors wrote it, in whatever order, and whoever was killed.
Ray reads them in slices, so that small tables keep many workers busy.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasink, Datasource, ReadTask, WriteResult

from cldmray import storage
from cldmray.engine.cluster import TASK_CPUS, WRITE_CPUS
from cldmray.errors import BadInputError
from cldmray.faces.records import REJECTED

MANIFEST = "manifest.json"
REJECTED_FILE = "rejected.parquet"
WEIGHTS = "weights.safetensors"
"""File of what an attacker has learnt, in the folder of its artifact."""
SORTED_BY = ("sample_id", "sample", "view")
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
    """

    files: dict[str, int]
    content: str = ""
    rejected: int = 0

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
        >>> commit(folder, Manifest({"part.parquet": 2}))
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
            Slice(storage.join(self.folder, name), start, min(size, count - start))
            for name, count in self.manifest.files.items()
            for start in range(0, count, size)
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
        if not self.manifest.files:
            raise BadInputError(f"{self.folder}: the table is empty")
        needed = None
        if columns is not None:
            there = storage.table_schema(self.uris[0]).names
            others = [name for name in (*SORTED_BY, *(["split"] if split else [])) if name in there]
            needed = list(dict.fromkeys([*columns, *others]))
        tables = []
        for uri in self.uris:
            table = storage.read_table(uri, needed)
            if split is not None:
                table = table.filter(pc.equal(table["split"], split))
            tables.append(table)
        whole = _in_order(pa.concat_tables(tables))
        return whole if columns is None else whole.select(columns)

    def read_samples(self, columns: Sequence[str], sample_ids: Sequence[str]) -> pa.Table:
        """Rows of some samples, sorted by sample id, without reading the images of all others."""
        ids = pa.array(sample_ids, pa.string())
        parts = [read_samples(uri, columns, ids) for uri in self.uris]
        return pa.concat_tables(parts).sort_by("sample_id")

    def count(self, split: str) -> int:
        """Rows of a split; only that column is read."""
        columns = (storage.read_table(uri, ["split"])["split"] for uri in self.uris)
        return sum(pc.sum(pc.equal(column, split)).as_py() or 0 for column in columns)

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
    stream: Dataset = ray.data.read_datasource(
        Slices(slices, columns), override_num_blocks=len(slices), num_cpus=TASK_CPUS
    )
    return stream


class Slice(NamedTuple):
    """Consecutive rows of a Parquet file."""

    uri: str
    start: int
    rows: int

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows as one table; a column that the file does not have is null."""
        there = set(storage.table_schema(self.uri).names)
        names = [name for name in columns if name in there]
        table = storage.read_table(self.uri, names).slice(self.start, self.rows).combine_chunks()
        for name in columns:
            if name not in there:
                table = table.append_column(name, pa.nulls(len(table), pa.string()))
        yield table.select(columns)


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
class _Part:
    file: str
    rows: int
    content: int
    rejected: list[dict[str, Any]]


class RecordsSink(Datasink[list[_Part]]):
    """Writes a stream of records as one committed table.

    A column ``reason``, where the stream has one, tells rejected rows (not empty) from good ones.

    Args:
        folder: local path or URI of the stage.
        schema: of the good rows; further columns of the stream are dropped.
    """

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[_Part]:
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
            table = _in_order(table.select(self.schema.names).cast(self.schema))
            content = _content_hash(table)
            name = f"part-{content:032x}.parquet"
            if table.num_rows:
                storage.write_table(storage.join(self.folder, name), table)
            parts.append(_Part(name, table.num_rows, content, rejected))
        return parts

    def on_write_complete(self, write_result: WriteResult[list[_Part]]) -> None:
        """Commit the files of all tasks; called by Ray on the driver."""
        parts = [part for parts in write_result.write_returns for part in parts or []]
        rejected = [row for part in parts for row in part.rejected]
        if rejected:
            table = pa.Table.from_pylist(rejected, REJECTED).sort_by("sample_id")
            storage.write_table(storage.join(self.folder, REJECTED_FILE), table)
        files = {part.file: part.rows for part in parts if part.rows}
        for file, times in Counter(part.file for part in parts if part.rows).items():
            for number in range(1, times):
                again = file.replace(".", f"-{number}.")
                content = storage.read_bytes(storage.join(self.folder, file))
                storage.write_bytes(storage.join(self.folder, again), content)
                files[again] = files[file]
        manifest = Manifest(
            files=files,
            content=f"{sum(part.content for part in parts) % 2**128:032x}",
            rejected=len(rejected),
        )
        commit(self.folder, manifest)
        self._sweep(files)

    def _sweep(self, files: Iterable[str]) -> None:
        """Delete what drivers and tasks that were killed have left beside the table's files."""
        for info in storage.list_files(self.folder, recursive=False):
            name = info.base_name
            left = name.startswith("part-") and name not in files
            if left or name.endswith(storage.PARTIAL):
                storage.delete(storage.join(self.folder, name))


def write_records(stream: Dataset, folder: str, schema: pa.Schema) -> None:
    """Write a stream as one committed table; see :class:`RecordsSink`."""
    stream.write_datasink(RecordsSink(folder, schema), ray_remote_args={"num_cpus": WRITE_CPUS})


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
    order = [(name, "ascending") for name in SORTED_BY if name in table.column_names]
    return table.sort_by(order) if order else table


def _content_hash(table: pa.Table) -> int:
    """Sum of the rows' hashes, so that the order and the division into files do not count."""
    total = 0
    for row in table.to_pylist():
        text = repr(sorted(row.items())).encode()
        total += int.from_bytes(hashlib.sha256(text).digest()[:16], "big")
    return total % 2**128


def read_samples(uri: str, columns: Sequence[str], sample_ids: pa.Array) -> pa.Table:
    """Rows of some samples of one Parquet file; a file that holds none is not read any further.

    Args:
        columns: the columns to return.
        sample_ids: of the rows.
    """
    here = pc.is_in(storage.read_table(uri, ["sample_id"])["sample_id"], sample_ids)
    if not pc.any(here, min_count=0).as_py():
        return storage.table_schema(uri).empty_table().select(columns)
    return storage.read_table(uri, list(columns)).filter(here)
