"""Confidence intervals over identities: of rates, means, quantiles and any other statistic.

Images of one person are not independent, so the unit that is resampled is the identity
with all its probes (cluster bootstrap), and a rate is a ratio of sums: successes over probes.

Sources: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile
interval, chapter 13; standard error, chapter 6); E. B. Wilson, "Probable inference, the law of
succession, and statistical inference", JASA 22, 1927; R. J. Hyndman and Y. Fan, "Sample Quantiles
in Statistical Packages", The American Statistician 50(4), 1996 (definition 1, the inverse of the
distribution function); ISO/IEC 19795-1:2021 (uncertainty of estimates, test crews).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.errors import BadInputError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]
"""Identity of each probe, shape (P,), any dtype that sorts."""


class Unsupported(NamedTuple):
    """A measure that the comparisons cannot support.

    Attributes:
        reason: why, in one sentence.
    """

    reason: str


Rows = npt.NDArray[np.int64]
"""Rows of images, which may repeat."""
CELLS_PER_CHUNK = 4_000_000
"""Cells of a block of resamples that are held in memory at once."""
CACHED_CELLS = 4_000_000
"""Draws of at most so many cells, at 4 bytes each, are kept; the last 24 of them at most."""
SAME = 1e-12
"""Rates of identities that differ by no more than this are the same but for rounding."""
ROUNDING = 1e-9
"""Sums of weights that fall short of a share by no more than this reach it but for rounding."""


def wilson(successes: float, trials: int, confidence_level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion of independent trials (Wilson 1927).

    ``scipy.stats.binomtest`` gives the same for whole numbers, and takes no others.

    Args:
        successes: in [0, trials]; fractions are allowed (ties broken at random).
        trials: independent trials, >= 1.
        confidence_level: in (0, 1).

    Returns:
        Proportion and bounds in [0, 1]; never of zero width.

    Raises:
        BadInputError: an argument is out of range.

    >>> wilson(0, trials=100).high
    0.03699...
    """
    check_confidence_level(confidence_level)
    if trials < 1 or not 0 <= successes <= trials:
        raise BadInputError(f"{successes} successes of {trials} trials are no proportion")
    z = NormalDist().inv_cdf(0.5 + confidence_level / 2)
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return Interval(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def bootstrap_identities(
    success: npt.ArrayLike,
    identities: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
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
        confidence_level: in (0, 1).
        n_bootstrap: bootstrap resamples, >= 1.
        seed: the result depends on the values and this seed, never on the order of probes.

    Returns:
        Share of probes in [0, 1] and its bounds.

    Raises:
        BadInputError: shapes differ, a value lies outside [0, 1], or an argument is out of range.

    >>> bootstrap_identities([1, 1, 0, 0], ["ann", "ann", "bob", "cat"], n_bootstrap=100)
    Interval(value=0.5, low=0.0, high=1.0)
    """
    values = np.asarray(success, np.float64)
    if values.ndim != 1:
        raise BadInputError(f"success must have shape (P,), not {values.shape}")
    return bootstrap_columns(
        values[:, None],
        identities,
        confidence_level=confidence_level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )[0]


def bootstrap_columns(
    success: npt.ArrayLike,
    identities: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """:func:`bootstrap_identities` of several measures of the same probes at once.

    All columns see the same resamples, so a column's interval equals the one it has alone.

    Args:
        success: per probe and measure in [0, 1], shape (P, M).
        identities, confidence_level, n_bootstrap, seed: see :func:`bootstrap_identities`.

    Returns:
        One interval per column, length M.

    Raises:
        BadInputError: see :func:`bootstrap_identities`.
    """
    values = np.asarray(success, np.float64)
    check_unit(values)
    sums, sizes = sums_by_identity(values, identities)
    draws = _resampled_rates(sums, sizes, confidence_level, n_bootstrap, seed)
    intervals = []
    for total, drawn in zip(sums, draws, strict=True):
        rates = total / sizes
        if np.ptp(rates) <= SAME:
            intervals.append(wilson(float(rates[0]) * len(sizes), len(sizes), confidence_level))
        else:
            value = float(total.sum() / sizes.sum())
            intervals.append(percentile_interval(value, drawn, confidence_level))
    return intervals


def paired_bootstrap(
    success_a: npt.ArrayLike,
    success_b: npt.ArrayLike,
    identities: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Difference of two rates (a - b) on the same probes, with its interval over identities.

    Where every identity has the same difference d, resampling cannot vary. Then at most a share
    u of identities, Wilson's upper bound of 0 in n, may differ from d, each by as much as the
    range [-1, 1] allows, and the interval is [(1 - u) d - u, (1 - u) d + u].

    Args:
        success_a, success_b: per probe in [0, 1], shape (P,); row i is the same probe in both.
        identities, confidence_level, n_bootstrap, seed: see :func:`bootstrap_identities`.

    Returns:
        Difference in [-1, 1] and its bounds.

    Raises:
        BadInputError: see :func:`bootstrap_identities`.
    """
    a, b = check_paired(success_a, success_b, confidence_level)
    sums, sizes = sums_by_identity((a - b)[:, None], identities)
    value = float(sums.sum() / sizes.sum())
    if np.ptp(sums[0] / sizes) <= SAME:
        unseen = wilson(0, len(sizes), confidence_level).high
        return Interval(value, (1 - unseen) * value - unseen, (1 - unseen) * value + unseen)
    draws = _resampled_rates(sums, sizes, confidence_level, n_bootstrap, seed)
    return percentile_interval(value, draws[0], confidence_level)


def check_confidence_level(confidence_level: float) -> None:
    """Raise ``BadInputError`` unless a confidence level lies in (0, 1)."""
    if not 0 < confidence_level < 1:
        raise BadInputError(f"confidence_level must lie in (0, 1), not {confidence_level}")


def check_paired(
    a: npt.ArrayLike, b: npt.ArrayLike, confidence_level: float
) -> tuple[Floats, Floats]:
    """Two successes of the same probes as arrays of shape (P,), with P >= 1.

    Raises:
        BadInputError: shapes differ, there is no probe, a value lies outside [0, 1], or
            ``confidence_level`` outside (0, 1).
    """
    check_confidence_level(confidence_level)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise BadInputError(
            f"paired successes must share a shape (P,): {first.shape}, {second.shape}"
        )
    check_unit(np.stack([first, second], axis=1))
    return first, second


def check_unit(values: Floats) -> None:
    """Raise ``BadInputError`` unless values have shape (P, M), P, M >= 1, and lie in [0, 1]."""
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
    sums: Floats, sizes: Floats, confidence_level: float, n_bootstrap: int, seed: int
) -> Floats:
    """Ratio of sums of each resample of identities with replacement, shape (M, resamples)."""
    check_confidence_level(confidence_level)
    blocks = []
    for counts in resampled_counts(len(sizes), n_bootstrap, seed):
        probes = np.einsum("ri,i->r", counts, sizes)
        blocks.append([np.einsum("ri,i->r", counts, total) / probes for total in sums])
    return np.concatenate(blocks, axis=1)


def resampled_counts(n: int, n_bootstrap: int, seed: int, width: int = 1) -> Iterator[Floats]:
    """How often each resample draws each of n identities, in blocks (r, n) that bound the memory.

    Args:
        n: identities, >= 1; each resample draws n of them with replacement.
        n_bootstrap: number of resamples, >= 1.
        seed: equal arguments give equal counts, also in blocks of another height.
        width: cells that the caller makes of each row; the blocks are lower where it exceeds n.

    Raises:
        BadInputError: ``n_bootstrap`` is below 1.
    """
    if n_bootstrap < 1:
        raise BadInputError(f"n_bootstrap must be at least 1, not {n_bootstrap}")
    rows = max(1, CELLS_PER_CHUNK // max(n, width))
    if n * n_bootstrap <= CACHED_CELLS:
        kept = _kept_draws(n, n_bootstrap, seed)
        yield from (
            kept[start : start + rows].astype(np.float64) for start in range(0, n_bootstrap, rows)
        )
        return
    rng = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, rows):
        yield _draw(rng, n, min(rows, n_bootstrap - start)).astype(np.float64)


@lru_cache(maxsize=24)
def _kept_draws(n: int, n_bootstrap: int, seed: int) -> npt.NDArray[np.uint32]:
    return _draw(np.random.default_rng(seed), n, n_bootstrap).astype(np.uint32)


def _draw(rng: np.random.Generator, n: int, rows: int) -> npt.NDArray[np.int64]:
    return rng.multinomial(n, np.full(n, 1 / n), size=rows)


def percentile_interval(value: float, draws: Floats, confidence_level: float) -> Interval:
    """The value between the quantiles of its resamples, shape (R,), stretched to contain it."""
    low, high = np.quantile(draws, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def bootstrap_mean(
    values: npt.ArrayLike,
    identities: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of a value per image with its cluster-bootstrap interval over identities.

    It is :func:`cldmray.metrics.confidence.bootstrap_identities` for values of any range.

    Args:
        values: finite, shape (P,).
        identities, confidence_level, n_bootstrap, seed: see ``bootstrap_identities``.

    Returns:
        Mean and bounds in the values' unit; of zero width only where all values are the same.

    Raises:
        BadInputError: the shapes differ, a value is not finite, or an argument is out of range.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise BadInputError("values must be finite and of shape (P,) with P >= 1")
    lowest, width = float(array.min()), float(np.ptp(array))
    share = (array - lowest) / width if width > 0 else np.zeros_like(array)
    interval = bootstrap_identities(
        share, identities, confidence_level=confidence_level, n_bootstrap=n_bootstrap, seed=seed
    )
    return Interval(*(lowest + width * min(1.0, bound) for bound in interval))


def bootstrap_statistic(
    statistic: Callable[[Rows], float],
    identities: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Interval:
    """Any statistic of images with its normal bootstrap interval over identities.

    The bounds are the statistic plus and minus the normal quantile times its standard deviation
    over resamples of the identities: unlike percentiles, they are not shifted by the bias that
    distances of distributions have on resamples, where images repeat.

    Args:
        statistic: of the images in the given rows, which may repeat.
        identities: label of each image's identity, shape (P,).
        confidence_level: in (0, 1).
        n_bootstrap: >= 2.
        seed: of the resamples.

    Raises:
        BadInputError: an argument is out of range.
    """
    if not 0 < confidence_level < 1 or n_bootstrap < 2 or not len(identities):
        raise BadInputError(
            f"confidence_level={confidence_level} must lie in (0, 1), n_bootstrap={n_bootstrap} be "
            "at least 2, and there must be an identity"
        )
    labels, codes = np.unique(np.asarray(identities), return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(
            np.concatenate([rows[code] for code in rng.integers(len(labels), size=len(rows))])
        )
        for _ in range(n_bootstrap)
    ]
    value = float(statistic(np.arange(len(codes))))
    half = NormalDist().inv_cdf(0.5 + confidence_level / 2) * float(np.std(drawn, ddof=1))
    return Interval(value, value - half, value + half)


def bootstrap_quantiles(
    values: npt.ArrayLike,
    identities: Labels,
    shares: Sequence[float],
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """Quantiles of values with their cluster-bootstrap intervals over identities.

    A quantile is the lowest value that at least a share of all images does not exceed
    (Hyndman & Fan's definition 1), so it is one of the values. Its interval has no width where
    all resamples agree, as they may for whole numbers.

    Args:
        values: one per image, finite, shape (P,).
        identities: label of each image's identity, shape (P,).
        shares: each in (0, 1], for example 0.5 for the median.
        confidence_level: in (0, 1).
        n_bootstrap: >= 1.
        seed: the result depends on the values and this seed, never on the order of images.

    Returns:
        One interval per share, in the values' unit.

    Raises:
        BadInputError: the shapes differ, a value is not finite, or an argument is out of range.
    """
    check_confidence_level(confidence_level)
    array = np.asarray(values, np.float64)
    labels, codes = np.unique(np.asarray(identities), return_inverse=True)
    if array.ndim != 1 or array.shape != codes.shape or not array.size:
        raise BadInputError(f"values and identities must share a shape (P,): {array.shape}")
    if not np.isfinite(array).all() or not all(0 < share <= 1 for share in shares):
        raise BadInputError(f"values must be finite and shares in (0, 1], not {list(shares)}")
    order = np.argsort(array, kind="stable")
    array, codes = array[order], codes[order]
    quantiles = _quantiles(array, np.ones((1, len(array))), shares)
    blocks = [
        _quantiles(array, counts[:, codes], shares)
        for counts in resampled_counts(len(labels), n_bootstrap, seed, width=len(array))
    ]
    draws = np.concatenate(blocks, axis=1)
    return [
        percentile_interval(float(value[0]), drawn, confidence_level)
        for value, drawn in zip(quantiles, draws, strict=True)
    ]


def _quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> Floats:
    """Quantiles of sorted values (P,) under weights (R, P), shape (len(shares), R)."""
    total = np.cumsum(weights, axis=1)
    places = [(total < share * total[:, -1:] - ROUNDING).sum(1) for share in shares]
    return np.stack([values[place] for place in places])
