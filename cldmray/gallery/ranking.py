"""Who stands before the true identity: ranks of probes, counted from their scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cldmray.gallery.references import Embedded, Gallery, Index, Protocol, Strings
from cldmray.gallery.scores import EmbeddingScores, Scores, settled_blocks


class Ranks(NamedTuple):
    """Standing of each probe's true identity.

    Attributes:
        better: other identities with a higher score, shape (P,).
        ties: other identities with exactly the same score, shape (P,).
        identities: of the probes, shape (P,).
        sample_ids: of the probes, shape (P,).
        gallery_size: candidate identities.
    """

    better: Index
    ties: Index
    identities: Strings
    sample_ids: Strings
    gallery_size: int


def rank_scores(scores: Scores) -> Ranks:
    """Rank the true identity of each probe by its score among those of all candidates."""
    better = np.empty(len(scores.own), np.int64)
    ties = np.empty(len(scores.own), np.int64)
    for rows, found in settled_blocks(scores):
        own = found[np.arange(len(rows)), scores.own[rows], None]
        better[rows] = (found > own).sum(1)
        ties[rows] = (found == own).sum(1) - 1
    return Ranks(better, ties, scores.identities, scores.sample_ids, len(scores.people))


def pool_ranks(parts: Sequence[Ranks]) -> Ranks:
    """The trials of several ranks of the same gallery in one, one after the other."""
    better, ties, identities, sample_ids, sizes = zip(*parts, strict=True)
    return Ranks(
        np.concatenate(better),
        np.concatenate(ties),
        np.concatenate(identities),
        np.concatenate(sample_ids),
        max(sizes),
    )


def rank_probes(
    probes: Embedded,
    photos: Embedded,
    protocol: Protocol,
    gallery: Gallery,
    depth: int | None = None,
) -> Ranks:
    """Rank the true identity of each probe by its best reference's inner product.

    Args:
        probes, photos, protocol, gallery: see
            :func:`cldmray.gallery.references.choose_references`, also for the errors.
        depth: see :class:`cldmray.gallery.scores.EmbeddingScores`.
    """
    return rank_scores(EmbeddingScores(probes, photos, protocol, gallery, depth=depth))
