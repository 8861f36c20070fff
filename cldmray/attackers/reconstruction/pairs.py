"""What an inverter learns from: anonymized pictures and the photographs that they were made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cldmray.arrays import Pictures
from cldmray.attackers.nn.pairs import Index
from cldmray.errors import BadInputError
from cldmray.hashing import unit_hash


@dataclass(frozen=True)
class InversionPairs:
    """Anonymized pictures and photographs of attacker people.

    Attributes:
        anonymized: pictures that came back from the anonymizer, uint8 (Q, h, w, 3).
        people: person code of each, shape (Q,).
        source: row of ``photos`` that each was made of, shape (Q,).
        photos: uint8 (P, h, w, 3); there may be some that were never sent.
        photo_people: person code of each photo, shape (P,).
    """

    anonymized: Pictures
    people: Index
    source: Index
    photos: Pictures
    photo_people: Index

    def __post_init__(self) -> None:
        if not len(self.photos) or self.photos.ndim != 4:
            raise BadInputError("the attacker has no photographs; see splits.attacker")
        if self.anonymized.shape[1:] != self.photos.shape[1:]:
            raise BadInputError(
                "anonymized pictures and photographs differ in size: "
                f"{self.anonymized.shape[1:]}, {self.photos.shape[1:]}"
            )
        if not len(self.anonymized) == len(self.people) == len(self.source):
            raise BadInputError("anonymized, people and source must have one row a picture")
        if len(self.photos) != len(self.photo_people):
            raise BadInputError("photos and photo_people must have one row a photograph")
        if len(self.source) and not 0 <= self.source.min() <= self.source.max() < len(self.photos):
            raise BadInputError("source: names a row that photos have not")

    @property
    def queries(self) -> int:
        """How often the anonymizer was used: once for every anonymized picture."""
        return len(self.anonymized)

    def rows(self, chosen: Index) -> "InversionPairs":
        """The same with some of the anonymized pictures only; all photographs stay."""
        return replace(
            self,
            anonymized=self.anonymized[chosen],
            people=self.people[chosen],
            source=self.source[chosen],
        )

    def shuffled(self, seed: int) -> "InversionPairs":
        """The control's pairs: every person's pictures go with photographs of one other person.

        The people are put on a ring in random order, and each is paired with the next, so that
        nobody keeps own photographs. How many pictures are learnt from stays the same.

        Raises:
            BadInputError: the pictures are of fewer than two people.
        """
        people = np.unique(self.people)
        if len(people) < 2:
            raise BadInputError("pairs of fewer than two people cannot be shuffled")
        random = np.random.default_rng([seed, len(people)])
        ring = random.permutation(people)
        sent = np.unique(self.source)
        source = np.empty_like(self.source)
        for person, other in zip(ring, np.roll(ring, -1), strict=True):
            mine = np.flatnonzero(self.people == person)
            theirs = random.permutation(sent[self.photo_people[sent] == other])
            source[mine] = np.resize(theirs, len(mine))
        return replace(self, source=source)


def within_budget(sample_ids: Sequence[str], budget: int | None) -> Index:
    """Rows of the pictures that may be sent to the anonymizer, in ascending order.

    Those with the smallest hashes of their ``sample_id`` are chosen, so that a smaller budget's
    pictures are among a larger one's, whatever the order of the rows. A sample that stands there
    several times, for several draws, costs a query each time.

    Args:
        sample_ids: of all pictures that the attacker could send.
        budget: queries, at least 1; None: as many as there are pictures.

    Raises:
        BadInputError: the budget is below 1.
    """
    if budget is None:
        return np.arange(len(sample_ids))
    if budget < 1:
        raise BadInputError(f"budget: must be at least 1, got {budget}")
    hashes = np.array([unit_hash("query", sample) for sample in sample_ids])
    return np.sort(np.argsort(hashes, kind="stable")[:budget])
