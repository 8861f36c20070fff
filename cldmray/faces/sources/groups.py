"""Groups of people, such as sex or age, for the risk of each group: one row an identity."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.faces.sources.files import normalize_name, read_text_table
from cldmray.hashing import identity_hash

IDENTITY = "identity"
KEY = "faces.groups_file"
EXPECTED = "a CSV, JSONL or Parquet file with the column identity and one column an attribute"


def read_groups(uri: str | None) -> pa.Table | None:
    """The groups in a CSV, JSONL or Parquet file, by the ending of its name.

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
    table = read_text_table(uri, KEY, EXPECTED)
    names = table.column_names
    if IDENTITY not in names or len(names) < 2:
        raise BadInputError(f"{KEY}: {uri} has the columns {names}; expected {EXPECTED}")
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
