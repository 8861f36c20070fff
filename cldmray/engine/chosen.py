"""A few rows out of large tables, without reading the pictures of all others."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import storage
from cldmray.engine.tables import StageTable


def chosen_rows(uri: str, columns: Sequence[str], samples: pa.Array) -> pa.Table:
    """Rows of some samples of one Parquet file; one that holds none is not read any further.

    Args:
        columns: the columns to return.
        samples: sample ids.
    """
    here = pc.is_in(storage.read_table(uri, ["sample_id"])["sample_id"], samples)
    if not pc.any(here, min_count=0).as_py():
        return storage.table_schema(uri).empty_table().select(columns)
    return storage.read_table(uri, list(columns)).filter(here)


def chosen_table(table: StageTable, columns: Sequence[str], samples: Sequence[str]) -> pa.Table:
    """Rows of some samples of a table, sorted by sample id."""
    wanted = pa.array(samples, pa.string())
    parts = [chosen_rows(uri, columns, wanted) for uri in table.uris]
    return pa.concat_tables(parts).sort_by("sample_id")
