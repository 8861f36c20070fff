"""Quantiles of a value per photograph, with confidence intervals over identities.

Source: R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", The American
Statistician 50(4), 1996 (definition 1, the inverse of the distribution function); B. Efron and
R. J. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval, chapter 13).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    Floats,
    Interval,
    Labels,
    check_level,
    percentile_interval,
    resampled_counts,
)

ROUNDING = 1e-9


def bootstrap_quantiles(
    values: npt.ArrayLike,
    identities: Labels,
    shares: Sequence[float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """Quantiles of values with their cluster-bootstrap intervals over identities.

    A quantile is the lowest value that at least a share of all photographs does not exceed
    (Hyndman & Fan's definition 1), so it is one of the values. Its interval has no width where
    all resamples agree, as they may for whole numbers.

    Args:
        values: one per photograph, finite, shape (P,).
        identities: label of each photograph's identity, shape (P,).
        shares: each in (0, 1], for example 0.5 for the median.
        level: confidence level, in (0, 1).
        resamples: >= 1.
        seed: the result depends on the values and this seed, never on the order of photographs.

    Returns:
        One interval per share, in the values' unit.

    Raises:
        BadInputError: the shapes differ, a value is not finite, or an argument is out of range.
    """
    check_level(level)
    array = np.asarray(values, np.float64)
    labels, codes = np.unique(np.asarray(identities), return_inverse=True)
    if array.ndim != 1 or array.shape != codes.shape or not array.size:
        raise BadInputError(f"values and identities must share a shape (P,): {array.shape}")
    if not np.isfinite(array).all() or not all(0 < share <= 1 for share in shares):
        raise BadInputError(f"values must be finite and shares in (0, 1], not {list(shares)}")
    order = np.argsort(array, kind="stable")
    array, codes = array[order], codes[order]
    found = _quantiles(array, np.ones((1, len(array))), shares)
    blocks = [
        _quantiles(array, counts[:, codes], shares)
        for counts in resampled_counts(len(labels), resamples, seed, width=len(array))
    ]
    draws = np.concatenate(blocks, axis=1)
    return [
        percentile_interval(float(value[0]), drawn, level)
        for value, drawn in zip(found, draws, strict=True)
    ]


def _quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> Floats:
    """Quantiles of sorted values (P,) under weights (R, P), shape (len(shares), R)."""
    total = np.cumsum(weights, axis=1)
    places = [(total < share * total[:, -1:] - ROUNDING).sum(1) for share in shares]
    return np.stack([values[place] for place in places])
