"""The measures of one attack (docs/measures.md), each with its interval and what chance gives.

What they need of its scores is read in one pass with bounded memory.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.evaluation.settings import BootstrapOptions, EvaluationSettings
from cldmray.gallery.chance import (
    FirstPlaces,
    permuted_places,
    probe_shares,
    probes_of_places,
    sampled_probes,
    with_first_place,
)
from cldmray.gallery.protocols import IntArray, Strings, Vectors
from cldmray.gallery.ranking import Ranks
from cldmray.gallery.scores import Scores, tie_resolved_blocks
from cldmray.hashing import unit_hash
from cldmray.metrics.confidence import (
    Unsupported,
    bootstrap_identities,
    bootstrap_mean,
    bootstrap_quantiles,
    sums_by_identity,
)
from cldmray.metrics.identification import (
    chance,
    expected_rank,
    fnir_at_fpir,
    fnir_at_fpir_interval,
    reciprocal_rank,
    success_at_rank,
)
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.metrics.linkage import linkage
from cldmray.metrics.rates import rate_interval, rate_intervals
from cldmray.metrics.verification import fnmr_at_fmrs, verification_intervals

Floats = npt.NDArray[np.float64]
DetKind = Literal["verification", "open_set"]
NON_MATED_SCORES = 200_000
"""Most non-mated scores of an attack. Where there are more, they are those of the probes whose
sample ids come first by a hash."""


PERMUTED_SCORES = 5_000_000
"""Most scores of permuted identities, unless that were too few permutations to tell anything: the
smallest p-value of R of them is 1 / (R + 1)."""
MAX_PERMUTATIONS = 500


class ComparisonScores(NamedTuple):
    """What the measures need of the scores of one attack.

    Attributes:
        shuffled: per probe, share of all probes that belong to its best candidate, (P,).
        places: share of all probes that belong to the candidate in each place, mean over the
            probes, or over some of them (``gallery.chance.probes_of_places``), (N,): summed up to
            k it is the success at rank k with permuted identities.
        mated: score of each probe with its own identity, (P,).
        labels: identity of each probe, (P,).
        non_mated: scores of some probes with all other candidates, (Q, N - 1).
        non_mated_labels: identity of each of these probes, (Q,).
        permuted: score of each probe with another identity in its own one's place, for each of R
            permutations of the identities, (P, R).
        enrolled_identities: candidates in the half of the gallery that stays.
        enrolled: whether the probe's person is one of them, (P,).
        best_non_mated: best score of each probe among the others of that half, (P,); -inf if there
            are none.
    """

    shuffled: Floats
    places: Floats
    mated: Vectors
    labels: Strings
    non_mated: Vectors
    non_mated_labels: Strings
    permuted: Vectors
    enrolled_identities: int
    enrolled: npt.NDArray[np.bool_]
    best_non_mated: Vectors


def collect_comparisons(
    scores: Scores, most: int = NON_MATED_SCORES, confidence_level: float = 0.95
) -> ComparisonScores:
    """Read the scores of an attack once.

    Args:
        most: non-mated scores that are kept, but at least those of one probe.
        confidence_level: at which permutations must be able to tell something from chance.
    """
    gallery_identities, probes = len(scores.gallery_identities), len(scores.mated_columns)
    share = probe_shares(scores)
    stays = enrolled_identities(scores.gallery_identities)
    most_probes = max(1, most // (gallery_identities - 1))
    sampled = sampled_probes(scores.sample_ids, most_probes, "non_mated")
    in_places = probes_of_places(scores)
    least = math.ceil(2 / (1 - confidence_level) - 1 - 1e-9)
    permuted_columns = _permuted_columns(scores.mated_columns, gallery_identities, least)
    permuted = np.empty(permuted_columns.shape, np.float32)
    shuffled, places = np.empty(probes), np.zeros(gallery_identities)
    mated, best_non_mated = np.empty(probes, np.float32), np.empty(probes, np.float32)
    non_mated = []
    for rows, block in tie_resolved_blocks(scores):
        own = np.zeros(block.shape, bool)
        own[np.arange(len(rows)), scores.mated_columns[rows]] = True
        shuffled[rows] = FirstPlaces.of(block).permuted(share)
        places += permuted_places(block[in_places[rows]], share).sum(0) / in_places.sum()
        mated[rows] = block[own]
        permuted[rows] = np.take_along_axis(block, permuted_columns[rows], axis=1)
        kept = sampled[rows]
        non_mated.append(block[kept][~own[kept]].reshape(-1, gallery_identities - 1))
        best_non_mated[rows] = np.where(own | ~stays, -np.inf, block).max(1)
    return ComparisonScores(
        shuffled,
        places if in_places.all() else with_first_place(places, float(shuffled.mean())),
        mated,
        scores.identities,
        np.concatenate(non_mated),
        scores.identities[sampled],
        permuted,
        int(stays.sum()),
        stays[scores.mated_columns],
        best_non_mated,
    )


def enrolled_identities(gallery_identities: Strings) -> npt.NDArray[np.bool_]:
    """Which candidates stay in the gallery when half of them, rounded down, are left out by hash.

    Args:
        gallery_identities: shape (N,).
    """
    order = np.argsort(
        [unit_hash("open_set", identity) for identity in gallery_identities.tolist()]
    )
    stays = np.ones(len(gallery_identities), bool)
    stays[order[: len(gallery_identities) // 2]] = False
    return stays


def _permuted_columns(own: IntArray, n_identities: int, least: int) -> IntArray:
    """Place of the identity that stands in for each probe's own one in R permutations, (P, R)."""
    count = max(least, min(PERMUTED_SCORES // len(own), MAX_PERMUTATIONS))
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(n_identities)[own] for _ in range(count)], axis=1)


RANKS = (1, 5, 10, 50)
FMRS = {"1e-2": 1e-2, "1e-3": 1e-3}
FPIRS = {"1e-1": 1e-1, "1e-2": 1e-2, "3e-3": 3e-3}
D_SYS = "d_sys"
QUANTILES = {"median": 0.5, "p10": 0.1}
SCORE_N_BOOTSTRAP = 500
"""Bootstrap resamples, up to a confidence level of 95 %, of the measures that need a threshold or a
quantile in each; never more than the audit's."""


DET_RATES = tuple(10 ** (power / 10) for power in range(-30, 1))
"""Rates of false alarms at which DET curves are read: ten a decade."""


def det_curves(scores: Sequence[Scores]) -> dict[DetKind, tuple[list[float], list[float]]]:
    """Rates of false alarms and of misses of an attack, without bounds.

    Only false alarms count that each training's comparisons support, one of them at least.
    Trainings, whose thresholds are their own, are averaged.

    Args:
        scores: of every training, at least one.

    Returns:
        By ``verification`` and ``open_set``; one that cannot be measured is left out.
    """
    trainings = [collect_comparisons(training) for training in scores]
    curves: dict[DetKind, tuple[list[float], list[float]]] = {}
    rates = _supported_rates(min(training.non_mated.size for training in trainings))
    by_training = [fnmr_at_fmrs(each.mated, each.non_mated, rates) for each in trainings]
    curves["verification"] = rates, np.mean(by_training, axis=0).tolist()
    if all(_has_open_set(training) for training in trainings):
        rates = _supported_rates(min(int((~each.enrolled).sum()) for each in trainings))
        misses = [[_fnir(training, rate) for rate in rates] for training in trainings]
        curves["open_set"] = rates, np.mean(misses, axis=0).tolist()
    return curves


def _supported_rates(n_scores: int) -> list[float]:
    return [rate for rate in DET_RATES if rate * n_scores >= 1 - 1e-9]


def _has_open_set(comparisons: ComparisonScores) -> bool:
    """Whether two people at least are enrolled, and either half of the gallery has a probe."""
    mine = comparisons.enrolled
    return comparisons.enrolled_identities >= 2 and bool(mine.any()) and not mine.all()


def _fnir(comparisons: ComparisonScores, fpir: float) -> float:
    mine = comparisons.enrolled
    best = comparisons.best_non_mated
    return fnir_at_fpir(comparisons.mated[mine], best[mine], best[~mine], fpir)


class ProbeCounts(NamedTuple):
    """Different images and identities behind a row of results."""

    n_probes: int
    n_identities: int


def probe_counts(sample_ids: Strings, identities: Strings) -> ProbeCounts:
    """The counts of some probes; those of several trainings are the same images."""
    return ProbeCounts(len(np.unique(sample_ids)), len(np.unique(identities)))


class Measured(NamedTuple):
    """One measure of one attack.

    Attributes:
        name: of the measure.
        interval: value and bounds; None where the comparisons cannot support it.
        chance: what chance gives.
        n_non_mated: non-mated comparisons of one training behind a measure of scores, else 0.
        reason: why there is no interval, in one sentence; None where there is one.
        estimate: the value where there is one without an interval.
        n_claims: images and identities that it is of; None: all that were probed.
    """

    name: str
    interval: Interval | None
    chance: float | None
    n_non_mated: int = 0
    reason: str | None = None
    estimate: float | None = None
    n_claims: ProbeCounts | None = None


def measure(ranks: Ranks, scores: Sequence[Scores], settings: EvaluationSettings) -> list[Measured]:
    """All measures of one attack.

    Measures of ranks: ``rank_1``, ``rank_5``, ``rank_10``, ``rank_50``, ``mean_reciprocal_rank``;
    ``mean_rank``, ``median_rank`` and ``p10_rank`` (the lowest tenth) of the true identity over
    images; ``median_rank_by_identity`` and ``p10_rank_by_identity`` over identities, whose rank is
    the mean of their images; ``k_not_rejected``, whose lower bound is the largest k that
    the attack supports, and ``k_point_estimate``, 1 / rank-1.

    Where there are several trainings, ``rank_1_by_seed``: the bounds are not those of an interval
    but the lowest and the highest rank-1 rate of one training.

    Measures of scores: ``rank_1_shuffled``, the rank-1 rate if the probes' identities were
    shuffled, which is the chance of ``rank_1``: people with many images attract matches
    (its interval takes the shares of the identities as given); ``eer``, ``tmr_at_fmr_*``,
    ``d_sys``; and ``fnir_at_fpir_*`` with half of the people left out of the gallery, by a hash;
    these rows are absent where fewer than two people stay or a half has no probe.

    Args:
        ranks: of every training of the attacker, one after the other.
        scores: of every training, in the same order. The measures of scores, whose thresholds
            belong to one training, are averaged, value and bounds; without scores they are absent.
        settings: confidence_level, n_bootstrap (see ``SCORE_N_BOOTSTRAP``) and seed.
    """
    level = settings.confidence_level
    comparisons = [collect_comparisons(each, confidence_level=level) for each in scores]
    places = _places(comparisons, ranks.gallery_size)
    measured = _identification(ranks, comparisons, places, settings)
    if len(scores) > 1:
        measured.append(_by_seed(ranks, len(scores), measured[0].chance))
    measured += _rank_statistics(ranks, places, settings)
    if rate := measured[0].interval:
        measured += _claims(rate, ranks.gallery_size)
    by_training = [
        [*_verification(training, settings), *_open_set(training, settings)]
        for training in comparisons
    ]
    return measured + [_averaged(same_measure) for same_measure in zip(*by_training, strict=True)]


def rank_1_by_subset(
    ranks: Ranks, subsets: Mapping[str, Strings], settings: EvaluationSettings
) -> list[tuple[str, Interval, npt.NDArray[np.bool_]]]:
    """Rank-1 rate of the probes of some identities in the whole gallery.

    Args:
        subsets: the identities of each subset, by its name; one without probes is left out.

    Returns:
        Name of the subset, its rate, and which probes are its own, shape (P,).
    """
    success = success_at_rank(ranks.n_higher, ranks.n_tied, 1)
    rates = []
    for name, members in subsets.items():
        own = np.isin(ranks.identities, members)
        if own.any():
            interval = rate_interval(
                success[own],
                ranks.identities[own],
                samples=ranks.sample_ids[own],
                confidence_level=settings.confidence_level,
            )
            rates.append((name, interval, own))
    return rates


def _places(comparisons: Sequence[ComparisonScores], size: int) -> Floats:
    """Probability of each place with permuted identities, (N,); uniform without scores."""
    if not comparisons:
        return np.full(size, 1 / size)
    mean: Floats = np.mean([training.places for training in comparisons], axis=0)
    return mean


def _identification(
    ranks: Ranks,
    comparisons: list[ComparisonScores],
    places: Floats,
    settings: EvaluationSettings,
) -> list[Measured]:
    intervals = rate_intervals(
        np.stack([success_at_rank(ranks.n_higher, ranks.n_tied, k) for k in RANKS], 1),
        ranks.identities,
        samples=ranks.sample_ids,
        confidence_level=settings.confidence_level,
    )
    measured = [
        Measured(f"rank_{k}", interval, min(1.0, float(places[:k].sum())))
        for k, interval in zip(RANKS, intervals, strict=True)
    ]
    # A mean of 1 / rank varies less than a rate of the same value, so it keeps the bootstrap.
    reciprocal = bootstrap_identities(
        reciprocal_rank(ranks.n_higher, ranks.n_tied), ranks.identities, **settings.bootstrap
    )
    chance_value = float(places @ (1 / np.arange(1, len(places) + 1)))
    measured.append(Measured("mean_reciprocal_rank", reciprocal, chance_value))
    if comparisons:
        shuffled = np.concatenate([training.shuffled for training in comparisons])
        mean = bootstrap_mean(
            shuffled,
            ranks.identities,
            **settings.bootstrap,
        )
        measured.append(Measured("rank_1_shuffled", mean, chance(1, ranks.gallery_size)))
        measured[0] = measured[0]._replace(chance=mean.value)
    return measured


def _by_seed(ranks: Ranks, trainings: int, chance_value: float | None) -> Measured:
    rates = success_at_rank(ranks.n_higher, ranks.n_tied, 1).reshape(trainings, -1).mean(1)
    spread = Interval(float(rates.mean()), float(rates.min()), float(rates.max()))
    return Measured("rank_1_by_seed", spread, chance_value)


def _rank_statistics(ranks: Ranks, places: Floats, settings: EvaluationSettings) -> list[Measured]:
    """Chance is that of the places, (N,); a person's mean rank is taken to be normal then."""
    each_rank = np.arange(1, len(places) + 1)
    expected = float(places @ each_rank)
    images = expected_rank(ranks.n_higher, ranks.n_tied)
    mean = bootstrap_mean(
        images,
        ranks.identities,
        **settings.bootstrap,
    )
    measured = [Measured("mean_rank", mean, expected)]
    sums, counts = sums_by_identity(images[:, None], ranks.identities)
    _, first = np.unique(ranks.sample_ids, return_index=True)
    _, n_images = np.unique(ranks.identities[first], return_counts=True)
    spread = math.sqrt(places @ (each_rank - expected) ** 2 * np.mean(1 / n_images))
    mean_ranks, labels = sums[0] / counts, np.arange(len(counts))
    for values, owners, kind in (
        (images, ranks.identities, ""),
        (mean_ranks, labels, "_by_identity"),
    ):
        intervals = bootstrap_quantiles(
            values, owners, list(QUANTILES.values()), **_score_options(settings)
        )
        for (word, share), interval in zip(QUANTILES.items(), intervals, strict=True):
            chance_value = 1.0 + int(np.searchsorted(np.cumsum(places), share - 1e-9))
            if kind and spread:
                chance_value = max(1.0, NormalDist(expected, spread).inv_cdf(share))
            measured.append(Measured(f"{word}_rank{kind}", interval, chance_value))
    return measured


def _claims(rate: Interval, size: int) -> list[Measured]:
    claims = k_anonymity(rate, size)
    standing, supported = claims.k_not_rejected, claims.k_supported
    low, high = (min(size, 1 / bound) if bound else size for bound in (rate.high, rate.low))
    return [
        Measured("k_not_rejected", Interval(standing, supported, standing), size),
        Measured("k_point_estimate", Interval(claims.point_estimate, low, high), size),
    ]


def _verification(comparisons: ComparisonScores, settings: EvaluationSettings) -> list[Measured]:
    pairs = (
        comparisons.mated,
        comparisons.labels,
        comparisons.non_mated,
        comparisons.non_mated_labels,
    )
    options, count = _score_options(settings), comparisons.non_mated.size
    eer, tmrs = verification_intervals(*pairs, fmrs=list(FMRS.values()), **options)
    matches = [
        _supported(f"tmr_at_fmr_{word}", interval, fmr, count)
        for (word, fmr), interval in zip(FMRS.items(), tmrs, strict=True)
    ]
    linked = linkage(*pairs, permuted=comparisons.permuted, **options)
    return [
        Measured("eer", eer, 0.5, count),
        *matches,
        Measured(D_SYS, linked.interval, linked.chance, count),
    ]


def _supported(
    name: str, interval: Interval | Unsupported, chance_value: float, n_non_mated: int
) -> Measured:
    """A measure of scores, without an interval where the comparisons cannot support it."""
    if isinstance(interval, Unsupported):
        return Measured(name, None, chance_value, n_non_mated, interval.reason)
    return Measured(name, interval, chance_value, n_non_mated)


def _open_set(comparisons: ComparisonScores, settings: EvaluationSettings) -> list[Measured]:
    if not _has_open_set(comparisons):
        return []
    mine, others = comparisons.enrolled, ~comparisons.enrolled
    measured = []
    for word, fpir in FPIRS.items():
        interval = fnir_at_fpir_interval(
            comparisons.mated[mine],
            comparisons.best_non_mated[mine],
            comparisons.best_non_mated[others],
            comparisons.labels[mine],
            unknown_labels=comparisons.labels[others],
            fpir=fpir,
            **_score_options(settings),
        )
        chance_value = 1 - fpir / comparisons.enrolled_identities
        count = int(others.sum())
        measured.append(_supported(f"fnir_at_fpir_{word}", interval, chance_value, count))
    return measured


def _score_options(settings: EvaluationSettings) -> BootstrapOptions:
    """Fewer resamples, but enough for the bounds of a high confidence level, too."""
    enough = max(SCORE_N_BOOTSTRAP, math.ceil(25 / (1 - settings.confidence_level)))
    return {**settings.bootstrap, "n_bootstrap": min(settings.n_bootstrap, enough)}


def _averaged(trainings: Sequence[Measured]) -> Measured:
    """One measure of every training, averaged; none where a training cannot support it.

    ``d_sys`` is above 0 by its lower bound only where every training links significantly.
    """
    intervals = [training.interval for training in trainings if training.interval is not None]
    if len(intervals) < len(trainings):
        return next(training for training in trainings if training.interval is None)
    mean = Interval(*(float(np.mean(part)) for part in zip(*intervals, strict=True)))
    if trainings[0].name == D_SYS and min(interval.low for interval in intervals) <= 0:
        mean = mean._replace(low=0.0)
    chances = [training.chance for training in trainings if training.chance is not None]
    return trainings[0]._replace(interval=mean, chance=float(np.mean(chances)) if chances else None)
