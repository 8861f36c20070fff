"""Rank of each probe's true identity in a gallery: identities that score higher, or the same."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cldmray.errors import BadInputError
from cldmray.gallery.protocols import (
    EmbeddingSet,
    Gallery,
    IntArray,
    Protocol,
    Strings,
    check_gallery_size,
)
from cldmray.gallery.scores import CELLS, SAME_SCORE, EmbeddingScores, ScoreBlock, Scores
from cldmray.hashing import identity_hash


class Ranks(NamedTuple):
    """Rank of each probe's true identity.

    Attributes:
        n_higher: other identities with a higher score, shape (P,).
        n_tied: other identities with exactly the same score, shape (P,).
        identities: of the probes, shape (P,).
        sample_ids: of the probes, shape (P,).
        gallery_size: number of identities in the gallery.
    """

    n_higher: IntArray
    n_tied: IntArray
    identities: Strings
    sample_ids: Strings
    gallery_size: int


def rank_scores(scores: Scores) -> Ranks:
    """Rank the true identity of each probe by its score among those of all identities.

    Scores that differ from the mated one by no more than ``SAME_SCORE`` are ties.
    """
    n_higher = np.empty(len(scores.mated_columns), np.int64)
    n_tied = np.empty(len(scores.mated_columns), np.int64)
    for rows, block in scores.blocks():
        # (b, N) differences to the mated score; what differs by rounding only is a tie.
        gap = block - block[np.arange(len(rows)), scores.mated_columns[rows], None]
        n_higher[rows] = (gap > SAME_SCORE).sum(1)
        n_tied[rows] = (np.abs(gap, out=gap) <= SAME_SCORE).sum(1) - 1
    return Ranks(
        n_higher, n_tied, scores.identities, scores.sample_ids, len(scores.gallery_identities)
    )


def pool_ranks(parts: Sequence[Ranks]) -> Ranks:
    """The probes of several ranks in the same gallery as one, one after the other."""
    n_higher, n_tied, identities, sample_ids, sizes = zip(*parts, strict=True)
    return Ranks(
        np.concatenate(n_higher),
        np.concatenate(n_tied),
        np.concatenate(identities),
        np.concatenate(sample_ids),
        max(sizes),
    )


def rank_probes(
    probes: EmbeddingSet, references: EmbeddingSet, protocol: Protocol, gallery: Gallery
) -> Ranks:
    """Rank the true identity of each probe by its best reference's inner product.

    >>> names = np.array(["ann", "ann", "bob"])
    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], np.float32)
    >>> views = EmbeddingSet(np.array(["a1", "a2", "b1"]), names, vectors)
    >>> ranks = rank_probes(views, views, "full_ref", "source_excluded")
    >>> ranks.sample_ids.tolist(), ranks.n_higher.tolist()
    (['a1', 'a2'], [0, 1])

    Args:
        probes, references, protocol, gallery: see
            :func:`cldmray.gallery.protocols.choose_references`, also for the errors.
    """
    return rank_scores(EmbeddingScores(probes, references, protocol, gallery))


class ClaimedScores(Scores):
    """Best inner product of each probe with each identity's images (Full-Ref), for any claim.

    Unlike in :class:`cldmray.gallery.scores.EmbeddingScores` the identity that is claimed for a
    probe need not be the one whose image it was made from, and several images can be left out of a
    probe's gallery, whosever they are. An identity without any left scores -inf.

    Args:
        probes: ``identities`` are those to be ranked. Probes whose claimed identity has no image
            left are passed over.
        references: all images of the gallery's identities.
        left_out: samples that are not in the gallery of each probe; None: all images are.

    Raises:
        BadInputError: there are fewer than two identities, an identity or a sample that is left
            out has no image, or no probe is left.
    """

    def __init__(
        self,
        probes: EmbeddingSet,
        references: EmbeddingSet,
        left_out: Sequence[Sequence[str]] | None,
    ) -> None:
        # References sorted by identity: those of identity n are columns starts[n]:starts[n + 1].
        order = np.argsort(references.identities, kind="stable")
        self.gallery_identities, self._starts, identity_of = np.unique(
            references.identities[order], return_index=True, return_inverse=True
        )
        check_gallery_size(len(self.gallery_identities))
        place_of = {name: place for place, name in enumerate(self.gallery_identities.tolist())}
        absent = {*probes.identities.tolist()} - {*place_of}
        if absent:
            raise BadInputError(
                f"person {identity_hash(min(absent))} is not in the gallery of {len(order)} images"
            )
        column_of = {
            sample: column for column, sample in enumerate(references.sample_ids[order].tolist())
        }
        unknown = {sample for samples in left_out or () for sample in samples} - {*column_of}
        if unknown:
            raise BadInputError(f"{min(unknown)!r} is not in the gallery of {len(order)} images")
        claimed = np.array([place_of[name] for name in probes.identities.tolist()], np.int64)
        hidden = [sorted({column_of[sample] for sample in samples}) for samples in left_out or ()]
        hidden = hidden or [[] for _ in claimed]
        sizes = np.bincount(identity_of)
        rows = [
            row
            for row, (identity, columns) in enumerate(zip(claimed, hidden, strict=True))
            if np.count_nonzero(identity_of[columns] == identity) < sizes[identity]
        ]
        if not rows:
            raise BadInputError("no probe's person has an image left in the gallery")
        self.mated_columns = claimed[rows]
        self.sample_ids = probes.sample_ids[rows]
        self.identities = probes.identities[rows]
        self._probes = probes.vectors[rows]
        self._hidden = [hidden[row] for row in rows]
        self._images = np.ascontiguousarray(references.vectors[order].T)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        step = max(1, CELLS // self._images.shape[1])
        for start in range(0, len(self.mated_columns), step):
            part = slice(start, start + step)
            # (b, S) scores with every image, reduced to (b, N) with every identity.
            scores = self._probes[part] @ self._images
            for row, columns in enumerate(self._hidden[part]):
                scores[row, columns] = -np.inf
            best = np.maximum.reduceat(scores, self._starts, axis=1)
            yield ScoreBlock(np.arange(start, start + len(best)), best)


def rank_claimed(
    probes: EmbeddingSet,
    references: EmbeddingSet,
    left_out: Sequence[Sequence[str]] | None = None,
) -> Ranks:
    """Rank the identity that is claimed for each probe, against all images.

    Args:
        probes, references, left_out: see :class:`ClaimedScores`, also for the errors.

    Returns:
        Ranks of the probes whose claimed identity has an image left, in their order.
    """
    return rank_scores(ClaimedScores(probes, references, left_out))
