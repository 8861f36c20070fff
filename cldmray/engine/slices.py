"""Reads Parquet files in slices, so that small tables keep many workers busy."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from cldmray import storage


class Slice(NamedTuple):
    """Consecutive rows of a Parquet file."""

    uri: str
    start: int
    rows: int

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows as one table."""
        yield storage.read_table(self.uri, columns).slice(self.start, self.rows).combine_chunks()


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
