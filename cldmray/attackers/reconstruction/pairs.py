"""What a reconstruction model learns from: anonymized images and their originals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cldmray.arrays import Images
from cldmray.attackers.data import AttackData
from cldmray.attackers.nn.pairs import Index
from cldmray.errors import BadInputError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.hashing import unit_hash


@dataclass(frozen=True)
class ReconstructionPairs:
    """Anonymized images and originals of attacker identities.

    Attributes:
        anonymized: images that came back from the anonymizer, uint8 (Q, h, w, 3).
        identities: number of each one's identity, shape (Q,).
        source: row of ``originals`` that each was made of, shape (Q,).
        originals: uint8 (P, h, w, 3); there may be some that were never sent.
        original_identities: number of each original's identity, shape (P,).
    """

    anonymized: Images
    identities: Index
    source: Index
    originals: Images
    original_identities: Index

    def __post_init__(self) -> None:
        if not len(self.originals) or self.originals.ndim != 4:
            raise BadInputError("the attacker has no images; see splits.attacker")
        if self.anonymized.shape[1:] != self.originals.shape[1:]:
            raise BadInputError(
                "anonymized images and originals differ in size: "
                f"{self.anonymized.shape[1:]}, {self.originals.shape[1:]}"
            )
        if not len(self.anonymized) == len(self.identities) == len(self.source):
            raise BadInputError("anonymized, identities and source must have one row an image")
        if len(self.originals) != len(self.original_identities):
            raise BadInputError("originals and original_identities must have one row an image")
        if len(self.source) and not 0 <= self.source.min() <= self.source.max() < len(
            self.originals
        ):
            raise BadInputError("source: names a row that originals have not")

    @property
    def queries(self) -> int:
        """How often the anonymizer was used: once for every anonymized image."""
        return len(self.anonymized)

    def rows(self, rows: Index) -> "ReconstructionPairs":
        """The same with some of the anonymized images only; all originals stay."""
        return replace(
            self,
            anonymized=self.anonymized[rows],
            identities=self.identities[rows],
            source=self.source[rows],
        )

    def shuffled(self, seed: int) -> "ReconstructionPairs":
        """The control's pairs: each identity's images go with originals of one other identity.

        The identities are put on a ring in random order, and each is paired with the next, so that
        none keeps its own originals. The number of pairs stays the same.

        Raises:
            BadInputError: the images are of fewer than two identities.
        """
        identities = np.unique(self.identities)
        if len(identities) < 2:
            raise BadInputError("pairs of fewer than two identities cannot be shuffled")
        random = np.random.default_rng([seed, len(identities)])
        ring = random.permutation(identities)
        sent = np.unique(self.source)
        source = np.empty_like(self.source)
        for identity, other in zip(ring, np.roll(ring, -1), strict=True):
            mine = np.flatnonzero(self.identities == identity)
            theirs = random.permutation(sent[self.original_identities[sent] == other])
            source[mine] = np.resize(theirs, len(mine))
        return replace(self, source=source)


def within_budget(sample_ids: Sequence[str], budget: int | None) -> Index:
    """Rows of the images that may be sent to the anonymizer, in ascending order.

    Those with the smallest hashes of their ``sample_id`` are chosen, so that a smaller budget's
    images are among a larger one's, whatever the order of the rows. A sample that stands there
    several times, for several samples of it, costs a query each time.

    Args:
        sample_ids: of all images that the attacker could send.
        budget: queries, at least 1; None: as many as there are images.

    Raises:
        BadInputError: the budget is below 1.
    """
    if budget is None:
        return np.arange(len(sample_ids))
    if budget < 1:
        raise BadInputError(f"budget: must be at least 1, got {budget}")
    hashes = np.array([unit_hash("query", sample) for sample in sample_ids])
    return np.sort(np.argsort(hashes, kind="stable")[:budget])


@dataclass(frozen=True)
class Queried:
    """Pairs, and the sample behind each anonymized image.

    Attributes:
        pairs: of the identities of one split.
        samples: ``sample_id`` of each anonymized image.
    """

    pairs: ReconstructionPairs
    samples: list[str]

    def within(self, budget: int | None) -> ReconstructionPairs:
        """The pairs that so many queries buy; see :func:`within_budget`."""
        return self.pairs.rows(within_budget(self.samples, budget))


def queried(data: AttackData, split: str) -> Queried:
    """All originals of a split's identities, and all anonymized images of them.

    Args:
        split: ``ATTACKER`` to learn from, ``ATTACKER_VALIDATION`` to validate on.

    Raises:
        BadInputError: there are no originals, or no anonymized images, of such identities.
    """
    if split not in (ATTACKER, ATTACKER_VALIDATION):
        raise ValueError(f"a reconstruction model may not learn from {split} people")
    images = data.images(split)
    if not len(images.anonymized):
        kind = "anonymized images" if len(images.originals) else "images"
        raise BadInputError(
            f"reconstruction: no {kind} of {split} people; see splits.attacker, "
            "splits.auxiliary_fraction and splits.validation_fraction"
        )
    pairs = ReconstructionPairs(
        images.anonymized,
        images.anonymized_identities,
        images.source,
        images.originals,
        images.identities,
    )
    return Queried(pairs, [images.sample_ids[row] for row in images.source])


def check_validation(identities: Sequence[object]) -> None:
    """Refuse validation identities of which none can be identified.

    Args:
        identities: one an original.

    Raises:
        BadInputError: there are fewer than two, so that nobody can be confused and
            ``validation_margin`` has no other identity to compare with; or none has a second image,
            so that ``validation_rank_1`` says nothing.
    """
    if len(set(identities)) < 2:
        raise BadInputError(
            f"reconstruction: {len(set(identities))} validation person, but a model is rated by "
            "telling at least two apart; raise splits.validation_fraction"
        )
    if len(set(identities)) == len(identities):
        raise BadInputError(
            "reconstruction: no validation person has two images; see splits.validation_fraction"
        )
