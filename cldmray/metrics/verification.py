"""Verification: are two images the same person? Exact error rates, and intervals over identities.

Scores are similarities: higher means "same person". The error rates are step functions of the
threshold; nothing is smoothed or binned.

The bounds come from resamples of the identities. A resample draws identities with replacement and
weights all scores of a probe by how often its identity was drawn. Both samples are counted once per
identity above each threshold of a grid; one matrix product (resamples, identities) @ (identities,
thresholds) then gives the error curves of all resamples.

The grid holds the ``DENSE`` highest non-mated and the ``DENSE`` lowest mated scores, which decide
low error rates, and below and above these the scores whose ranks grow by the factor ``STEP``.
With at most ``DENSE`` scores in each sample the curves are exact. Otherwise neighbouring
thresholds differ by about 2 % of FMR or FNMR: a measure that interpolates, as the equal error rate
does, is off by about 1 % of its value at most, and one that needs FMR <= f finds a threshold that
is at most one step too strict. Both are small against the spread of the resamples.

Sources: ISO/IEC 19795-1:2021 (false match rate, false non-match rate, equal error rate, uncertainty
of estimates); B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    SAME,
    Floats,
    Labels,
    Unsupported,
    check_confidence_level,
    percentile_interval,
    resampled_counts,
    wilson,
)
from cldmray.metrics.rates import rate_interval


def _check(scores: npt.ArrayLike, name: str) -> Floats:
    array = np.sort(np.asarray(scores, np.float64), axis=None)
    if array.size == 0:
        raise BadInputError(f"no {name} scores")
    if not np.all(np.isfinite(array)):
        raise BadInputError(f"{name} scores must be finite")
    return array


def equal_error_rate(mated: npt.ArrayLike, non_mated: npt.ArrayLike) -> float:
    """Error rate where false matches and false non-matches are equally frequent.

    FMR falls and FNMR rises in steps as the threshold grows; the EER is where the two step
    functions, drawn with their risers, cross. Where mated and non-mated scores tie at the
    crossing, the tie is broken at random, so a constant score gives 0.5.

    Args:
        mated: scores of pairs of one person, any shape with >= 1 entry, finite.
        non_mated: scores of pairs of two people, any shape with >= 1 entry, finite.

    Returns:
        In [0, 1]; 0 where the scores separate perfectly, 0.5 where they say nothing.

    Raises:
        BadInputError: a sample is empty or not finite.

    >>> equal_error_rate([0.9, 0.8, 0.4], [0.1, 0.2, 0.5])
    0.3333333333333333
    """
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    thresholds = np.unique(np.concatenate([same, other]))
    accepted = len(other) - np.searchsorted(other, thresholds, side="left")
    refused = np.searchsorted(same, thresholds, side="left")
    fmr = np.append(accepted / len(other), 0.0)
    fnmr = np.append(refused / len(same), 1.0)
    after = int(np.argmax(fnmr >= fmr))
    before = after - 1
    gap_before = fmr[before] - fnmr[before]
    gap_after = fnmr[after] - fmr[after]
    weight = gap_before / (gap_before + gap_after)
    return float(fmr[before] + weight * (fmr[after] - fmr[before]))


def tmr_at_fmr(mated: npt.ArrayLike, non_mated: npt.ArrayLike, fmr: float) -> float:
    """True match rate at the most permissive threshold whose false match rate is at most ``fmr``.

    With fewer than 1 / ``fmr`` non-mated scores the threshold is the highest of them, and the
    measure says less than its name: see :func:`unsupported_rate`.

    Args:
        mated, non_mated: see :func:`equal_error_rate`.
        fmr: largest false match rate, in [0, 1], for example 1e-3.

    Returns:
        Share of mated scores above the threshold, in [0, 1].

    Raises:
        BadInputError: a sample is empty or not finite, or ``fmr`` lies outside [0, 1].

    >>> tmr_at_fmr([0.9, 0.8, 0.4, 0.3], [0.1, 0.2, 0.35], fmr=0.0)
    0.75
    """
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    _check_fmr(fmr)
    return float(np.mean(same > threshold_at(other, fmr)))


def fnmr_at_fmrs(mated: npt.ArrayLike, non_mated: npt.ArrayLike, fmrs: Sequence[float]) -> Floats:
    """False non-match rate at each of several false match rates: points of a DET curve.

    Args:
        mated, non_mated: see :func:`equal_error_rate`.
        fmrs: largest false match rates, in [0, 1].

    Returns:
        1 - :func:`tmr_at_fmr`, shape (len(fmrs),).

    Raises:
        BadInputError: see :func:`tmr_at_fmr`.

    >>> fnmr_at_fmrs([0.9, 0.8, 0.4, 0.3], [0.1, 0.2, 0.35], [0.0, 1 / 3]).tolist()
    [0.25, 0.0]
    """
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    for fmr in fmrs:
        _check_fmr(fmr)
    thresholds = [threshold_at(other, fmr) for fmr in fmrs]
    rejected: Floats = np.searchsorted(same, thresholds, side="right") / len(same)
    return rejected


def _check_fmr(fmr: float) -> None:
    if not 0 <= fmr <= 1:
        raise BadInputError(f"fmr must lie in [0, 1], not {fmr}")


def threshold_at(scores: Floats, error_rate: float) -> float:
    """The lowest threshold that at most a share ``error_rate`` of sorted scores (n,) exceeds.

    >>> threshold_at(np.array([0.1, 0.2, 0.3, 0.4]), 0.25)
    0.3
    """
    allowed = math.floor(error_rate * len(scores) * (1 + 1e-12))
    return float(scores[-1 - allowed]) if allowed < len(scores) else -math.inf


DENSE = 256
STEP = 1.02
EXACT_IN_SINGLE = 2**24
"""Whole numbers below this, and sums of them, are exact in single precision."""
Codes = npt.NDArray[np.int64]
Counted = npt.NDArray[np.floating[Any]]


class ScoreSample(NamedTuple):
    """Scores and the identities of the probes they belong to.

    Attributes:
        scores: shape (P,) or (P, M), -inf or finite.
        labels: identity of each row, shape (P,).
    """

    scores: Floats
    labels: Labels


class WeightedCounts(NamedTuple):
    """Weighted counts of a block of resamples, r by thresholds G in rising order, the first -inf.

    Attributes:
        mated, non_mated: scores above each threshold, shape (r, G), whole numbers.
        mated_total, non_mated_total: all scores, shape (r,), > 0.
    """

    mated: Counted
    non_mated: Counted
    mated_total: Floats
    non_mated_total: Floats


Measure = Callable[[WeightedCounts], Floats]
"""One number per resample, shape (r,)."""


class Resampled(NamedTuple):
    """Measures on resamples of the identities.

    Attributes:
        draws: one array per measure, shape (R,), of the resamples that hold a mated and a non-mated
            score; the others say nothing.
        identities: the lower number of identities that the two samples have.
    """

    draws: list[Floats]
    identities: int


def resample_errors(
    mated: ScoreSample,
    non_mated: ScoreSample,
    measures: Sequence[Measure],
    n_bootstrap: int,
    *,
    seed: int,
) -> Resampled:
    """Measures of score samples on resamples of the identities of both samples together.

    Args:
        mated, non_mated: see :class:`ScoreSample`; an identity may be in one or both of them.
        measures: of :class:`WeightedCounts`, for example :func:`equal_error_rates`.
        n_bootstrap: >= 1.
        seed: the result depends on the scores and this seed, never on the order of probes.

    Raises:
        BadInputError: shapes do not fit, or ``n_bootstrap`` is below 1.
    """
    codes, n = identity_codes([mated, non_mated])
    grid = _grid(mated.scores, non_mated.scores)
    tables = [_above(s.scores, c, n, grid) for s, c in zip((mated, non_mated), codes, strict=True)]
    sizes: list[Floats] = [
        np.bincount(c, minlength=n) * np.float64(s.scores[0].size)
        for s, c in zip((mated, non_mated), codes, strict=True)
    ]
    draws: list[list[Floats]] = [[] for _ in measures]
    for curves in _curves(tables, sizes, n_bootstrap, seed):
        for measure, values in zip(measures, draws, strict=True):
            values.append(measure(curves))
    return Resampled(
        [np.concatenate(values) for values in draws], min(len(np.unique(c)) for c in codes)
    )


def equal_error_rates(curves: WeightedCounts) -> Floats:
    """:func:`cldmray.metrics.verification.equal_error_rate` of each resample, in [0, 1]."""
    single = curves.mated.dtype.type
    gained = curves.mated * (1 / curves.mated_total).astype(single)[:, None]
    gained += curves.non_mated * (1 / curves.non_mated_total).astype(single)[:, None]
    after = np.clip(np.count_nonzero(gained > 1, axis=1), 1, gained.shape[1] - 1)
    rows = np.arange(len(after))
    fmr, fnmr = (
        np.stack([part[rows, after - 1], part[rows, after]]).astype(np.float64) / total
        for part, total in (
            (curves.non_mated, curves.non_mated_total),
            (curves.mated_total[:, None] - curves.mated, curves.mated_total),
        )
    )
    gap = fmr - fnmr
    weight = gap[0] / (gap[0] - gap[1])
    return np.asarray(np.clip(fmr[0] + weight * (fmr[1] - fmr[0]), 0, 1))


def true_match_rates(fmr: float) -> Measure:
    """:func:`cldmray.metrics.verification.tmr_at_fmr` of each resample, in [0, 1]."""

    def measure(curves: WeightedCounts) -> Floats:
        allowed = fmr * curves.non_mated_total * (1 + 1e-12)
        strict = np.count_nonzero(curves.non_mated > allowed[:, None], axis=1)
        accepted = curves.mated[np.arange(len(strict)), strict].astype(np.float64)
        return np.asarray(accepted / curves.mated_total)

    return measure


def identity_codes(samples: Sequence[ScoreSample]) -> tuple[list[Codes], int]:
    """Number of each row's identity among those of all samples, and how many these are."""
    labels = [np.asarray(sample.labels) for sample in samples]
    for sample, own in zip(samples, labels, strict=True):
        if own.shape != (len(sample.scores),):
            raise BadInputError(f"labels must have shape ({len(sample.scores)},), not {own.shape}")
    names, codes = np.unique(np.concatenate(labels), return_inverse=True)
    return np.split(codes, [len(labels[0])]), len(names)


def _grid(mated: Floats, non_mated: Floats) -> Floats:
    """Thresholds in rising order: -inf and those named above, the highest score of all last."""
    same, other = np.sort(mated, axis=None), np.sort(non_mated, axis=None)
    same = same[np.searchsorted(same, -np.inf, side="right") :]
    thresholds = [same[_ranks(len(same))], other[len(other) - 1 - _ranks(len(other))]]
    return np.unique(np.concatenate([[-np.inf], *thresholds]))


def _ranks(n: int) -> Codes:
    """Ranks from 0 to n - 1 in rising order, without gaps up to ``DENSE``."""
    if n <= DENSE:
        return np.arange(n)
    steps = int(np.ceil(np.log(n / DENSE) / np.log(STEP)))
    sparse = np.minimum(DENSE * STEP ** np.arange(1, steps + 1), n - 1).astype(np.int64)
    return np.unique(np.concatenate([np.arange(DENSE), sparse]))


def _above(scores: Floats, codes: Codes, n: int, grid: Floats) -> Codes:
    """Scores of each identity above each threshold, shape (n, G)."""
    passed = np.searchsorted(grid, scores.reshape(len(codes), -1), side="left")
    cells = len(grid) + 1
    passed += codes[:, None] * cells
    counts = np.bincount(passed.ravel(), minlength=n * cells).reshape(n, cells)
    return np.cumsum(counts[:, :0:-1], axis=1)[:, ::-1]


def _curves(
    tables: Sequence[Codes], sizes: Sequence[Floats], n_bootstrap: int, seed: int
) -> Iterator[WeightedCounts]:
    n, thresholds = tables[0].shape
    largest = n * max(size.max() for size in sizes)
    precision = np.float32 if largest < EXACT_IN_SINGLE else np.float64
    mated, non_mated = (np.asarray(table, precision, order="C") for table in tables)
    for counts in resampled_counts(n, n_bootstrap, seed, width=2 * thresholds):
        totals = [counts @ size for size in sizes]
        complete = (totals[0] > 0) & (totals[1] > 0)
        drawn = counts[complete].astype(precision)
        above = [np.matmul(drawn, table) for table in (mated, non_mated)]
        yield WeightedCounts(above[0], above[1], totals[0][complete], totals[1][complete])


def unsupported_rate(error_rate: float, n_scores: int, name: str) -> Unsupported | None:
    """Why some scores cannot tell the threshold of an error rate; None where they can.

    An error rate f is seen only where at least 1 / f scores could exceed the threshold.

    Args:
        error_rate: false match rate or false positive identification rate, in [0, 1].
        n_scores: scores that must not exceed the threshold.
        name: what these are, such as "non-mated scores".

    >>> unsupported_rate(1e-3, 4, "non-mated scores").reason
    'an error rate of 0.001 needs at least 1000 non-mated scores; there are 4'
    """
    needed = math.ceil(round(1 / error_rate, 6)) if error_rate > 0 else 0
    if n_scores >= needed:
        return None
    return Unsupported(
        f"an error rate of {error_rate:g} needs at least {needed} {name}; there are {n_scores}"
    )


class VerificationIntervals(NamedTuple):
    """Equal error rate and true match rates with their confidence intervals.

    Attributes:
        equal_error_rate: see :func:`cldmray.metrics.verification.equal_error_rate`.
        tmr: one interval per false match rate asked for, of
            :func:`cldmray.metrics.verification.tmr_at_fmr`, or why there is none, see
            :func:`unsupported_rate`.
    """

    equal_error_rate: Interval
    tmr: list[Interval | Unsupported]


def verification_intervals(
    mated: npt.ArrayLike,
    mated_labels: Labels,
    non_mated: npt.ArrayLike,
    non_mated_labels: Labels,
    *,
    fmrs: Sequence[float] = (1e-2, 1e-3),
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> VerificationIntervals:
    """Equal error rate and true match rates with their intervals, all from the same resamples.

    The values are exact; the bounds are percentiles over resamples of the identities of probes
    (Efron & Tibshirani 1993), whose thresholds come from a grid. Each probe takes all its scores
    along, so the bounds say how sure the rates are for other probes against the same gallery.
    Where all resamples agree (perfect separation, one identity, all identities equal), Wilson's
    interval with n = number of identities bounds the equal error rate. The bounds of a true match
    rate are never within :func:`cldmray.metrics.rates.rate_interval` at its threshold.

    Args:
        mated: scores of pairs of one person, one per probe, shape (P,), finite.
        mated_labels: identity of each of these probes, shape (P,).
        non_mated: scores of probes with M other people, shape (Q, M), finite.
        non_mated_labels: identity of each of these probes, shape (Q,).
        fmrs: false match rates, each in [0, 1].
        confidence_level: in (0, 1).
        n_bootstrap: >= 1. Those without a mated or without a non-mated score are left out.
        seed: the result depends on the values and this seed, never on the order of probes.

    Returns:
        Rates in [0, 1].

    Raises:
        BadInputError: a shape does not fit, a sample is empty or not finite, or an argument is
            out of range.
    """
    check_confidence_level(confidence_level)
    same, other = np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)
    if same.ndim != 1 or other.ndim != 2:
        raise BadInputError(
            f"scores must have shapes (P,) and (Q, M), not {same.shape} and {other.shape}"
        )
    eer = equal_error_rate(same, other)
    for fmr in fmrs:
        _check_fmr(fmr)
    draws, identities = resample_errors(
        ScoreSample(same, mated_labels),
        ScoreSample(other, non_mated_labels),
        [equal_error_rates, *(true_match_rates(fmr) for fmr in fmrs)],
        n_bootstrap,
        seed=seed,
    )
    if draws[0].size and np.ptp(draws[0]) > SAME:
        eer_interval = percentile_interval(eer, draws[0], confidence_level)
    else:
        eer_interval = wilson(eer * identities, identities, confidence_level)
    ranked = np.sort(other, axis=None)
    tmr = [
        unsupported_rate(fmr, other.size, "non-mated scores")
        or threshold_rate_interval(
            same > threshold_at(ranked, fmr), mated_labels, drawn, confidence_level
        )
        for fmr, drawn in zip(fmrs, draws[1:], strict=True)
    ]
    return VerificationIntervals(eer_interval, tmr)


def threshold_rate_interval(
    success: npt.ArrayLike, labels: Labels, draws: Floats, confidence_level: float
) -> Interval:
    """Rate at a threshold that other scores set, with its interval over identities.

    The bounds are the outer ones of two intervals: that of the rate at this very threshold, which
    is continuous from 0 to 1, and the percentiles of resamples, in which the threshold varies.

    Args:
        success: whether each score exceeds the threshold, or falls short of it, shape (P,).
        labels: identity of each of these scores, shape (P,).
        draws: the rate on resamples, shape (R,); may be empty.
        confidence_level: in (0, 1).
    """
    value, low, high = rate_interval(success, labels, confidence_level=confidence_level)
    if not draws.size:
        return Interval(value, low, high)
    drawn = percentile_interval(value, draws, confidence_level)
    return Interval(value, min(low, drawn.low), max(high, drawn.high))
