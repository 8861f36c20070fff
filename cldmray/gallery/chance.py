"""Chance as it is measured: the same attack with the identities of its probes permuted."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.gallery.protocols import Vectors
from cldmray.gallery.ranking import Ranks, pool_ranks, rank_scores
from cldmray.gallery.scores import SAME_SCORE, KeptScores, Scores, tie_resolved_blocks
from cldmray.metrics.chance import permutation_excess

Floats = npt.NDArray[np.float64]
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
    """:func:`permuted_places`, the mean over all probes of every training, shape (N,).

    The scores are read once.
    """
    total = np.zeros(len(trainings[0].gallery_identities))
    for scores in trainings:
        share = probe_shares(scores)
        for _, block in tie_resolved_blocks(scores):
            total += permuted_places(block, share).sum(0)
    return total / sum(len(scores.mated_columns) for scores in trainings)


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
    parts = [
        _merged(scores, [_of_shard(scores, probe_shares(scores), len(scores.mated_columns))])
        for scores in trainings
    ]
    return pool_chance(parts)


def pool_chance(parts: Sequence[MeasuredChance]) -> MeasuredChance:
    """The probes of several attacks as one, one after the other."""
    return MeasuredChance(*map(np.concatenate, zip(*parts, strict=True)))


def ranks_and_chance(
    attacks: Sequence[Scores], apply: Apply = map
) -> list[tuple[Ranks, MeasuredChance]]:
    """Ranks, and :func:`measured_chance`, of each of several scores, which are read once.

    Args:
        apply: calls a function for each shard of all scores, here or in other processes.
    """
    shards = [scores.shards() for scores in attacks]
    calls = (
        (shard, probe_shares(scores), len(scores.mated_columns))
        for scores, own in zip(attacks, shards, strict=True)
        for shard in own
    )
    outcomes = iter(apply(_shard_outcome, calls))
    results = []
    for scores, own in zip(attacks, shards, strict=True):
        ranks, parts = zip(*islice(outcomes, len(own)), strict=True)
        results.append((pool_ranks(ranks), _merged(scores, parts)))
    return results


class _ShardChance(NamedTuple):
    """Success and permuted success of a shard's probes, and what they add to the attraction, (N,).

    The attraction of a candidate is the share of all probes whose best candidate it is.
    """

    success: Floats
    permuted: Floats
    attraction: Floats


def _shard_outcome(call: tuple[Scores, Floats, int]) -> tuple[Ranks, _ShardChance]:
    shard, share, probes = call
    kept = KeptScores(shard)
    return rank_scores(kept), _of_shard(kept, share, probes)


def _merged(scores: Scores, parts: Sequence[_ShardChance]) -> MeasuredChance:
    attraction = np.zeros(len(scores.gallery_identities))
    for part in parts:
        attraction += part.attraction
    success, permuted = (
        np.concatenate([part.success for part in parts]),
        np.concatenate([part.permuted for part in parts]),
    )
    attracted = attraction[scores.mated_columns]
    return MeasuredChance(permuted, permutation_excess(success, permuted, attracted), attracted)


def _of_shard(scores: Scores, share: Floats, n_probes: int) -> _ShardChance:
    """Chance of the probes of a shard.

    Args:
        share: of all probes that belong to each candidate, (N,).
        n_probes: of all shards.
    """
    attraction = np.zeros(len(scores.gallery_identities))
    success, permuted = np.empty(len(scores.mated_columns)), np.empty(len(scores.mated_columns))
    for rows, block in tie_resolved_blocks(scores):
        # (b, N): probability that each candidate is ranked first, ties broken at random.
        first = block >= block.max(1, keepdims=True) - SAME_SCORE
        best = first / first.sum(1, keepdims=True)
        success[rows] = best[np.arange(len(rows)), scores.mated_columns[rows]]
        permuted[rows] = best @ share
        attraction += best.sum(0) / n_probes
    return _ShardChance(success, permuted, attraction)
