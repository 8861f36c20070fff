"""Confidence intervals over identities of means and of any other statistic of photographs.

Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile
interval, chapter 13; standard error, chapter 6).
"""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Interval, Labels, bootstrap_identities

Rows = npt.NDArray[np.int64]


def bootstrap_mean(
    values: npt.ArrayLike,
    identities: Labels,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of a value per photograph with its cluster-bootstrap interval over identities.

    It is :func:`cldmray.metrics.confidence.bootstrap_identities` for values of any range.

    Args:
        values: finite, shape (P,).
        identities, level, resamples, seed: see ``bootstrap_identities``.

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
    found = bootstrap_identities(share, identities, level, resamples, seed)
    return Interval(*(lowest + width * min(1.0, bound) for bound in found))


def bootstrap_statistic(
    statistic: Callable[[Rows], float],
    identities: Labels,
    level: float = 0.95,
    resamples: int = 100,
    seed: int = 0,
) -> Interval:
    """Any statistic of photographs with its normal bootstrap interval over identities.

    The bounds are the statistic plus and minus the normal quantile times its standard deviation
    over resamples of the identities: unlike percentiles, they are not shifted by the bias that
    distances of distributions have on resamples, where photographs repeat.

    Args:
        statistic: of the photographs in the given rows, which may repeat.
        identities: label of each photograph's identity, shape (P,).
        level: confidence level, in (0, 1).
        resamples: >= 2.
        seed: of the resamples.

    Raises:
        BadInputError: an argument is out of range.
    """
    if not 0 < level < 1 or resamples < 2 or not len(identities):
        raise BadInputError(
            f"level={level} must lie in (0, 1), resamples={resamples} be at least 2, and there "
            "must be an identity"
        )
    labels, codes = np.unique(np.asarray(identities), return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(
            np.concatenate([rows[code] for code in rng.integers(len(labels), size=len(rows))])
        )
        for _ in range(resamples)
    ]
    value = float(statistic(np.arange(len(codes))))
    half = NormalDist().inv_cdf(0.5 + level / 2) * float(np.std(drawn, ddof=1))
    return Interval(value, value - half, value + half)
