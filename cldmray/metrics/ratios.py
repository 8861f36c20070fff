"""Ratios of two success rates on the same probes, with bootstrap intervals over identities.

Sources: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile
interval, chapter 13); M. Giomi et al., "A Unified Framework for Quantifying Privacy Risk in
Synthetic Data", PoPETs 2023 (Anonymeter: attack against control).
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
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Rate of one success over the rate of another, for example the proxy share.

    Resamples in which only the denominator is 0 count as infinite, so the upper bound is infinite
    where they are more than (1 - level) / 2 of all; those in which both are 0 are left out. Where
    all others agree, at most a share u of identities, Wilson's upper bound of 0 in n, may differ,
    each by as much as [0, 1] allows: with rates a and b the bounds are then
    (1 - u) a / ((1 - u) b + u) and ((1 - u) a + u) / ((1 - u) b).

    Args:
        numerator, denominator: successes per probe in [0, 1], shape (P,); row i is the same
            probe in both.
        labels: identity of each probe, shape (P,).
        level: confidence level, in (0, 1).
        resamples: >= 1.
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
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    chance: float = 0.0,
) -> Interval:
    """Share of one success among the successes of two kinds, guesses taken off both.

    With rates A and B of the two, and A' = max(A - chance, 0), B' = max(B - chance, 0), the share
    is A' / (A' + B'). Of the condition swap: a is success for the person of the condition, b for
    the person of the starting latents; the share says whom the images look like. Resamples in
    which neither rate is above chance are left out. Where all others agree, Wilson's interval is
    returned, with n = number of identities that have a success.

    Args:
        a, b: successes per probe in [0, 1], shape (P,); row i is the same probe in both.
        labels, level, resamples, seed: see :func:`ratio_interval`.
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
    overs, unders = (np.maximum(one, 0) for one in _resampled(part, rest, n_bootstrap, seed))
    told = overs + unders > 0
    draws = overs[told] / (overs + unders)[told]
    if _same(draws):
        identities = int(np.count_nonzero(kinds.sum(axis=0)))
        return wilson(value * identities, identities, confidence_level)
    return percentile_interval(value, draws, confidence_level)


def residual_success(attack: float, control: float) -> float:
    """(attack - control) / (1 - control): what an attack wins of all it could win over a control.

    Args:
        attack: success rate of the attack, in [0, 1].
        control: success rate of the same attack where nothing can leak, in [0, 1).

    Returns:
        At most 1; 0 where the attack is no better than the control, negative where it is worse.

    Raises:
        BadInputError: a rate lies outside its range.
    """
    if not (0 <= attack <= 1 and 0 <= control < 1):
        raise BadInputError(
            f"attackers={attack} must lie in [0, 1] and control={control} in [0, 1): a control that "
            "always succeeds leaves nothing to win"
        )
    return (attack - control) / (1 - control)


def residual_success_interval(
    attack: npt.ArrayLike,
    control: npt.ArrayLike,
    labels: Labels,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """:func:`residual_success` of paired successes, with its interval over identities.

    It is 1 - (1 - attack) / (1 - control), one minus a ratio of failures, and takes its bounds
    from :func:`ratio_interval`; the lower one may therefore be ``-inf``.

    Args:
        attack, control: successes per probe in [0, 1], shape (P,); row i is the same probe.
        labels, level, resamples, seed: see :func:`ratio_interval`.

    Raises:
        BadInputError: the control succeeds for all probes; or see :func:`ratio_interval`.
    """
    won, free = check_paired(attack, control, confidence_level)
    value = residual_success(float(won.mean()), float(free.mean()))
    lost = ratio_interval(1 - won, 1 - free, labels, confidence_level, n_bootstrap, seed)
    return Interval(value, min(value, 1 - lost.high), max(value, 1 - lost.low))


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
    told = (over > 0) | (under > 0)
    ratios = np.full(len(over), np.inf)
    np.divide(over, under, out=ratios, where=under > 0)
    return ratios[told]


def _same(draws: Floats) -> bool:
    return not draws.size or bool(np.isfinite(draws).all() and np.ptp(draws) <= SAME)
