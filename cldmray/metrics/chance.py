"""Whether attacks identify people more often than chance, where chance is measured.

Chance is what the same attack reaches with the identities of the probes permuted: the probe's
identity is replaced by that of a probe drawn at random, so by the identities' frequencies. It is
1/N only where all identities have as many references and as many probes: a person with many
references attracts matches, and is probed more often as well.

Sources: A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application", 1997
(influence values, chapter 2); P. H. Westfall and S. S. Young, "Resampling-Based Multiple Testing",
1993 (the largest of several statistics); C. J. Clopper and E. S. Pearson, Biometrika 26, 1934.
The error rates of
:func:`simultaneous_excess` under the null are simulated in ``tests/metrics/test_chance.py``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Labels, check_confidence_level, resampled_counts

Floats = npt.NDArray[np.float64]
NO_SPREAD = 1e-9
"""Standard errors of rates up to this are rounding."""


def permutation_excess(
    success: npt.ArrayLike, permuted: npt.ArrayLike, attraction: npt.ArrayLike
) -> Floats:
    """What each probe adds to the difference success - permuted success.

    The mean over probes is that difference. The spread over identities is that of the difference,
    too: an identity acts as a probe, and as a candidate that attracts the probes of others. The
    second part, attraction - mean attraction, has mean 0 over the probes.

    Args:
        success: per probe, probability that its identity is ranked first, shape (P,).
        permuted: per probe, the same with its identity replaced by that of another probe: the share
            of all probes that belong to its best candidate, shape (P,).
        attraction: per probe, share of all probes whose best candidate is its identity, (P,).

    Returns:
        Shape (P,), values in [-2, 2].

    >>> permutation_excess([1, 1, 0], [2 / 3, 2 / 3, 1 / 3], [2 / 3, 2 / 3, 1 / 3]).round(3)
    array([ 0.222,  0.222, -0.111])
    """
    hits, chance, attracted = (
        np.asarray(part, np.float64) for part in (success, permuted, attraction)
    )
    excess: Floats = hits - chance - (attracted - attracted.mean())
    return excess


def simultaneous_excess(
    excess: Sequence[npt.ArrayLike],
    identities: Sequence[Labels],
    chances: Sequence[float],
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """Means over probes of several attacks' excess, with bounds that hold for all at once.

    Each mean is divided by its standard error over identities. The bootstrap over identities yields
    the distribution of the largest and of the lowest deviation of all attacks; their quantiles,
    carried over to Student's t with the attack's identities, are the standard errors by which the
    bounds differ from each mean. Attacks that are alike cost nothing, unlike with Bonferroni's
    bounds.

    Few identities cannot prove much, however alike they are: a share u of all identities, the upper
    bound of none in n (Clopper-Pearson at Bonferroni's level), may fail though none of n does. So
    ``low`` is at most (1 - u) rate - chance, and ``high`` at least (1 - u) rate + u - chance.

    Args:
        excess: of each attack, per probe, see :func:`permutation_excess`; shapes (P_m,).
        identities: of each attack, label of each probe's identity, of the same shapes.
        chances: of each attack, rate with permuted identities, in [0, 1].
        confidence_level: of all intervals together, in (0, 1); each side errs in half of
            1 - confidence_level of the audits.
        n_bootstrap: resamples, >= 1.
        seed: of the resamples.

    Returns:
        One interval an attack. The attack is above chance where ``low`` is above 0.

    Raises:
        BadInputError: there is no probe, shapes differ, or an argument is out of range.

    >>> hits, identities = np.repeat([1.0, 0.0], [30, 10]), np.arange(40)
    >>> (interval,) = simultaneous_excess([hits - 0.025], [identities], [0.025])
    >>> round(interval.value, 3), interval.low > 0.5
    (0.725, True)
    """
    check_confidence_level(confidence_level)
    if not len(excess):
        return []
    sums, sizes = _sums(excess, identities)
    # All arrays below have a row for each attack; those of identities a column for each, (M, I).
    means = sums.sum(1) / sizes.sum(1)
    n = np.count_nonzero(sizes, axis=1)
    squares = ((sums - means[:, None] * sizes) ** 2).sum(1)
    errors = np.sqrt(squares * n / np.maximum(n - 1, 1)) / sizes.sum(1)
    lowest, highest = _extreme_deviations(
        sums, sizes, means, errors, n_bootstrap=n_bootstrap, seed=seed
    )
    tail = (1 - confidence_level) / 2
    upper, lower = np.quantile(highest, 1 - tail), np.quantile(lowest, tail)
    above, below = (
        stdtrit(np.maximum(n - 1, 1), ndtr(deviation)) * errors for deviation in (upper, lower)
    )
    chance = np.asarray(chances, np.float64)
    rates = means + chance
    unseen = 1 - (tail / len(means)) ** (1 / n)
    low = np.minimum(means - above, (1 - unseen) * rates - chance)
    high = np.maximum(means - below, (1 - unseen) * rates + unseen - chance)
    return [
        Interval(float(mean), max(-1.0, float(bottom)), min(1.0, float(top)))
        for mean, bottom, top in zip(means, low, high, strict=True)
    ]


def _sums(excess: Sequence[npt.ArrayLike], identities: Sequence[Labels]) -> tuple[Floats, Floats]:
    """Sums of the excess and numbers of probes by identity, (M, I), of all attacks' identities."""
    labels = np.unique(np.concatenate([np.unique(np.asarray(part)) for part in identities]))
    sums, sizes = np.zeros((2, len(excess), len(labels)))
    for row, (values, owners) in enumerate(zip(excess, identities, strict=True)):
        array = np.asarray(values, np.float64)
        if array.ndim != 1 or not array.size or array.shape != np.shape(owners):
            raise BadInputError(
                f"excess {array.shape} and identities {np.shape(owners)} must share a shape (P,), "
                "with P >= 1"
            )
        codes = np.searchsorted(labels, np.asarray(owners))
        sums[row] = np.bincount(codes, weights=array, minlength=len(labels))
        sizes[row] = np.bincount(codes, minlength=len(labels))
    return sums, sizes


def _extreme_deviations(
    sums: Floats, sizes: Floats, means: Floats, errors: Floats, *, n_bootstrap: int, seed: int
) -> tuple[Floats, Floats]:
    """Lowest and highest deviation of all attacks in each resample, in standard errors, (R,)."""
    lowest, highest = [], []
    for counts in resampled_counts(sums.shape[1], n_bootstrap, seed, 2 * len(sums)):
        # (r, M): mean over each resample. One without an attack's people, or an attack without
        # spread, says nothing.
        with np.errstate(divide="ignore", invalid="ignore"):
            deviations = ((counts @ sums.T) / (counts @ sizes.T) - means) / errors
        deviations = np.where(np.isfinite(deviations) & (errors > NO_SPREAD), deviations, 0.0)
        lowest.append(deviations.min(1))
        highest.append(deviations.max(1))
    return np.concatenate(lowest), np.concatenate(highest)
