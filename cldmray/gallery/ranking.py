"""Who stands before the true identity: ranks of probes, counted from their scores.

Ranks of any named person for each probe, with chosen images left out of its gallery.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cldmray.errors import BadInputError
from cldmray.gallery.protocols import EmbeddingSet, Gallery, Index, Protocol, Strings
from cldmray.gallery.scores import CELLS, EmbeddingScores, ScoreBlock, Scores, tie_resolved_blocks


class Ranks(NamedTuple):
    """Standing of each probe's true identity.

    Attributes:
        better: other identities with a higher score, shape (P,).
        ties: other identities with exactly the same score, shape (P,).
        identities: of the probes, shape (P,).
        sample_ids: of the probes, shape (P,).
        gallery_size: candidate identities.
    """

    n_higher: Index
    n_tied: Index
    identities: Strings
    sample_ids: Strings
    gallery_size: int


def rank_scores(scores: Scores) -> Ranks:
    """Rank the true identity of each probe by its score among those of all candidates."""
    n_higher = np.empty(len(scores.mated_columns), np.int64)
    n_tied = np.empty(len(scores.mated_columns), np.int64)
    for rows, found in tie_resolved_blocks(scores):
        own = found[np.arange(len(rows)), scores.mated_columns[rows], None]
        n_higher[rows] = (found > own).sum(1)
        n_tied[rows] = (found == own).sum(1) - 1
    return Ranks(
        n_higher, n_tied, scores.identities, scores.sample_ids, len(scores.gallery_identities)
    )


def pool_ranks(parts: Sequence[Ranks]) -> Ranks:
    """The trials of several ranks of the same gallery in one, one after the other."""
    n_higher, n_tied, identities, sample_ids, sizes = zip(*parts, strict=True)
    return Ranks(
        np.concatenate(n_higher),
        np.concatenate(n_tied),
        np.concatenate(identities),
        np.concatenate(sample_ids),
        max(sizes),
    )


def rank_probes(
    probes: EmbeddingSet,
    references: EmbeddingSet,
    protocol: Protocol,
    gallery: Gallery,
    depth: int | None = None,
) -> Ranks:
    """Rank the true identity of each probe by its best reference's inner product.

    Args:
        probes, images, protocol, gallery: see
            :func:`cldmray.gallery.protocols.choose_references`, also for the errors.
        depth: see :class:`cldmray.gallery.scores.EmbeddingScores`.
    """
    return rank_scores(EmbeddingScores(probes, references, protocol, gallery, depth=depth))


class ClaimedScores(Scores):
    """Best inner product of each probe with each person's images (Full-Ref).

    Unlike in :class:`cldmray.gallery.scores.EmbeddingScores` a probe's own identity need not be the
    one whose image it was made from, and several images can be left out of a probe's
    gallery, whosever they are. A person without any left scores -inf.

    Args:
        probes: ``identities`` are the people to be ranked. Those whose person has no image
            left are passed over.
        images: all images of the candidates.
        left_out: samples that are not in the gallery of each probe; None: all images are.

    Raises:
        BadInputError: there are fewer than two people, a person or a sample that is left out has
            no image, or no probe is left.
    """

    def __init__(
        self,
        probes: EmbeddingSet,
        references: EmbeddingSet,
        left_out: Sequence[Sequence[str]] | None,
    ) -> None:
        order = np.argsort(references.identities, kind="stable")
        self.gallery_identities, self._starts, codes = np.unique(
            references.identities[order], return_index=True, return_inverse=True
        )
        if len(self.gallery_identities) < 2:
            raise BadInputError(
                "the gallery holds fewer than two people; there is nobody to confuse"
            )
        column = {
            sample: place for place, sample in enumerate(references.sample_ids[order].tolist())
        }
        code = {name: place for place, name in enumerate(self.gallery_identities.tolist())}
        absent = {*probes.identities.tolist()} - {*code}
        absent |= {sample for samples in left_out or () for sample in samples} - {*column}
        if absent:
            raise BadInputError(f"{min(absent)!r} is not in the gallery of {len(order)} images")
        own = np.array([code[name] for name in probes.identities.tolist()], np.int64)
        hidden = [sorted({column[sample] for sample in samples}) for samples in left_out or ()]
        hidden = hidden or [[] for _ in own]
        sizes = np.bincount(codes)
        kept = [
            row
            for row, (identity, columns) in enumerate(zip(own, hidden, strict=True))
            if np.count_nonzero(codes[columns] == identity) < sizes[identity]
        ]
        if not kept:
            raise BadInputError("no probe's person has an image left in the gallery")
        self.mated_columns = own[kept]
        self.sample_ids = probes.sample_ids[kept]
        self.identities = probes.identities[kept]
        self._probes = probes.vectors[kept]
        self._hidden = [hidden[row] for row in kept]
        self._images = np.ascontiguousarray(references.vectors[order].T)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        step = max(1, CELLS // self._images.shape[1])
        for start in range(0, len(self.mated_columns), step):
            part = slice(start, start + step)
            scores = self._probes[part] @ self._images
            for row, columns in enumerate(self._hidden[part]):
                scores[row, columns] = -np.inf
            best = np.maximum.reduceat(scores, self._starts, axis=1)
            yield ScoreBlock(np.arange(start, start + len(best)), best)


def rank_claimed(
    probes: EmbeddingSet, references: EmbeddingSet, left_out: Sequence[Sequence[str]] | None = None
) -> Ranks:
    """Rank the person that each probe is said to show, against all images.

    Args:
        probes, images, left_out: see :class:`ClaimedScores`, also for the errors.

    Returns:
        Ranks of the probes whose person has an image left, in their order.
    """
    return rank_scores(ClaimedScores(probes, references, left_out))
