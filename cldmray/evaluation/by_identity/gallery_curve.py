"""Risk over the size of the gallery: among how many people is one found, and among more?

Up to the N candidates of the audit the expected rate in a random part of the gallery follows
exactly from the ranks. Beyond them it is extrapolated by the binormal model: the scores of a
probe's impostors are normal, and the true identity stands d standard deviations above their mean,
where d is normal over the probes. Mean and spread of d are fitted to the ranks by maximum
likelihood. The model gives the *ratio* of the rates at a larger size and at N, by which the
measured rate at N is multiplied. It assumes that further people are like those of the gallery, and
that scores have no heavier tails. An extrapolated row has no bounds.

Chance is measured at every size: the places of permuted identities are treated like ranks. In a
gallery t times as large as the audit's it is a t-th of that in the audit's, since further people
attract as many matches as these.

In simulations the rate among 1,000 people, extrapolated from 100, was within 10 % of its value:
``tests/evaluation/by_identity/test_gallery_curve.py``.

Sources: P. Grother and P. J. Phillips, "Models of large population recognition performance", CVPR
2004 (rates as binomial in the gallery's size, given the probe); D. D. Dorfman and E. Alf,
"Maximum-likelihood estimation of parameters of signal-detection theory", Journal of Mathematical
Psychology 6, 1969 (binormal model).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import Measured
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.chance import measured_places
from cldmray.metrics.identification import chance, success_in_smaller_gallery
from cldmray.metrics.rates import rate_intervals

Floats = npt.NDArray[np.float64]
STEPS = (2, 5, 10, 20, 50)
"""Sizes of galleries, and those ten, a hundred, ... times as large."""
EXTRAPOLATED = (10, 100)
"""Sizes beyond the gallery, in galleries."""
NODES = np.linspace(-6.0, 6.0, 241)
"""Standard normal quantiles at which the distribution over probes is evaluated."""
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
MEANS, LOG_SPREADS = (-6.0, 12.0), (-3.0, 3.0)
"""Limits of the fitted parameters."""


class Binormal(NamedTuple):
    """Standard deviations by which the true identity beats the mean impostor, over probes.

    Attributes:
        mean, spread: of the normal distribution.
    """

    mean: float
    spread: float

    def rate(self, size: int) -> float:
        """Probability that the true identity beats all others of a gallery, in (0, 1]."""
        beats_one = special.log_ndtr(self.mean + self.spread * NODES)
        return float(WEIGHTS @ np.exp((size - 1) * beats_one))


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

    Chance is 1/N of N candidates where only the ranks are known. The intervals are over identities,
    as if the same probes met random galleries of that size.
    """
    ranks, largest = attack.ranks, attack.ranks.gallery_size
    sizes = gallery_sizes(largest)
    success = [
        success_in_smaller_gallery(ranks.n_higher, ranks.n_tied, largest, size) for size in sizes
    ]
    rates = rate_intervals(
        np.stack(success, 1),
        ranks.identities,
        samples=ranks.sample_ids,
        confidence_level=settings.confidence_level,
    )
    chances = _chance_at_sizes(attack, sizes)
    curve = [
        SizedMeasure(Measured(_name(size), rate, by_chance), size)
        for size, rate, by_chance in zip(sizes, rates, chances, strict=True)
    ]
    shares = rate_ratios(
        ranks.n_higher + ranks.n_tied / 2, largest, [largest * times for times in EXTRAPOLATED]
    )
    for times, share in zip(EXTRAPOLATED, shares.tolist(), strict=True):
        size = largest * times
        by_chance = chances[-1] / times
        value = max(by_chance, rates[-1].value * share)
        reason = f"extrapolated from {largest} candidates, so there are no bounds"
        measured = Measured(_name(size), None, by_chance, reason=reason, estimate=value)
        curve.append(SizedMeasure(measured, size))
    return curve


def _chance_at_sizes(attack: AttackResult, sizes: Sequence[int]) -> list[float]:
    """Rank-1 rate with permuted identities in random galleries, up to the attack's own one."""
    if not attack.scores:
        return [chance(1, size) for size in sizes]
    places, largest = measured_places(attack.scores), attack.ranks.gallery_size
    higher, tied = np.arange(largest), np.zeros(largest, np.int64)
    return [
        min(1.0, float(places @ success_in_smaller_gallery(higher, tied, largest, size)))
        for size in sizes
    ]


def _name(size: int) -> str:
    return f"rank_1_at_gallery_{size}"


def rate_ratios(n_higher: Floats, gallery_size: int, sizes: Sequence[int]) -> Floats:
    """Rank-1 rates in larger galleries, as shares of that at ``gallery_size``, by the model.

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
    model = fit_binormal(n_higher, gallery_size - 1)
    rate = model.rate(gallery_size)
    return np.array([model.rate(size) / rate for size in sizes])


def fit_binormal(counts: Floats, trials: int) -> Binormal:
    """The binormal model of how many of some impostors beat each probe, by maximum likelihood.

    Args:
        counts: in 0..trials, shape (P,); halves are allowed.
        trials: >= 1.
    """
    values, weights = np.unique(counts, return_counts=True)

    def loss(parameters: Floats) -> float:
        # (V, nodes): log likelihood of each count that occurs, given the place of its probe.
        place = parameters[0] + np.exp(parameters[1]) * NODES
        terms = values[:, None] * special.log_ndtr(-place)
        terms = terms + (trials - values)[:, None] * special.log_ndtr(place)
        of_counts = special.logsumexp(terms, axis=1, b=WEIGHTS)
        return -float(weights @ of_counts) / float(weights.sum())

    fitted = optimize.minimize(
        loss, np.array([1.0, 0.0]), bounds=[MEANS, LOG_SPREADS], method="L-BFGS-B"
    )
    return Binormal(float(fitted.x[0]), float(np.exp(fitted.x[1])))
