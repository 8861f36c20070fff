"""Scores of probes with every candidate, from which all measures of recognition are computed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.gallery.index import GalleryIndex
from cldmray.gallery.protocols import (
    EmbeddingSet,
    Gallery,
    Index,
    Protocol,
    Strings,
    choose_references,
)

Float32 = npt.NDArray[np.float32]

SAME_SCORE = 1e-6
"""Inner products of unit float32 vectors that differ by no more are equal but for rounding."""

CELLS = 8_000_000
"""Scores of a block, of which a few copies are held in memory at once."""

SHARD_ROWS = 65_536
"""References that are compared at once."""


class ScoreBlock(NamedTuple):
    """Scores of some probes.

    Attributes:
        rows: of the probes, shape (b,).
        scores: of each with each candidate, higher means more alike, shape (b, N). The column of
            the probe's own identity holds the score of its own references, as the protocol and
            the gallery choose them.
    """

    rows: Index
    scores: Float32


class Scores(ABC):
    """What identification, verification, open set and unlinkability are computed from.

    Attributes:
        people: candidate identities, sorted, shape (N,).
        own: column of each probe's identity, shape (P,).
        sample_ids: of the probes, shape (P,).
        identities: of the probes, ``people[own]``, shape (P,).
    """

    gallery_identities: Strings
    mated_columns: Index
    sample_ids: Strings
    identities: Strings

    @abstractmethod
    def blocks(self) -> Iterator[ScoreBlock]:
        """All scores, each probe once and in order, in blocks that bound the memory used."""


class EmbeddingScores(Scores):
    """Best inner product of each probe with each candidate's references.

    Args:
        probes: anonymized images; their ``sample_ids`` name the source images.
        references: all images of the candidate people, see
            :func:`cldmray.gallery.protocols.choose_references`, also for the errors.
        protocol, gallery: which of them count for which probe.
        shard_rows: references that are compared at once, >= 1; the scores do not depend on it.
        depth: neighbours fetched for each probe from each shard of references; None fetches all,
            which is exact. With a limit, people beyond it score -inf: good for ranks in a huge
            gallery, where those above the limit are optimistic, and for nothing else.
    """

    def __init__(
        self,
        probes: EmbeddingSet,
        references: EmbeddingSet,
        protocol: Protocol,
        gallery: Gallery,
        shard_rows: int = SHARD_ROWS,
        depth: int | None = None,
    ) -> None:
        chosen = choose_references(probes, references, protocol, gallery)
        self._chosen = chosen
        self._probes = probes.vectors
        self._references = references.vectors
        self._shard_rows = shard_rows
        self._depth = depth
        self.gallery_identities = chosen.gallery_identities
        self.mated_columns = chosen.own
        self.sample_ids = probes.sample_ids[chosen.kept]
        self.identities = probes.identities[chosen.kept]

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        chosen = self._chosen
        width = max(len(self.gallery_identities), min(self._shard_rows, len(chosen.shown)))
        step = max(1, CELLS // width)
        for start in range(0, len(self.mated_columns), step):
            rows = np.arange(start, min(start + step, len(self.mated_columns)))
            vectors = self._probes[chosen.kept[rows]]
            best = np.full((len(rows), len(self.gallery_identities)), -np.inf, np.float32)
            for first in range(0, len(chosen.shown), self._shard_rows):
                self._update_max(best, vectors, slice(first, first + self._shard_rows))
            mated = (self._references[chosen.mated[row]] for row in rows)
            own = [(known @ probe).max() for probe, known in zip(vectors, mated, strict=True)]
            best[np.arange(len(rows)), self.mated_columns[rows]] = own
            yield ScoreBlock(rows, best)

    def _update_max(self, best: Float32, vectors: Float32, part: slice) -> None:
        """Raise the best scores, shape (b, N), to those with one shard of references."""
        codes = self._chosen.codes[part]
        index = GalleryIndex(self._references[self._chosen.shown[part]], codes)
        if self._depth is None:
            columns, starts = np.unique(codes, return_index=True)
            found = np.maximum.reduceat(index.inner_products(vectors), starts, axis=1)
            best[:, columns] = np.maximum(best[:, columns], found)
        else:
            scores, labels = index.search(vectors, self._depth)
            rows = np.repeat(np.arange(len(scores)), scores.shape[1])
            np.maximum.at(best, (rows, labels.ravel()), scores.ravel())


def tie_resolved_blocks(scores: Scores) -> Iterator[ScoreBlock]:
    """The blocks of scores, in which a probe's scores that tie with its own are exactly equal.

    A score that differs from that of the probe's own identity by no more than ``SAME_SCORE``
    takes its value, so that rounding never tells the true identity from the others.
    """
    for rows, found in scores.blocks():
        own = found[np.arange(len(rows)), scores.mated_columns[rows], None]
        gap = found - own
        same = np.abs(gap, out=gap) <= SAME_SCORE
        del gap
        yield ScoreBlock(rows, np.where(same, own, found))
