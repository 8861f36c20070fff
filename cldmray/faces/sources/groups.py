"""Groups of people, such as sex or age, for the risk of each group: one row an identity."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.faces.sources.files import columns_error, normalize_name, read_text_table
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
        fault = "none beside it" if IDENTITY in names else f"none called {IDENTITY}"
        raise columns_error(uri, KEY, table, fault, EXPECTED)
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


def majority(identities: Sequence[str], values: Sequence[str | None]) -> dict[str, str | None]:
    """The value that most images of a person have; None where two are equally common.

    >>> majority(["Ann", "Ann", "Ann", "Bob"], ["f", "m", "f", None])
    {'Ann': 'f', 'Bob': None}

    Args:
        identities: of each image.
        values: of each image; None: unknown.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for identity, value in zip(identities, values, strict=True):
        counts[identity].update([value] if value else [])
    result: dict[str, str | None] = {}
    for identity, counter in counts.items():
        ranked = counter.most_common(2)
        even = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
        result[identity] = None if even or not ranked else ranked[0][0]
    return result
