"""Risk over the size of the gallery: among how many people is one found, and among more?

Up to the N candidates of the audit the expected rate in a random part of the gallery follows
exactly from the ranks. Beyond them it is extrapolated: the share of strangers who score above the
true identity differs from probe to probe, and is taken to follow a beta distribution, fitted to the
ranks by maximum likelihood (beta-binomial). That distribution gives the *ratio* of the rates at a
larger size and at N, by which the measured rate at N is multiplied. It assumes that further people
are like those of the gallery. An extrapolated row has no bounds.

Source of the model: P. Grother and P. J. Phillips, "Models of large population recognition
performance", CVPR 2004 (rates as binomial in the gallery's size, given the probe's share of higher
impostors).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import Measured
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.metrics.identification import chance, success_in_smaller_gallery
from cldmray.metrics.rates import rate_intervals

Floats = npt.NDArray[np.float64]
STEPS = (2, 5, 10, 20, 50)
"""Sizes of galleries, and those ten, a hundred, ... times as large."""
EXTRAPOLATED = (10, 100)
"""Sizes beyond the gallery, in galleries."""
SMALLEST_SHAPE, LARGEST_SHAPE = 1e-3, 1e3
"""Limits of the parameters of the beta distribution."""


class SizedMeasure(NamedTuple):
    """The rank-1 rate in a gallery of some size."""

    measured: Measured
    gallery_size: int


def gallery_sizes(largest: int) -> list[int]:
    """2, 5, 10, 20, 50, 100, 200, ... below the largest, and the largest.

    >>> gallery_sizes(120)
    [2, 5, 10, 20, 50, 100, 120]
    """
    sizes = {
        size * 10**power
        for power in range(len(str(largest)))
        for size in (1, *STEPS)
        if 1 < size * 10**power < largest
    }
    return sorted({*sizes, largest})


def gallery_curve(attack: AttackResult, settings: EvaluationSettings) -> list[SizedMeasure]:
    """``rank_1_at_gallery_2``, ``_5``, ... up to the gallery's size, and extrapolated beyond.

    The intervals are over identities, as if the same probes met random galleries of that size.
    """
    ranks, largest = attack.ranks, attack.ranks.gallery_size
    sizes = gallery_sizes(largest)
    success = [
        success_in_smaller_gallery(ranks.n_higher, ranks.n_tied, largest, size) for size in sizes
    ]
    rates = rate_intervals(
        np.stack(success, 1), ranks.identities, confidence_level=settings.confidence_level
    )
    curve = [
        SizedMeasure(Measured(_name(size), rate, chance(1, size)), size)
        for size, rate in zip(sizes, rates, strict=True)
    ]
    shares = rate_ratios(
        ranks.n_higher + ranks.n_tied / 2, largest, [largest * times for times in EXTRAPOLATED]
    )
    for times, share in zip(EXTRAPOLATED, shares.tolist(), strict=True):
        size = largest * times
        value = max(chance(1, size), rates[-1].value * share)
        reason = f"extrapolated from {largest} candidates, so there are no bounds"
        measured = Measured(_name(size), None, chance(1, size), reason=reason, estimate=value)
        curve.append(SizedMeasure(measured, size))
    return curve


def _name(size: int) -> str:
    return f"rank_1_at_gallery_{size}"


def rate_ratios(n_higher: Floats, gallery_size: int, sizes: Sequence[int]) -> Floats:
    """Rank-1 rates in larger galleries, as shares of that at ``gallery_size``, by the fitted model.

    Args:
        n_higher: candidates that score above the true identity, ties by half, shape (P,).
        gallery_size: N >= 2 candidates.
        sizes: at least N, shape (S,).

    Returns:
        Shape (S,), in (0, 1].

    >>> never_beaten = np.zeros(100)
    >>> rate_ratios(never_beaten, 100, [1000]).round(2)
    array([1.])
    """
    a, b = fit_beta_binomial(n_higher, gallery_size - 1)
    log_rate = special.betaln(a, b + np.array([gallery_size, *sizes]) - 1.0)
    ratios: Floats = np.exp(log_rate[1:] - log_rate[0])
    return ratios


def fit_beta_binomial(counts: Floats, trials: int) -> tuple[float, float]:
    """Shapes of the beta distribution of the share behind some counts, by maximum likelihood.

    Args:
        counts: in 0..trials, shape (P,); halves are allowed.
        trials: >= 1.
    """
    values, weights = np.unique(counts, return_counts=True)

    def loss(log_shapes: Floats) -> float:
        a, b = np.exp(log_shapes)
        terms = special.betaln(values + a, trials - values + b) - special.betaln(a, b)
        return -float(weights @ terms) / float(weights.sum())

    limits = [(np.log(SMALLEST_SHAPE), np.log(LARGEST_SHAPE))] * 2
    fitted = optimize.minimize(loss, np.zeros(2), bounds=limits, method="L-BFGS-B")
    a, b = np.exp(fitted.x)
    return float(a), float(b)
