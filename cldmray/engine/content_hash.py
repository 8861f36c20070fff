"""The hash of a table's rows, by which its files are named and compared."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

MISSING = b"\xff" * 8
"""What is hashed of a null, in place of the length of a value."""


def content_hash(table: pa.Table) -> int:
    """Sum of the rows' hashes, so that the order and the division into files do not count."""
    total = 0
    for row in zip(*(_values(table[name]) for name in sorted(table.column_names)), strict=True):
        digest = hashlib.sha256()
        for value in row:
            digest.update(MISSING if value is None else len(value).to_bytes(8, "little"))
            digest.update(value or b"")
        total += int.from_bytes(digest.digest()[:16], "big")
    return total % 2**128


def _values(column: pa.ChunkedArray) -> Iterator[bytes | memoryview | None]:
    """Bytes of each value of a column, None where it is null; texts and images are not copied."""
    kind = column.type
    is_text = pa.types.is_binary(kind) or pa.types.is_string(kind)
    is_vector = pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)
    for chunk in column.chunks:
        if not (is_text or is_vector):
            yield from (repr(value).encode() for value in chunk.to_pylist())
            continue
        values: Iterator[bytes | memoryview] = _texts(chunk) if is_text else _vectors(chunk)
        there = chunk.is_valid().to_pylist()
        yield from (value if kept else None for value, kept in zip(values, there, strict=True))


def _texts(chunk: pa.Array) -> Iterator[memoryview]:
    _, offsets, content = chunk.buffers()
    places = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    view = memoryview(content) if content is not None else memoryview(b"")
    return (view[start:end] for start, end in pairwise(places.tolist()))


def _vectors(chunk: pa.Array) -> Iterator[bytes]:
    size = chunk.type.list_size
    rows = chunk.values.slice(chunk.offset * size, len(chunk) * size)
    return (row.tobytes() for row in rows.to_numpy(zero_copy_only=False).reshape(-1, size))
