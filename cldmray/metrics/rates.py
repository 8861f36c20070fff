"""Confidence intervals of rates over identities, continuous from a rate of 0 to a rate of 1.

Images of one person are alike, so P images say less than P independent trials. How much less is
the *design effect*: the variance of the rate over identities, divided by that of a rate over
independent images. The interval is that of Clopper and Pearson at P / design effect trials, with
fewer degrees of freedom where there are few identities (Korn and Graubard). With one image of each
identity the design effect is 1, and Clopper and Pearson's own interval comes out.

The estimated design effect is unusable where there are few successes: with none it is not defined,
and with one it is 1, however much the images of a person depend on each other. It is therefore
drawn towards that of a correlation of ``PRIOR_CORRELATION`` within a person, which weighs as much
as ``PRIOR_IDENTITIES`` identities of whom something is known. No upper bound is lower than that of
no success at all on the same images, and no lower bound higher than that of successes only; so the
bounds do not fall where successes are added to none.

Coverage is simulated in ``benchmarks/error_rates.py``; the table is in
``docs/results/statistics.md``.

Sources: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in
the case of the binomial", Biometrika 26, 1934; E. L. Korn and B. I. Graubard, "Confidence
intervals for proportions with small expected number of positive counts estimated from survey
data", Survey Methodology 24, 1998; L. Kish, "Survey Sampling", 1965 (design effect).
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    Floats,
    Labels,
    check_confidence_level,
    check_unit,
    sums_by_identity,
)

PRIOR_CORRELATION = 0.5
"""Correlation of two images of one person that is assumed where the data do not tell."""
PRIOR_IDENTITIES = 7
"""Identities with a success, and with a failure, that weigh as much as the assumption."""


class Bounds(NamedTuple):
    """Bounds of several proportions, shape (M,) each, in [0, 1]."""

    low: Floats
    high: Floats


def rate_interval(
    success: npt.ArrayLike,
    identities: Labels,
    *,
    samples: Labels | None = None,
    weight: float = 1.0,
    confidence_level: float = 0.95,
) -> Interval:
    """Rate of success over probes with its interval over identities.

    Args:
        success: per probe in [0, 1], shape (P,); see
            :func:`cldmray.metrics.identification.success_at_rank`.
        identities: label of each probe's identity, shape (P,).
        samples: label of the image behind each probe, shape (P,); None: each has its own. Several
            probes of one image, as of several trainings of an attacker, count as their mean, since
            they make neither images nor people more numerous.
        weight: trials that each probe counts for, in (0, 1]: 1 / T where each of T trainings has
            probes of its own, such as its most confident claims.
        confidence_level: two-sided, in (0, 1); any other level costs nothing.

    Returns:
        Share of probes in [0, 1] and its bounds, which do not depend on the order of probes.

    Raises:
        BadInputError: shapes differ, a value lies outside [0, 1], or an argument is out of range.

    >>> rate_interval([0, 0, 0, 0], ["ann", "bob", "cat", "dan"]).high
    0.602...
    >>> rate_interval([0, 0, 0, 0], ["ann", "ann", "bob", "bob"]).high
    0.841...
    """
    values = np.asarray(success, np.float64)
    if values.ndim != 1:
        raise BadInputError(f"success must have shape (P,), not {values.shape}")
    return rate_intervals(
        values[:, None],
        identities,
        samples=samples,
        weight=weight,
        confidence_level=confidence_level,
    )[0]


def rate_intervals(
    success: npt.ArrayLike,
    identities: Labels,
    *,
    samples: Labels | None = None,
    weight: float = 1.0,
    confidence_level: float = 0.95,
) -> list[Interval]:
    """:func:`rate_interval` of several measures of the same probes at once.

    Args:
        success: per probe and measure in [0, 1], shape (P, M).
        identities, samples, weight, confidence_level: see :func:`rate_interval`.

    Returns:
        One interval per column, length M; each equals the one that the column has alone.

    Raises:
        BadInputError: see :func:`rate_interval`.
    """
    check_confidence_level(confidence_level)
    values = np.asarray(success, np.float64)
    check_unit(values)
    if samples is not None:
        values, identities = means_by_sample(values, identities, samples)
    if not 0 < weight <= 1:
        raise BadInputError(f"weight must lie in (0, 1], not {weight}")
    sums, sizes = (weight * part for part in sums_by_identity(values, identities))
    rates = np.minimum(1.0, sums.sum(1) / sizes.sum())
    # Trials that the probes are worth: (M,) with these successes, and with none at all.
    trials = effective_trials(rates, design_effects(sums, sizes), sizes, confidence_level)
    least = effective_trials(np.zeros(1), np.ones(1), sizes, confidence_level)
    bounds = clopper_pearson(rates * trials, trials, confidence_level)
    ceiling = clopper_pearson(np.zeros(1), least, confidence_level).high
    low = np.minimum(np.minimum(bounds.low, 1 - ceiling), rates)
    high = np.maximum(np.maximum(bounds.high, ceiling), rates)
    return [
        Interval(float(rate), float(lowest), float(highest))
        for rate, lowest, highest in zip(rates, low, high, strict=True)
    ]


def means_by_sample(
    values: Floats, identities: Labels, samples: Labels
) -> tuple[Floats, npt.NDArray[Any]]:
    """Mean of the probes of each image, (S, M), and whose it is, (S,).

    Args:
        values: shape (P, M).
        identities, samples: of each probe, shape (P,).

    >>> means_by_sample(np.array([[1.0], [0.0], [1.0]]), ["ann", "bob", "ann"], ["a", "b", "a"])
    (array([[1.],
           [0.]]), array(['ann', 'bob'], dtype='<U3'))
    """
    owners = np.asarray(identities)
    _, first, places, counts = np.unique(
        np.asarray(samples), return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(values):
        return values, owners
    sums = np.stack([np.bincount(places, weights=column) for column in values.T], axis=1)
    return sums / counts[:, None], owners[first]


def clopper_pearson(hits: Floats, trials: Floats, confidence_level: float = 0.95) -> Bounds:
    """Clopper and Pearson's exact bounds of proportions of independent trials (1934).

    ``scipy.stats.binomtest`` gives the same for whole numbers, and takes no others.

    Args:
        hits: in [0, trials], shape (M,); fractions are allowed.
        trials: > 0, shape (M,); fractions are allowed.
        confidence_level: in (0, 1).

    >>> clopper_pearson(np.array([0.0]), np.array([100.0])).high
    array([0.0362...])
    """
    tail = (1 - confidence_level) / 2
    missed = trials - hits
    # A beta distribution needs positive parameters; without a hit or a miss the bound is 0 or 1.
    low = special.betaincinv(np.where(hits > 0, hits, 1), missed + 1, tail)
    high = special.betaincinv(hits + 1, np.where(missed > 0, missed, 1), 1 - tail)
    return Bounds(np.where(hits > 0, low, 0.0), np.where(missed > 0, high, 1.0))


def design_effects(sums: Floats, sizes: Floats) -> Floats:
    """Variance of rates over identities, over that of rates over independent probes (Kish 1965).

    Args:
        sums: successes of each identity, shape (M, I).
        sizes: trials of each identity, > 0, shape (I,).

    Returns:
        Shape (M,), >= 0; 1 with one probe, failed or successful, of each identity, and where it is
        not defined: a single identity, no success or no failure.
    """
    n_identities, probes = len(sizes), sizes.sum()
    rates = sums.sum(1) / probes
    independent = rates * (1 - rates) / max(1, probes - 1)
    # (M, I) successes beyond what the rate expects: the linearized ratio of sums.
    beyond = sums - rates[:, None] * sizes
    clustered = (beyond**2).sum(1) / probes**2 * n_identities / max(1, n_identities - 1)
    effects: Floats = np.ones(len(sums))
    defined = (independent > 0) & (n_identities > 1)
    np.divide(clustered, independent, out=effects, where=defined)
    return effects


def effective_trials(
    rates: Floats, effects: Floats, sizes: Floats, confidence_level: float
) -> Floats:
    """Independent trials that the probes of identities are worth.

    Args:
        rates: in [0, 1], shape (M,).
        effects: see :func:`design_effects`, shape (M,).
        sizes: trials of each identity, > 0, shape (I,).
        confidence_level: in (0, 1).

    Returns:
        Shape (M,), in (0, P].
    """
    probes, n_identities = sizes.sum(), len(sizes)
    alike = (sizes**2).sum() / probes  # design effect where all images of a person agree
    # Identities with a success, or with a failure if those are fewer, were images independent.
    n_informative = np.minimum(
        -np.expm1(_log_power(1 - rates, sizes)).sum(1), -np.expm1(_log_power(rates, sizes)).sum(1)
    )
    prior = 1 + (alike - 1) * PRIOR_CORRELATION
    n_informative *= n_identities > 1  # one identity says nothing of its like
    weight = n_informative / (n_informative + PRIOR_IDENTITIES)
    trials = probes / np.maximum(1.0, weight * effects + (1 - weight) * prior)
    adjusted = trials * _fewer_degrees_of_freedom(probes, n_identities, confidence_level)
    worth: Floats = np.maximum(adjusted, np.minimum(trials, probes / alike))
    return worth


def _log_power(bases: Floats, exponents: Floats) -> Floats:
    """Logarithm of bases (M,) to the power of exponents (I,), shape (M, I); -inf for base 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(bases, 0.0))[:, None] * exponents


def _fewer_degrees_of_freedom(probes: float, n_identities: int, confidence_level: float) -> float:
    """Korn and Graubard's factor: squared ratio of t quantiles of probes and of identities."""
    if n_identities < 2:
        return 0.0
    if probes <= n_identities:
        return 1.0
    quantile = (1 + confidence_level) / 2
    of_probes, of_identities = special.stdtrit([probes - 1, n_identities - 1], quantile)
    return float((of_probes / of_identities) ** 2)
