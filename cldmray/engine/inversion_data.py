"""Gathers what an inverter learns from, and is validated on, out of the stages' tables."""

from dataclasses import dataclass

import numpy as np

from cldmray.attackers.inversion.pairs import InversionPairs, within_budget
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, decode_pictures


@dataclass(frozen=True)
class Queried:
    """Pairs, and the sample behind each anonymized picture.

    Attributes:
        pairs: of the people of one split.
        samples: ``sample_id`` of each anonymized picture.
    """

    pairs: InversionPairs
    samples: list[str]

    def within(self, budget: int | None) -> InversionPairs:
        """The pairs that so many queries buy; see :func:`within_budget`."""
        return self.pairs.rows(within_budget(self.samples, budget))


def queried(faces: StageTable, anonymized: StageTable, split: str) -> Queried:
    """All photographs of a split's people, and all anonymized pictures of theirs.

    Args:
        split: ``ATTACKER`` to learn from, ``ATTACKER_VALIDATION`` to validate on.

    Raises:
        BadInputError: there are no photographs, or no anonymized pictures, of such people.
    """
    if split not in (ATTACKER, ATTACKER_VALIDATION):
        raise ValueError(f"an inverter may not learn from {split} people")
    photos = faces.read(split=split)
    table = anonymized.read(split=split)
    if not photos.num_rows or not table.num_rows:
        what = "anonymized pictures" if photos.num_rows else "photographs"
        raise BadInputError(
            f"inversion: no {what} of {split} people; see splits.attacker, "
            "splits.background_share and splits.validation_share"
        )
    samples = photos["sample_id"].to_pylist()
    _, codes = np.unique(np.asarray(photos["identity"].to_pylist()), return_inverse=True)
    people = codes.astype(np.int64)
    row_of = {sample: row for row, sample in enumerate(samples)}
    sent = table["sample_id"].to_pylist()
    source = np.array([row_of[sample] for sample in sent], np.int64)
    pairs = InversionPairs(
        decode_pictures(table["image"].to_pylist()),
        people[source],
        source,
        decode_pictures(photos["image"].to_pylist()),
        people,
    )
    return Queried(pairs, sent)
