"""Chance as it is measured: the same attack with the identities of its probes permuted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.gallery.protocols import IntArray, Strings, Vectors
from cldmray.gallery.ranking import Ranks, pool_ranks, rank_scores
from cldmray.gallery.scores import (
    SAME_SCORE,
    EmbeddingScores,
    KeptScores,
    ScoreBlock,
    Scores,
    scores_together,
    shards_together,
    tie_resolved_blocks,
)
from cldmray.hashing import unit_hash
from cldmray.metrics.chance import permutation_excess

Floats = npt.NDArray[np.float64]
PLACE_SCORES = 5_000_000
"""Most scores that are sorted to measure chance at every rank."""

FIRST_CELLS = 1_000_000
"""Scores of which the first places are taken at once."""

Apply = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""The built-in ``map``, or what does the same in other processes."""


def permuted_places(block: Vectors, share: Floats) -> Floats:
    """Probability that the identity of a probe drawn at random takes each place, shape (b, N).

    Summed up to place k it is the success at rank k with permuted identities. It is 1/N in every
    place only where all identities have as many probes. Tied candidates share their places.

    Args:
        block: scores of b probes with N candidates, (b, N).
        share: of all probes that belong to each candidate, (N,).

    >>> permuted_places(np.array([[0.1, 0.9, 0.9]]), np.array([0.2, 0.5, 0.3])).tolist()
    [[0.4, 0.4, 0.2]]
    """
    order = np.argsort(-block, axis=1, kind="stable")
    ranked = np.take_along_axis(block, order, axis=1)
    # (b, N) number of the run of tied candidates that each place lies in, over all probes.
    starts = np.ones(block.shape, bool)
    starts[:, 1:] = ranked[:, :-1] - ranked[:, 1:] > SAME_SCORE
    runs = np.cumsum(starts.ravel()) - 1
    means = np.bincount(runs, weights=share[order].ravel()) / np.bincount(runs)
    places: Floats = means[runs].reshape(block.shape)
    return places


def measured_places(trainings: Sequence[Scores]) -> Floats:
    """:func:`permuted_places`, the mean over the probes of every training, shape (N,).

    The scores are read once. Where there are more than ``PLACE_SCORES``, the mean of all places but
    the first is over some of the probes, see :func:`probes_of_places`.
    """
    total, count, first = np.zeros(len(trainings[0].gallery_identities)), 0, 0.0
    for scores in trainings:
        share, sampled = probe_shares(scores), probes_of_places(scores)
        for rows, block in tie_resolved_blocks(scores):
            total += permuted_places(block[sampled[rows]], share).sum(0)
            first += float(FirstPlaces.of(block).permuted(share).sum())
        count += int(sampled.sum())
    probes = sum(len(scores.mated_columns) for scores in trainings)
    return total / count if count == probes else with_first_place(total / count, first / probes)


def with_first_place(places: Floats, first: float) -> Floats:
    """Places of some probes, (N,), with the first one of all, to which the others are scaled.

    >>> with_first_place(np.array([0.5, 0.25, 0.25]), 0.2).tolist()
    [0.2, 0.4, 0.4]
    """
    others = places[1:].sum()
    scale = (1 - first) / others if others > 0 else 0.0
    return np.concatenate([[first], places[1:] * scale])


def probes_of_places(scores: Scores) -> npt.NDArray[np.bool_]:
    """Which probes :func:`permuted_places` is measured on, shape (P,): sorting is what costs most.

    All of them, or those whose sample ids come first by a hash, so that their scores are at most
    ``PLACE_SCORES``, but at least one.
    """
    most = max(1, PLACE_SCORES // len(scores.gallery_identities))
    return sampled_probes(scores.sample_ids, most, "places")


def sampled_probes(sample_ids: Strings, most: int, salt: str) -> npt.NDArray[np.bool_]:
    """Which probes come first by a hash of their sample ids, shape (P,); all, if they are few.

    >>> sampled_probes(np.array(["a", "b", "c"]), 2, "any").sum()
    np.int64(2)
    """
    if len(sample_ids) <= most:
        return np.ones(len(sample_ids), bool)
    hashes = [unit_hash(salt, sample) for sample in sample_ids.tolist()]
    sampled = np.zeros(len(sample_ids), bool)
    sampled[np.argsort(hashes, kind="stable")[:most]] = True
    return sampled


class FirstPlaces(NamedTuple):
    """The candidates that are ranked first, of which most probes have one.

    Attributes:
        rows: of the probes in their block, rising, shape (F,).
        columns: of the candidates, shape (F,).
        weights: probability that the candidate is ranked first, ties broken at random, shape (F,).
    """

    rows: IntArray
    columns: IntArray
    weights: Floats

    @classmethod
    def of(cls, block: Vectors) -> "FirstPlaces":
        """The first places of a block of scores, (b, N).

        >>> places = FirstPlaces.of(np.array([[0.1, 0.9, 0.9], [0.7, 0.2, 0.1]]))
        >>> places.columns.tolist(), places.weights.tolist()
        ([1, 2, 0], [0.5, 0.5, 1.0])
        """
        first = np.flatnonzero(block >= block.max(1, keepdims=True) - SAME_SCORE)
        rows, columns = np.divmod(first, block.shape[1])
        return cls(rows, columns, 1 / np.bincount(rows)[rows])

    def permuted(self, share: Floats) -> Floats:
        """Success of each probe with permuted identities, shape (b,).

        Args:
            share: of all probes that belong to each candidate, (N,).
        """
        return np.asarray(np.bincount(self.rows, self.weights * share[self.columns]), np.float64)


def probe_shares(scores: Scores) -> Floats:
    """Share of all probes that belong to each candidate, shape (N,)."""
    counts = np.bincount(scores.mated_columns, minlength=len(scores.gallery_identities))
    return counts / len(scores.mated_columns)


class MeasuredChance(NamedTuple):
    """Success of an attack beside its success with permuted identities, probe by probe.

    Attributes:
        permuted: success with the probe's identity replaced by that of another probe, (P,).
        excess: see :func:`cldmray.metrics.chance.permutation_excess`, (P,).
        attraction: share of all probes whose best candidate is the probe's identity, (P,): how
            often that identity is named whatever the image shows.
    """

    permuted: Floats
    excess: Floats
    attraction: Floats


def measured_chance(trainings: Sequence[Scores]) -> MeasuredChance:
    """Success and permuted success of the probes of every training, one training after the other.

    The scores are read once. A probe's own identity keeps its place as a candidate when identities
    are permuted, so that an attack that ignores the image has an excess of 0 on average. Where the
    source is excluded the own identity has one reference less than the others, which lowers the
    excess of such an attack a little.

    Args:
        trainings: scores of each training of an attacker, at least one.
    """
    measured = []
    for scores in trainings:
        sums = _ChanceSums(scores)
        sums.add(_of_shard(scores, probe_shares(scores)))
        measured.append(sums.measured())
    return pool_chance(measured)


def pool_chance(parts: Sequence[MeasuredChance]) -> MeasuredChance:
    """The probes of several attacks as one, one after the other."""
    return MeasuredChance(*map(np.concatenate, zip(*parts, strict=True)))


def ranks_and_chance(
    attacks: Sequence[EmbeddingScores], apply: Apply = map
) -> list[tuple[Ranks, MeasuredChance]]:
    """Ranks, and :func:`measured_chance`, of each of several scores, which are computed once.

    Protocols and galleries of the same probes and references share their matrix products.

    Args:
        apply: calls a function for each block of probes, here or in other processes.
    """
    together: dict[tuple[int, int], list[int]] = {}
    for place, scores in enumerate(attacks):
        probes, references = scores.embedding_sets
        together.setdefault((id(probes), id(references)), []).append(place)
    groups = [[attacks[place] for place in places] for places in together.values()]
    shards = [shards_together(group) for group in groups]
    shares = [[probe_shares(scores) for scores in group] for group in groups]
    calls = (
        (shard, own_shares)
        for (_, own), own_shares in zip(shards, shares, strict=True)
        for shard in own
    )
    outcomes = iter(apply(_shard_outcomes, calls))
    results: dict[int, tuple[Ranks, MeasuredChance]] = {}
    for places, (n_blocks, _) in zip(together.values(), shards, strict=True):
        ranks: list[list[Ranks]] = [[] for _ in places]
        sums = [_ChanceSums(attacks[place]) for place in places]
        for block in islice(outcomes, n_blocks):
            for number, (of_block, chance) in enumerate(block):
                ranks[number].append(of_block)
                sums[number].add(chance)
        for place, of_blocks, total in zip(places, ranks, sums, strict=True):
            results[place] = pool_ranks(of_blocks), total.measured()
    return [results[place] for place in range(len(attacks))]


class _ShardChance(NamedTuple):
    """Success of a shard's probes, and how often candidates are ranked first.

    Attributes:
        success, permuted: of each probe, shape (b,).
        columns: of the candidates that some probe ranks first, rising, shape (C,).
        attracted: number of probes that rank each of them first, ties shared, shape (C,).
    """

    success: Floats
    permuted: Floats
    columns: IntArray
    attracted: Floats


def _shard_outcomes(
    call: tuple[Sequence[EmbeddingScores], Sequence[Floats]],
) -> list[tuple[Ranks, _ShardChance]]:
    """Of some probes in each protocol and gallery; see :func:`_of_shard` for the shares."""
    outcomes = []
    for shard, best, share in zip(call[0], scores_together(call[0]), call[1], strict=True):
        kept = KeptScores(shard, [ScoreBlock(np.arange(len(best)), best)])
        outcomes.append((rank_scores(kept), _of_shard(kept, share)))
    return outcomes


class _ChanceSums:
    """Chance of all probes from that of their shards, each of which is let go once it is added.

    A shard names every candidate that some probe ranks first: where an encoder tells nobody apart,
    these are all.
    """

    def __init__(self, scores: Scores) -> None:
        self._own = scores.mated_columns
        # (N,): number of probes whose best candidate is each.
        self._by_candidate = np.zeros(len(scores.gallery_identities))
        self._success: list[Floats] = []
        self._permuted: list[Floats] = []

    def add(self, part: _ShardChance) -> None:
        """Take the next shard, in the order of the probes."""
        self._by_candidate[part.columns] += part.attracted
        self._success.append(part.success)
        self._permuted.append(part.permuted)

    def measured(self) -> MeasuredChance:
        """Of all probes, once all shards are added."""
        success, permuted = np.concatenate(self._success), np.concatenate(self._permuted)
        attraction = self._by_candidate[self._own] / len(success)
        excess = permutation_excess(success, permuted, attraction)
        return MeasuredChance(permuted, excess, attraction)


def _small_blocks(scores: Scores) -> Iterator[ScoreBlock]:
    """Blocks of at most ``FIRST_CELLS`` scores, or of one probe: where all tie, all are first."""
    for rows, block in tie_resolved_blocks(scores):
        step = max(1, FIRST_CELLS // block.shape[1])
        for start in range(0, len(rows), step):
            yield ScoreBlock(rows[start : start + step], block[start : start + step])


def _of_shard(scores: Scores, share: Floats) -> _ShardChance:
    """Chance of the probes of a shard.

    Args:
        share: of all probes that belong to each candidate, (N,).
    """
    success, permuted = np.empty(len(scores.mated_columns)), np.empty(len(scores.mated_columns))
    columns, attracted = np.empty(0, np.int64), np.empty(0)
    for rows, block in _small_blocks(scores):
        first = FirstPlaces.of(block)
        own = first.columns == scores.mated_columns[rows][first.rows]
        success[rows] = np.bincount(first.rows, first.weights * own)
        permuted[rows] = first.permuted(share)
        columns, places = np.unique(np.concatenate([columns, first.columns]), return_inverse=True)
        attracted = np.concatenate([attracted, first.weights])
        attracted = np.asarray(np.bincount(places, attracted), np.float64)
    return _ShardChance(success, permuted, columns, attracted)
