"""Confidence intervals of success rates: bootstrap over identities, and Wilson's interval.

Photographs of one person are not independent, so the unit that is resampled is the identity
with all its probes (cluster bootstrap), and the rate is a ratio of sums: successes over probes.

Sources: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile
interval, chapter 13); E. B. Wilson, "Probable inference, the law of succession, and statistical
inference", JASA 22, 1927; ISO/IEC 19795-1:2021 (uncertainty of estimates, test crews).
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]
"""Identity of each probe, shape (P,), any dtype that sorts."""

CELLS_PER_CHUNK = 4_000_000
CACHED_CELLS = 4_000_000
"""Draws of at most so many cells, at 4 bytes each, are kept; the last 24 of them at most."""

SAME = 1e-12
"""Rates of identities that differ by no more than this are the same but for rounding."""


class Interval(NamedTuple):
    """An estimate and its two-sided confidence interval, ``low <= value <= high``."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion of independent trials (Wilson 1927).

    Args:
        successes: in [0, trials]; fractions are allowed (ties broken at random).
        trials: independent trials, >= 1.
        level: confidence level, in (0, 1).

    Returns:
        Proportion and bounds in [0, 1]; never of zero width.

    Raises:
        BadInputError: an argument is out of range.
    """
    check_level(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise BadInputError(f"{successes} successes of {trials} trials are no proportion")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return Interval(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def bootstrap_identities(
    success: npt.ArrayLike,
    identities: Labels,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Rate of success over probes with its cluster-bootstrap interval over identities.

    The percentile interval of Efron & Tibshirani (1993). Where every identity has the same rate
    (all fail, all succeed, a single identity), resampling cannot vary and the interval would
    have no width; then Wilson's interval with n = number of identities is returned.

    Args:
        success: per probe in [0, 1], shape (P,); see
            :func:`cldmray.metrics.identification.success_at_rank`.
        identities: label of each probe's identity, shape (P,).
        level: confidence level, in (0, 1).
        resamples: bootstrap resamples, >= 1.
        seed: the result depends on the values and this seed, never on the order of probes.

    Returns:
        Share of probes in [0, 1] and its bounds.

    Raises:
        BadInputError: shapes differ, a value lies outside [0, 1], or an argument is out of range.
    """
    values = np.asarray(success, np.float64)
    if values.ndim != 1:
        raise BadInputError(f"success must have shape (P,), not {values.shape}")
    return bootstrap_columns(values[:, None], identities, level, resamples, seed)[0]


def bootstrap_columns(
    success: npt.ArrayLike,
    identities: Labels,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """:func:`bootstrap_identities` of several measures of the same probes at once.

    All columns see the same resamples, so a column's interval equals the one it has alone.

    Args:
        success: per probe and measure in [0, 1], shape (P, M).
        identities, level, resamples, seed: see :func:`bootstrap_identities`.

    Returns:
        One interval per column, length M.

    Raises:
        BadInputError: see :func:`bootstrap_identities`.
    """
    values = np.asarray(success, np.float64)
    _check_unit(values)
    sums, sizes = sums_by_identity(values, identities)
    draws = _resampled_rates(sums, sizes, level, resamples, seed)
    intervals = []
    for total, drawn in zip(sums, draws, strict=True):
        rates = total / sizes
        if np.ptp(rates) <= SAME:
            intervals.append(wilson(float(rates[0]) * len(sizes), len(sizes), level))
        else:
            value = float(total.sum() / sizes.sum())
            intervals.append(percentile_interval(value, drawn, level))
    return intervals


def paired_bootstrap(
    success_a: npt.ArrayLike,
    success_b: npt.ArrayLike,
    identities: Labels,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Difference of two rates (a - b) on the same probes, with its interval over identities.

    Where every identity has the same difference d, resampling cannot vary. Then at most a share
    u of identities, Wilson's upper bound of 0 in n, may differ from d, each by as much as the
    range [-1, 1] allows, and the interval is [(1 - u) d - u, (1 - u) d + u].

    Args:
        success_a, success_b: per probe in [0, 1], shape (P,); row i is the same probe in both.
        identities, level, resamples, seed: see :func:`bootstrap_identities`.

    Returns:
        Difference in [-1, 1] and its bounds.

    Raises:
        BadInputError: see :func:`bootstrap_identities`.
    """
    a, b = check_paired(success_a, success_b, level)
    sums, sizes = sums_by_identity((a - b)[:, None], identities)
    value = float(sums.sum() / sizes.sum())
    if np.ptp(sums[0] / sizes) <= SAME:
        unseen = wilson(0, len(sizes), level).high
        return Interval(value, (1 - unseen) * value - unseen, (1 - unseen) * value + unseen)
    draws = _resampled_rates(sums, sizes, level, resamples, seed)
    return percentile_interval(value, draws[0], level)


def check_level(level: float) -> None:
    """Raise ``BadInputError`` unless a confidence level lies in (0, 1)."""
    if not 0 < level < 1:
        raise BadInputError(f"confidence level must lie in (0, 1), not {level}")


def check_paired(a: npt.ArrayLike, b: npt.ArrayLike, level: float) -> tuple[Floats, Floats]:
    """Two successes of the same probes as arrays of shape (P,), with P >= 1.

    Raises:
        BadInputError: shapes differ, there is no probe, a value lies outside [0, 1], or ``level``
            outside (0, 1).
    """
    check_level(level)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise BadInputError(
            f"paired successes must share a shape (P,): {first.shape}, {second.shape}"
        )
    _check_unit(np.stack([first, second], axis=1))
    return first, second


def _check_unit(values: Floats) -> None:
    if values.ndim != 2 or values.size == 0:
        raise BadInputError(f"success must have shape (P, M) with P, M >= 1, not {values.shape}")
    if not (np.all(values >= 0) and np.all(values <= 1)):
        raise BadInputError("success must lie in [0, 1] for every probe")


def sums_by_identity(values: Floats, identities: Labels) -> tuple[Floats, Floats]:
    """Sums (M, I) of values (P, M), and probe counts (I,), per identity in sorted order of labels.

    Each sum is taken over sorted values, so that the order of probes changes no bit.
    """
    labels, codes = np.unique(np.asarray(identities), return_inverse=True)
    if codes.shape != (len(values),):
        raise BadInputError(f"identities must have shape ({len(values)},), not {codes.shape}")
    sizes = np.bincount(codes, minlength=len(labels))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    totals = [np.add.reduceat(column[np.lexsort((column, codes))], starts) for column in values.T]
    return np.stack(totals), sizes.astype(np.float64)


def _resampled_rates(
    sums: Floats, sizes: Floats, level: float, resamples: int, seed: int
) -> Floats:
    """Ratio of sums of each resample of identities with replacement, shape (M, resamples)."""
    check_level(level)
    blocks = []
    for counts in resampled_counts(len(sizes), resamples, seed):
        probes = np.einsum("ri,i->r", counts, sizes)
        blocks.append([np.einsum("ri,i->r", counts, total) / probes for total in sums])
    return np.concatenate(blocks, axis=1)


def resampled_counts(n: int, resamples: int, seed: int, width: int = 1) -> Iterator[Floats]:
    """How often each resample draws each of n identities, in blocks (r, n) that bound the memory.

    Args:
        n: identities, >= 1; each resample draws n of them with replacement.
        resamples: number of resamples, >= 1.
        seed: equal arguments give equal counts, also in blocks of another height.
        width: cells that the caller makes of each row; the blocks are lower where it exceeds n.

    Raises:
        BadInputError: ``resamples`` is below 1.
    """
    if resamples < 1:
        raise BadInputError(f"resamples must be at least 1, not {resamples}")
    rows = max(1, CELLS_PER_CHUNK // max(n, width))
    if n * resamples <= CACHED_CELLS:
        kept = _kept_draws(n, resamples, seed)
        yield from (
            kept[start : start + rows].astype(np.float64) for start in range(0, resamples, rows)
        )
        return
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        yield _draw(rng, n, min(rows, resamples - start)).astype(np.float64)


@lru_cache(maxsize=24)
def _kept_draws(n: int, resamples: int, seed: int) -> npt.NDArray[np.uint32]:
    return _draw(np.random.default_rng(seed), n, resamples).astype(np.uint32)


def _draw(rng: np.random.Generator, n: int, rows: int) -> npt.NDArray[np.int64]:
    return rng.multinomial(n, np.full(n, 1 / n), size=rows)


def percentile_interval(value: float, draws: Floats, level: float) -> Interval:
    """The value between the quantiles of its resamples, shape (R,), stretched to contain it."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))
