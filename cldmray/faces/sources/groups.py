"""Groups of people, such as sex or age, for the risk of each group: one row an identity."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.csv as csv

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.faces.sources.files import normalize_name
from cldmray.hashing import identity_hash

IDENTITY = "identity"
KEY = "faces.groups_file"
EXPECTED = "a CSV or Parquet file with the column identity and one column an attribute"


def read_groups(uri: str | None) -> pa.Table | None:
    """The groups in a CSV file, or a Parquet file if its name ends in ``.parquet``.

    Args:
        uri: local path or URI, the setting ``groups_file`` of a source; None if there is none.

    Returns:
        Columns ``identity`` and one an attribute, all text; null where a person is in no group,
        which is an empty field in CSV.

    Raises:
        BadInputError: the file cannot be read, has no identity, no attribute, an empty identity
            or one that occurs twice; the message names it.
    """
    if uri is None:
        return None
    try:
        table = storage.read_table(uri) if uri.endswith(".parquet") else _read_csv(uri)
        names = table.column_names
        columns = [column.cast(pa.string()) for column in table.columns]
    except (OSError, ValueError, pa.ArrowException, BadInputError) as error:
        raise BadInputError(f"{KEY}: cannot read {uri}: {error}; expected {EXPECTED}") from error
    if IDENTITY not in names or len(names) < 2 or len(set(names)) < len(names):
        raise BadInputError(f"{KEY}: {uri} has the columns {names}; expected {EXPECTED}")
    table = pa.table(dict(zip(names, columns, strict=True)))
    identities = [normalize_name(name or "") for name in table[IDENTITY].to_pylist()]
    table = table.set_column(names.index(IDENTITY), IDENTITY, pa.array(identities, pa.string()))
    counts = Counter(table[IDENTITY].to_pylist())
    name, count = counts.most_common(1)[0] if counts else ("", 0)
    if not all(counts):
        raise BadInputError(f"{KEY}: {uri} has an empty identity, or none; expected {EXPECTED}")
    if count > 1:
        raise BadInputError(
            f"{KEY}: {uri} has the identity {identity_hash(name)} {count} times (names of people "
            "are hashed, see cldmray.hashing.identity_hash)"
        )
    return table


def majority(votes: Iterable[tuple[str, bool]], yes: str, no: str) -> dict[str, str | None]:
    """What most of each person's images say: ``yes``, ``no``, or None where they are even.

    Args:
        votes: identity and what one of its images says.
    """
    balance: Counter[str] = Counter()
    for identity, vote in votes:
        balance[identity] += 1 if vote else -1
    return {
        identity: yes if total > 0 else no if total < 0 else None
        for identity, total in balance.items()
    }


def _read_csv(uri: str) -> pa.Table:
    content = pa.BufferReader(storage.read_bytes(uri))
    names = csv.open_csv(content).schema.names
    content.seek(0)
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=[""],
    )
    return csv.read_csv(content, convert_options=options)
