"""Tables of results and of utility, as Parquet and JSON: same rows, same bytes on a rerun."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Literal

import pyarrow as pa

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.results.audit import UtilityRow
from cldmray.results.schema import SCHEMA_VERSION, stamped

RESULTS = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("attacker", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("chance", pa.float64()),
        pa.field("n_probes", pa.int64(), nullable=False),
        pa.field("n_identities", pa.int64(), nullable=False),
        pa.field("gallery_size", pa.int64(), nullable=False),
        pa.field("n_non_mated", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)
"""Rows of results (docs/results_files.md); the columns before ``value`` are the key of a row.

``value``, ``ci_low``, ``ci_high`` and ``chance`` are null only where ``reason`` says why."""
Level = Literal["image", "person"]
"""What is identified: one image, or one person by all anonymized images of theirs together."""
IMAGE_LEVEL: Level = "image"
IDENTITY_LEVEL: Level = "person"
ALL = "all"
"""Subset of a row of results that is of all probes."""
UTILITY = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("ci_low", pa.float64(), nullable=False),
        pa.field("ci_high", pa.float64(), nullable=False),
        pa.field("n_images", pa.int64(), nullable=False),
        pa.field("higher_is_better", pa.bool_(), nullable=False),
        pa.field("clean", pa.float64()),
        pa.field("chance", pa.float64()),
    ]
)
"""Fields of :class:`cldmray.results.audit.UtilityRow`; ``ci_low`` and ``ci_high`` as in results."""
KEYS = ("anonymizer", "attacker", "protocol", "gallery", "level", "subset", "measure")
NUMBERS = ("value", "ci_low", "ci_high", "chance")


def sorted_results(table: pa.Table) -> pa.Table:
    """The results with the columns of :data:`RESULTS`, rows sorted by what identifies them.

    Args:
        table: schema :data:`cldmray.results.table.RESULTS`, columns and rows in any order.

    Raises:
        BadInputError: a column is absent or of another type, a row occurs twice, or a value is
            NaN, infinite, or null without a reason; the message names the row.
    """
    if set(table.column_names) != set(RESULTS.names):
        raise BadInputError(f"results have columns {table.column_names}, not {RESULTS.names}")
    try:
        cast = table.select(RESULTS.names).cast(RESULTS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadInputError(f"results do not fit their schema: {error}") from error
    rows = sorted(cast.to_pylist(), key=_key)
    for row in rows:
        if any(row[name] is None for name in RESULTS.names if name not in (*NUMBERS, "reason")):
            raise BadInputError(f"results hold an empty value: {row}")
        if any(row[name] is None for name in NUMBERS) != bool(row["reason"]):
            raise BadInputError(
                f"results hold an empty value without a reason, or a reason without one: {row}"
            )
        if not all(math.isfinite(v) for v in row.values() if isinstance(v, float)):
            raise BadInputError(f"results hold a value that is not finite: {row}")
    for row, following in itertools.pairwise(rows):
        if _key(row) == _key(following):
            raise BadInputError(f"results hold a row twice: {' / '.join(_key(row))}")
    return pa.Table.from_pylist(rows, schema=RESULTS)


def results_json(table: pa.Table) -> str:
    r"""The rows as JSON, one object a line, with the schema version; floats keep every bit.

    Args:
        table: as :func:`sorted_results` returns it.

    >>> results_json(pa.table({"measure": ["rank_1"], "value": [0.5]}))
    '{"schema_version": 2, "rows": [\n{"measure": "rank_1", "value": 0.5}\n]}\n'
    """
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in table.to_pylist()]
    head = f'{{"schema_version": {SCHEMA_VERSION}, "rows": ['
    return head + "\n" + ",\n".join(lines) + "\n]}\n"


def write_results(table: pa.Table, folder_uri: str) -> list[str]:
    """Write ``results.parquet`` and ``results.json`` into a folder.

    Args:
        table: schema :data:`cldmray.results.table.RESULTS`, rows in any order.
        folder_uri: local path, ``s3://`` or ``gs://``; created if absent.

    Returns:
        URIs of the two files.

    Raises:
        BadInputError: see :func:`sorted_results`; nothing is written then.
    """
    ordered = sorted_results(table)
    parquet = storage.join(folder_uri, "results.parquet")
    text = storage.join(folder_uri, "results.json")
    storage.write_table(parquet, stamped(ordered))
    storage.write_bytes(text, results_json(ordered).encode())
    return [parquet, text]


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEYS)


def utility_table(rows: Sequence[UtilityRow]) -> pa.Table:
    """The rows, schema :data:`UTILITY`, sorted by anonymizer and measure.

    Raises:
        BadInputError: a row occurs twice, or a value is not finite.
    """
    ordered = sorted(rows, key=lambda row: (row.anonymizer, row.measure))
    keys = {(row.anonymizer, row.measure) for row in ordered}
    for row in ordered:
        if not all(math.isfinite(value) for value in (row.value, row.low, row.high)):
            raise BadInputError(f"utility holds a value that is not finite: {row}")
    if len(keys) < len(ordered):
        raise BadInputError("utility holds a row twice: same anonymizer and measure")
    values = [dict(zip(UTILITY.names, astuple(row), strict=True)) for row in ordered]
    return pa.Table.from_pylist(values, UTILITY)


def write_utility(rows: Sequence[UtilityRow], folder_uri: str) -> list[str]:
    """Write ``utility.parquet`` and ``utility.json`` into a folder; nothing where no row is.

    Returns:
        URIs of the files.

    Raises:
        BadInputError: see :func:`utility_table`; nothing is written then.
    """
    if not rows:
        return []
    table = utility_table(rows)
    parquet, text = (storage.join(folder_uri, f"utility.{end}") for end in ("parquet", "json"))
    storage.write_table(parquet, stamped(table))
    storage.write_bytes(text, results_json(table).encode())
    return [parquet, text]
