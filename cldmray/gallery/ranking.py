"""Who stands before the true identity: ranks of probes, counted from their scores.

Ranks of any named person for each probe, with chosen photographs left out of its gallery.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cldmray.errors import BadInputError
from cldmray.gallery.protocols import Embedded, Gallery, Index, Protocol, Strings
from cldmray.gallery.scores import CELLS, EmbeddingScores, ScoreBlock, Scores, settled_blocks


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
            :func:`cldmray.gallery.protocols.choose_references`, also for the errors.
        depth: see :class:`cldmray.gallery.scores.EmbeddingScores`.
    """
    return rank_scores(EmbeddingScores(probes, photos, protocol, gallery, depth=depth))


class NamedScores(Scores):
    """Best inner product of each probe with each person's photographs (Full-Ref).

    Unlike in :class:`cldmray.gallery.scores.EmbeddingScores` a probe's own identity need not be the
    one whose photograph it was made from, and several photographs can be left out of a probe's
    gallery, whosever they are. A person without any left scores -inf.

    Args:
        probes: ``identities`` are the people to be ranked. Those whose person has no photograph
            left are passed over.
        photos: all photographs of the candidates.
        left_out: samples that are not in the gallery of each probe; None: all photographs are.

    Raises:
        BadInputError: there are fewer than two people, a person or a sample that is left out has
            no photograph, or no probe is left.
    """

    def __init__(
        self, probes: Embedded, photos: Embedded, left_out: Sequence[Sequence[str]] | None
    ) -> None:
        order = np.argsort(photos.identities, kind="stable")
        self.people, self._starts, codes = np.unique(
            photos.identities[order], return_index=True, return_inverse=True
        )
        if len(self.people) < 2:
            raise BadInputError(
                "the gallery holds fewer than two people; there is nobody to confuse"
            )
        column = {sample: place for place, sample in enumerate(photos.sample_ids[order].tolist())}
        code = {name: place for place, name in enumerate(self.people.tolist())}
        absent = {*probes.identities.tolist()} - {*code}
        absent |= {sample for samples in left_out or () for sample in samples} - {*column}
        if absent:
            raise BadInputError(
                f"{min(absent)!r} is not in the gallery of {len(order)} photographs"
            )
        own = np.array([code[name] for name in probes.identities.tolist()], np.int64)
        hidden = [sorted({column[sample] for sample in samples}) for samples in left_out or ()]
        hidden = hidden or [[] for _ in own]
        sizes = np.bincount(codes)
        kept = [
            row
            for row, (person, columns) in enumerate(zip(own, hidden, strict=True))
            if np.count_nonzero(codes[columns] == person) < sizes[person]
        ]
        if not kept:
            raise BadInputError("no probe's person has a photograph left in the gallery")
        self.own = own[kept]
        self.sample_ids = probes.sample_ids[kept]
        self.identities = probes.identities[kept]
        self._probes = probes.vectors[kept]
        self._hidden = [hidden[row] for row in kept]
        self._photos = np.ascontiguousarray(photos.vectors[order].T)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        step = max(1, CELLS // self._photos.shape[1])
        for start in range(0, len(self.own), step):
            part = slice(start, start + step)
            scores = self._probes[part] @ self._photos
            for row, columns in enumerate(self._hidden[part]):
                scores[row, columns] = -np.inf
            best = np.maximum.reduceat(scores, self._starts, axis=1)
            yield ScoreBlock(np.arange(start, start + len(best)), best)


def rank_named(
    probes: Embedded, photos: Embedded, left_out: Sequence[Sequence[str]] | None = None
) -> Ranks:
    """Rank the person that each probe is said to show, against all photographs.

    Args:
        probes, photos, left_out: see :class:`NamedScores`, also for the errors.

    Returns:
        Ranks of the probes whose person has a photograph left, in their order.
    """
    return rank_scores(NamedScores(probes, photos, left_out))
