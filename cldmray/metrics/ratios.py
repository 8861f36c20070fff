"""Ratios of two success rates on the same probes, with bootstrap intervals over identities.

Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile
interval, chapter 13).
"""

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    SAME,
    Floats,
    Labels,
    check_paired,
    percentile_interval,
    resampled_counts,
    sums_by_identity,
    wilson,
)


def ratio_interval(
    numerator: npt.ArrayLike,
    denominator: npt.ArrayLike,
    labels: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Rate of one success over the rate of another, for example the proxy share.

    Resamples in which only the denominator is 0 count as infinite, so the upper bound is infinite
    where they are more than (1 - confidence_level) / 2 of all; those in which both are 0 are left
    out. Where all others agree, at most a share u of identities, Wilson's upper bound of 0 in n,
    may differ, each by as much as [0, 1] allows: with rates a and b the bounds are then
    (1 - u) a / ((1 - u) b + u) and ((1 - u) a + u) / ((1 - u) b).

    Args:
        numerator, denominator: successes per probe in [0, 1], shape (P,); row i is the same
            probe in both.
        labels: identity of each probe, shape (P,).
        confidence_level: in (0, 1).
        n_bootstrap: >= 1.
        seed: the result depends on the values and this seed, never on the order of probes.

    Returns:
        Ratio >= 0 and its bounds; the upper one may be ``inf``.

    Raises:
        BadInputError: the denominator is 0 for all probes, shapes differ, a value lies outside
            [0, 1], or an argument is out of range.
    """
    a, b = check_paired(numerator, denominator, confidence_level)
    if not b.any():
        raise BadInputError("a ratio needs a denominator above 0: no probe succeeds there")
    (top, bottom), sizes = sums_by_identity(np.stack([a, b], 1), labels)
    value = float(top.sum() / bottom.sum())
    draws = _resampled_ratios(top, bottom, n_bootstrap, seed)
    if _same(draws):
        unseen = wilson(0, len(sizes), confidence_level).high
        rate_a, rate_b = ((1 - unseen) * part.sum() / sizes.sum() for part in (top, bottom))
        low, high = float(rate_a / (rate_b + unseen)), float((rate_a + unseen) / rate_b)
        return Interval(value, low, high)
    tails = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    low, high = (float(bound) for bound in np.quantile(draws, tails, method="inverted_cdf"))
    return Interval(value, min(low, value), max(high, value))


def share_interval(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    labels: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    chance: float = 0.0,
) -> Interval:
    """Share of one success among the successes of two kinds, chance taken off both.

    With rates A and B of the two, and A' = max(A - chance, 0), B' = max(B - chance, 0), the share
    is A' / (A' + B'). Of the condition swap: a is success for the person of the condition, b for
    the person of the starting latents; the share says whom the images look like. Resamples in
    which neither rate is above chance are left out. Where all others agree, Wilson's interval is
    returned, with n = number of identities that have a success.

    Args:
        a, b: successes per probe in [0, 1], shape (P,); row i is the same probe in both.
        labels, confidence_level, n_bootstrap, seed: see :func:`ratio_interval`.
        chance: rate of either by chance, in [0, 1).

    Returns:
        Share in [0, 1] and its bounds.

    Raises:
        BadInputError: neither rate is above chance; or see :func:`ratio_interval`.
    """
    if not 0 <= chance < 1:
        raise BadInputError(f"chance must lie in [0, 1), not {chance}")
    first, second = check_paired(a, b, confidence_level)
    kinds, sizes = sums_by_identity(np.stack([first, second], 1), labels)
    part, rest = kinds - chance * sizes
    over, under = (max(float(kind.sum()), 0.0) for kind in (part, rest))
    if not over + under > 0:
        raise BadInputError("a share needs a success of either kind, and none is above chance")
    value = over / (over + under)
    overs, unders = (np.maximum(sums, 0) for sums in _resampled(part, rest, n_bootstrap, seed))
    defined = overs + unders > 0
    draws = overs[defined] / (overs + unders)[defined]
    if _same(draws):
        identities = int(np.count_nonzero(kinds.sum(axis=0)))
        return wilson(value * identities, identities, confidence_level)
    return percentile_interval(value, draws, confidence_level)


def _resampled(a: Floats, b: Floats, n_bootstrap: int, seed: int) -> tuple[Floats, Floats]:
    """Sums of both over each resample of identities, shape (resamples,)."""
    counts = list(resampled_counts(len(a), n_bootstrap, seed))
    first, second = (
        np.concatenate([np.einsum("ri,i->r", c, part) for c in counts]) for part in (a, b)
    )
    return first, second


def _resampled_ratios(top: Floats, bottom: Floats, n_bootstrap: int, seed: int) -> Floats:
    """Ratio of each resample of identities, inf for a / 0; those of 0 / 0 are left out."""
    over, under = _resampled(top, bottom, n_bootstrap, seed)
    defined = (over > 0) | (under > 0)
    ratios = np.full(len(over), np.inf)
    np.divide(over, under, out=ratios, where=under > 0)
    return ratios[defined]


def _same(draws: Floats) -> bool:
    return not draws.size or bool(np.isfinite(draws).all() and np.ptp(draws) <= SAME)
