"""Finds near-duplicates among the faces: tasks hash the images, and compare each with all."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cldmray import storage
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.tasks import map_in_tasks
from cldmray.faces.near_duplicates import HASH_BYTES, SIDE, Bytes, Fingerprints, fingerprint
from cldmray.faces.records import decode_images
from cldmray.gallery.near_duplicates import NearDuplicate, near_duplicates

NEAR_DUPLICATES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("other_sample_id", pa.string(), nullable=False),
        pa.field("other_identity", pa.string(), nullable=False),
        pa.field("other_split", pa.string(), nullable=False),
        pa.field("likeness", pa.float64(), nullable=False),
        pa.field("is_mirrored", pa.bool_(), nullable=False),
    ]
)
"""One row a pair; ``sample_id < other_sample_id``."""
PAIRS = "pairs.parquet"
COMPARED_ROWS = 20_000
"""Images that a task compares with all others; so few that there are go without a task."""


def find_near_duplicates(tables: Sequence[Artifact], engine: EngineConfig, folder: str) -> None:
    """Write the pairs of near-duplicates among all images.

    Args:
        tables: of faces, at least one; no sample is in two of them.
        folder: gets a table of schema :data:`NEAR_DUPLICATES`; without files where there is no
            pair.
    """
    columns = ["sample_id", "identity", "split"]
    batches: list[pa.Table] = []
    for faces in tables:
        stream = faces.stream([*columns, "image"], engine.block_rows).map_batches(
            _hashed, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
        )
        batches += stream.iter_batches(batch_size=None, batch_format="pyarrow")
    table = pa.concat_tables(batches).sort_by("sample_id")
    marks = Fingerprints(
        _bytes_of(table["hash"]).reshape(-1, HASH_BYTES),
        _bytes_of(table["thumbnail"]).reshape(-1, SIDE, SIDE),
    )
    parts = [(marks, start) for start in range(0, table.num_rows, COMPARED_ROWS)]
    compare = map if len(parts) == 1 else map_in_tasks
    pairs = [pair for part in compare(_compared, parts) for pair in part]
    if not pairs:
        commit(folder, Manifest({}))
        return
    firsts = table.select(columns).take([pair.row for pair in pairs])
    others = table.select(columns).take([pair.other for pair in pairs])
    values = [
        *firsts.columns,
        *others.columns,
        pa.array([pair.likeness for pair in pairs]),
        pa.array([pair.is_mirrored for pair in pairs]),
    ]
    storage.write_table(
        storage.join(folder, PAIRS), pa.Table.from_arrays(values, schema=NEAR_DUPLICATES)
    )
    commit(folder, Manifest({PAIRS: len(pairs)}))


def pairs_of(artifact: Artifact) -> pa.Table:
    """The pairs that :func:`find_near_duplicates` has left, schema :data:`NEAR_DUPLICATES`."""
    return artifact.read() if artifact.manifest.rows else NEAR_DUPLICATES.empty_table()


def _hashed(block: pa.Table) -> pa.Table:
    """The block with the bytes of the hashes and of the thumbnails in place of the images."""
    marks = fingerprint(decode_images(block["image"].to_pylist()))
    table = block.select(["sample_id", "identity", "split"])
    for name, values in zip(("hash", "thumbnail"), marks, strict=True):
        # of fixed size, since offsets of 32 bits end at 2.1 million thumbnails
        kind = pa.binary(values[0].size if len(values) else 0)
        table = table.append_column(name, pa.array([row.tobytes() for row in values], kind))
    return table


def _compared(part: tuple[Fingerprints, int]) -> list[NearDuplicate]:
    marks, start = part
    return near_duplicates(marks, start, start + COMPARED_ROWS)


def _bytes_of(column: pa.ChunkedArray) -> Bytes:
    values = column.combine_chunks()
    width = values.type.byte_width
    return np.frombuffer(values.buffers()[1], np.uint8, len(values) * width, values.offset * width)
