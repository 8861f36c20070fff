"""The version of the files of an audit. ``docs/results_files.md`` has every column and key.

``tests/test_docs.py`` holds that page against the files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from cldmray.errors import BadInputError

SCHEMA_VERSION = 2
"""Of all files of an audit; it rises whenever a column or key changes its name or meaning."""
KEY = b"cldmray.schema_version"


def stamped(table: pa.Table) -> pa.Table:
    """The table with the schema version in its metadata.

    >>> stamped(pa.table({"value": [1.0]})).schema.metadata
    {b'cldmray.schema_version': b'2'}
    """
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({**metadata, KEY: str(SCHEMA_VERSION).encode()})


def check_version(uri: str, version: object) -> None:
    """Raise ``BadInputError`` unless a file was written in today's version.

    >>> check_version("run/report.json", 2)
    """
    if version != SCHEMA_VERSION:
        raise BadInputError(
            f"{uri} has schema_version {version}, not {SCHEMA_VERSION}: read it with the cldmray "
            "that wrote it, or run the audit again"
        )


def table_of(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Records of a dataclass as a table; ``low`` and ``high`` become ``ci_low`` and ``ci_high``."""
    names = {"low": "ci_low", "high": "ci_high"}
    records = [{names.get(k, k): v for k, v in asdict(row).items()} for row in rows]
    return pa.Table.from_pylist(records, schema)


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which NaN and infinities are null.

    >>> finite({"measure": "rank_1", "value": 0.5, "ci_high": float("inf")})
    {'measure': 'rank_1', 'value': 0.5, 'ci_high': None}
    """
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
