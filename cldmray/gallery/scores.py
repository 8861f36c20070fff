"""Exact scores of probes with every identity of a gallery, by matrix products."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from cldmray.gallery.protocols import (
    EmbeddingSet,
    Gallery,
    IntArray,
    Protocol,
    Strings,
    Vectors,
    choose_references,
)

SAME_SCORE = 1e-6
"""Inner products of unit float32 vectors that differ by no more are equal but for rounding."""

CELLS = 8_000_000
"""Scores of a block, of which a few copies are held in memory at once."""

KEPT_CELLS = 250_000
"""Most scores of an attack that are kept in memory.

An audit has hundreds of attacks, and reads each several times: for ranks, chance, measures."""

SHARD_ROWS = 65_536
"""References that are compared at once."""


class ScoreBlock(NamedTuple):
    """Scores of some probes.

    Attributes:
        rows: of the probes, shape (b,).
        scores: of each with each identity, higher means more alike, shape (b, N). The column of
            the probe's own identity holds its mated score: that of its own references, as the
            protocol and the gallery choose them.
    """

    rows: IntArray
    scores: Vectors


class Scores(ABC):
    """What identification, verification, open set and linkage are computed from.

    Attributes:
        gallery_identities: sorted, shape (N,).
        mated_columns: place of each probe's identity among the N, shape (P,).
        sample_ids: of the probes, shape (P,).
        identities: of the probes, ``gallery_identities[mated_columns]``, shape (P,).
    """

    gallery_identities: Strings
    mated_columns: IntArray
    sample_ids: Strings
    identities: Strings

    @abstractmethod
    def blocks(self) -> Iterator[ScoreBlock]:
        """All scores, each probe once and in order, in blocks that bound the memory used."""

    def shards(self) -> "Sequence[Scores]":
        """Scores of some probes each, in order, that can be computed apart from each other."""
        return [self]


class KeptScores(Scores):
    """Scores of any kind that are computed once and held in memory.

    Args:
        scores: whose blocks are kept, (P, N) in all.
    """

    def __init__(self, scores: Scores) -> None:
        self.gallery_identities = scores.gallery_identities
        self.mated_columns = scores.mated_columns
        self.sample_ids = scores.sample_ids
        self.identities = scores.identities
        self._blocks = list(scores.blocks())

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        yield from self._blocks


def is_small(scores: Scores) -> bool:
    """Whether the scores are at most ``KEPT_CELLS``."""
    return len(scores.mated_columns) * len(scores.gallery_identities) <= KEPT_CELLS


def kept_if_small(scores: Scores) -> Scores:
    """:class:`KeptScores` of at most ``KEPT_CELLS`` scores, else the scores as they are."""
    return KeptScores(scores) if is_small(scores) else scores


class EmbeddingScores(Scores):
    """Best inner product of each probe with each identity's references.

    >>> names = np.array(["ann", "ann", "bob"])
    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    >>> views = EmbeddingSet(np.array(["a1", "a2", "b1"]), names, vectors)
    >>> (block,) = EmbeddingScores(views, views, "full_ref", "source_excluded").blocks()
    >>> block.scores.round(1).tolist()
    [[0.800000011920929, 0.0], [0.800000011920929, 0.6000000238418579]]

    Args:
        probes: anonymized images; their ``sample_ids`` name the source images.
        references: all images of the gallery's identities, see
            :func:`cldmray.gallery.protocols.choose_references`, also for the errors.
        protocol, gallery: which of them count for which probe.
        shard_rows: references that are compared at once, >= 1; the scores do not depend on it.
    """

    def __init__(
        self,
        probes: EmbeddingSet,
        references: EmbeddingSet,
        protocol: Protocol,
        gallery: Gallery,
        *,
        shard_rows: int = SHARD_ROWS,
    ) -> None:
        rows = choose_references(probes, references, protocol, gallery)
        self._rows = rows
        self._kept: list[ScoreBlock] = []
        self._probes = probes
        self._references = references
        self._shard_rows = shard_rows
        self.gallery_identities = rows.gallery_identities
        self.mated_columns = rows.mated_columns
        self.sample_ids = probes.sample_ids[rows.probe_rows]
        self.identities = probes.identities[rows.probe_rows]

    def shards(self) -> Sequence[Scores]:
        """See :meth:`Scores.shards`: one for each block. They share the embeddings."""
        selection, shards = self._rows, []
        step = self._probes_per_block
        for start in range(0, len(self.mated_columns), step):
            part = slice(start, start + step)
            shard = copy(self)
            shard._kept = []
            shard._rows = selection._replace(
                probe_rows=selection.probe_rows[part],
                mated_columns=selection.mated_columns[part],
                mated_rows=selection.mated_rows[part],
            )
            shard.mated_columns = shard._rows.mated_columns
            shard.sample_ids, shard.identities = self.sample_ids[part], self.identities[part]
            shards.append(shard)
        return shards

    @property
    def _probes_per_block(self) -> int:
        rows = min(self._shard_rows, len(self._rows.reference_rows))
        return max(1, CELLS // max(len(self.gallery_identities), rows))

    def probe(self, row: int) -> EmbeddingSet:
        """One probe."""
        return self._probes.take(self._rows.probe_rows[[row]])

    def references_of(self, row: int) -> EmbeddingSet:
        """The references that one probe is compared with, its mated ones last."""
        rows = self._rows
        non_mated = rows.reference_rows[rows.reference_columns != self.mated_columns[row]]
        return self._references.take(np.concatenate([non_mated, rows.mated_rows[row]]))

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`. At most ``KEPT_CELLS`` scores are computed once and kept."""
        if not is_small(self):
            yield from self._computed_blocks()
            return
        self._kept = self._kept or list(self._computed_blocks())
        yield from self._kept

    def _computed_blocks(self) -> Iterator[ScoreBlock]:
        selection = self._rows
        step = self._probes_per_block
        for start in range(0, len(self.mated_columns), step):
            rows = np.arange(start, min(start + step, len(self.mated_columns)))
            vectors = self._probes.vectors[selection.probe_rows[rows]]
            best = np.full((len(rows), len(self.gallery_identities)), -np.inf, np.float32)
            for first in range(0, len(selection.reference_rows), self._shard_rows):
                part = slice(first, first + self._shard_rows)
                columns, starts = np.unique(selection.reference_columns[part], return_index=True)
                references = self._references.vectors[selection.reference_rows[part]]
                # (b, shard) products; references of one identity stand together, so each run of
                # columns is one identity and reduces to (b, identities of the shard).
                shard_best = np.maximum.reduceat(vectors @ references.T, starts, axis=1)
                best[:, columns] = np.maximum(best[:, columns], shard_best)
            # The mated score comes from references of its own, as the source may be left out.
            mated = (self._references.vectors[selection.mated_rows[row]] for row in rows)
            best[np.arange(len(rows)), self.mated_columns[rows]] = [
                (own @ probe).max() for probe, own in zip(vectors, mated, strict=True)
            ]
            yield ScoreBlock(rows, best)


def tie_resolved_blocks(scores: Scores) -> Iterator[ScoreBlock]:
    """The blocks of scores, in which a probe's scores that tie with its mated one are equal to it.

    A score that differs from that of the probe's own identity by no more than ``SAME_SCORE``
    takes its value, so that rounding never tells the true identity from the others.
    """
    for rows, block in scores.blocks():
        mated = block[np.arange(len(rows)), scores.mated_columns[rows], None]
        gap = block - mated
        same = np.abs(gap, out=gap) <= SAME_SCORE
        del gap
        yield ScoreBlock(rows, np.where(same, mated, block))
