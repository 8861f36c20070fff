"""Exact scores of probes with every identity of a gallery, by matrix products."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import pairwise
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

LEAST_PROBES = 32
"""Probes of a block at least: with fewer, reading the references takes longer than products."""

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


class KeptScores(Scores):
    """Scores of any kind that are computed once and held in memory.

    Args:
        scores: whose blocks are kept, (P, N) in all.
        blocks: of these scores; None: they are computed.
    """

    def __init__(self, scores: Scores, blocks: Sequence[ScoreBlock] | None = None) -> None:
        self.gallery_identities = scores.gallery_identities
        self.mated_columns = scores.mated_columns
        self.sample_ids = scores.sample_ids
        self.identities = scores.identities
        self._blocks = list(scores.blocks() if blocks is None else blocks)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        yield from self._blocks


def is_small(scores: Scores) -> bool:
    """Whether the scores are at most ``KEPT_CELLS``."""
    return len(scores.mated_columns) * len(scores.gallery_identities) <= KEPT_CELLS


def kept_if_small(scores: Scores) -> Scores:
    """:class:`KeptScores` of at most ``KEPT_CELLS`` scores, else the scores as they are."""
    return KeptScores(scores) if is_small(scores) else scores


class _Layers(NamedTuple):
    """References in layers: the first one of every identity, the second of those that have two, ...

    Identities stand in the order of their number of references, the largest first, so that those of
    each layer come first. A maximum over layers is one over slices, which is several times faster
    than one over runs of references (``np.maximum.reduceat``).

    Attributes:
        rows: of the references, layer after layer, shape (S,).
        starts: of each layer among them, and S, shape (L + 1,).
        places: of each of the N identities in the order of numbers, shape (N,).
    """

    rows: IntArray
    starts: IntArray
    places: IntArray

    @classmethod
    def of(cls, rows: IntArray, columns: IntArray, n_identities: int) -> "_Layers":
        """Layers of references, those of one identity together.

        Args:
            rows, columns: of the references, ``columns`` rising, shape (S,).
        """
        counts = np.bincount(columns, minlength=n_identities)
        places = np.empty(n_identities, np.int64)
        places[np.argsort(-counts, kind="stable")] = np.arange(n_identities)
        layer_of = np.arange(len(rows)) - (np.cumsum(counts) - counts)[columns]
        order = np.lexsort((places[columns], layer_of))
        return cls(rows[order], np.cumsum([0, *np.bincount(layer_of)]), places)

    def pieces(self, first: int, last: int) -> Iterator[tuple[int, slice, slice]]:
        """Of each layer that lies in ``rows[first:last]``: its number, counted from 1, its place
        there, and that in the order."""
        layer = int(np.searchsorted(self.starts, first, side="right"))
        while layer < len(self.starts) and self.starts[layer - 1] < last:
            origin, end = self.starts[layer - 1 : layer + 1]
            low, high = max(first, origin), min(last, end)
            yield layer, slice(low - first, high - first), slice(low - origin, high - origin)
            layer += 1


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
        n_identities = len(rows.gallery_identities)
        self._layers = _Layers.of(rows.reference_rows, rows.reference_columns, n_identities)
        self._probes = probes
        self._references = references
        self._shard_rows = shard_rows
        self.gallery_identities = rows.gallery_identities
        self.mated_columns = rows.mated_columns
        self.sample_ids = probes.sample_ids[rows.probe_rows]
        self.identities = probes.identities[rows.probe_rows]

    @property
    def embedding_sets(self) -> tuple[EmbeddingSet, EmbeddingSet]:
        """The probes and the references."""
        return self._probes, self._references

    def _of_probes(self, first: int, last: int) -> "EmbeddingScores":
        """The scores of those of the probes ``first:last`` that have a mated reference."""
        selection = self._rows
        part = slice(*np.searchsorted(selection.probe_rows, [first, last]))
        shard = copy(self)
        shard._kept = []
        shard._rows = selection._replace(
            probe_rows=selection.probe_rows[part],
            mated_columns=selection.mated_columns[part],
            mated_rows=selection.mated_rows[part],
        )
        shard.mated_columns = shard._rows.mated_columns
        shard.sample_ids, shard.identities = self.sample_ids[part], self.identities[part]
        return shard

    @property
    def _probes_per_block(self) -> int:
        rows = min(self._shard_rows, len(self._rows.reference_rows))
        return max(LEAST_PROBES, CELLS // max(len(self.gallery_identities), rows))

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
        start = 0
        for (shard,) in shards_together([self])[1]:
            (best,) = scores_together([shard])
            yield ScoreBlock(np.arange(start, start + len(best)), best)
            start += len(best)


def shards_together(
    members: Sequence[EmbeddingScores],
) -> tuple[int, Iterator[list[EmbeddingScores]]]:
    """The members' scores of the same probes, for block after block of probes.

    Blocks can be computed apart from each other. They share the embeddings.

    Args:
        members: protocols and galleries of the same probes and references.

    Returns:
        The number of blocks, and the members' part of each.
    """
    step = min(member._probes_per_block for member in members)
    rows = np.unique(np.concatenate([member._rows.probe_rows for member in members]))
    bounds = [*rows[::step].tolist(), rows[-1] + 1]
    parts = ([member._of_probes(*part) for member in members] for part in pairwise(bounds))
    return len(bounds) - 1, parts


def scores_together(members: Sequence[EmbeddingScores]) -> Iterator[Vectors]:
    """Scores of one block of probes in several protocols and galleries, from one matrix product.

    References of an identity stand in the same order in all protocols, so the best of its first n
    is what is reached after n layers of them all.

    Args:
        members: as :func:`shards_together` gives them.

    Returns:
        Scores of each member's probes, (b, N).
    """
    deepest = max(members, key=lambda member: len(member._layers.rows))
    probes, references = deepest.embedding_sets
    layers = deepest._layers
    probe_rows = np.unique(np.concatenate([member._rows.probe_rows for member in members]))
    vectors = probes.vectors[probe_rows]
    depths = {len(member._layers.starts) - 1 for member in members}
    # (N, b) in the order of the layers: what a layer reaches are its first rows.
    reached = np.full((len(deepest.gallery_identities), len(vectors)), -np.inf, np.float32)
    best_at: dict[int, Vectors] = {}
    for first in range(0, len(layers.rows), deepest._shard_rows):
        last = min(first + deepest._shard_rows, len(layers.rows))
        products = references.vectors[layers.rows[first:last]] @ vectors.T
        for layer, piece, identities in layers.pieces(first, last):
            np.maximum(reached[identities], products[piece], out=reached[identities])
            if layer in depths and layers.starts[layer] <= last:
                best_at[layer] = np.ascontiguousarray(reached[layers.places].T)
    for member in members:
        own_rows = np.searchsorted(probe_rows, member._rows.probe_rows)
        best = best_at[len(member._layers.starts) - 1][own_rows]
        # The mated score comes from references of its own, as the source may be left out.
        best[np.arange(len(best)), member.mated_columns] = [
            (references.vectors[own] @ vectors[row]).max()
            for row, own in zip(own_rows, member._rows.mated_rows, strict=True)
        ]
        yield best


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
