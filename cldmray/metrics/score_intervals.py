"""Intervals of verification measures: exact values, bounds by bootstrap over identities.

Source: ISO/IEC 19795-1:2021 (false match rate, false non-match rate, uncertainty of estimates);
:mod:`cldmray.metrics.resampled_errors` says how the resamples are computed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    SAME,
    Floats,
    Interval,
    Labels,
    check_level,
    percentile_interval,
    wilson,
)
from cldmray.metrics.resampled_errors import (
    Sample,
    equal_error_rates,
    resample_errors,
    true_match_rates,
)
from cldmray.metrics.verification import equal_error_rate, tmr_at_fmr


class VerificationIntervals(NamedTuple):
    """Attributes:
    equal_error_rate: see :func:`cldmray.metrics.verification.equal_error_rate`.
    tmr: one interval per false match rate asked for, of
        :func:`cldmray.metrics.verification.tmr_at_fmr`.
    """

    equal_error_rate: Interval
    tmr: list[Interval]


def verification_intervals(
    mated: npt.ArrayLike,
    mated_labels: Labels,
    non_mated: npt.ArrayLike,
    non_mated_labels: Labels,
    fmrs: Sequence[float] = (1e-2, 1e-3),
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> VerificationIntervals:
    """Equal error rate and true match rates with their intervals, all from the same resamples.

    The values are exact; the bounds are percentiles over resamples of the identities of probes
    (Efron & Tibshirani 1993), whose thresholds come from a grid. Each probe takes all its scores
    along, so the bounds say how sure the rates are for other probes against the same gallery.
    Where all resamples agree (perfect separation, one identity, all identities equal), Wilson's
    interval with n = number of identities is returned, as for rates of identification.

    Args:
        mated: scores of pairs of one person, one per probe, shape (P,), finite.
        mated_labels: identity of each of these probes, shape (P,).
        non_mated: scores of probes with M other people, shape (Q, M), finite.
        non_mated_labels: identity of each of these probes, shape (Q,).
        fmrs: false match rates, each in [0, 1].
        level: confidence level, in (0, 1).
        resamples: >= 1. Those without a mated or without a non-mated score are left out.
        seed: the result depends on the values and this seed, never on the order of probes.

    Returns:
        Rates in [0, 1].

    Raises:
        BadInputError: a shape does not fit, a sample is empty or not finite, or an argument is
            out of range.
    """
    check_level(level)
    same, other = np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)
    if same.ndim != 1 or other.ndim != 2:
        raise BadInputError(
            f"scores must have shapes (P,) and (Q, M), not {same.shape} and {other.shape}"
        )
    values = [equal_error_rate(same, other), *(tmr_at_fmr(same, other, fmr) for fmr in fmrs)]
    draws, identities = resample_errors(
        Sample(same, mated_labels),
        Sample(other, non_mated_labels),
        [equal_error_rates, *(true_match_rates(fmr) for fmr in fmrs)],
        resamples,
        seed,
    )
    found = [
        rate_interval(value, drawn, identities, level)
        for value, drawn in zip(values, draws, strict=True)
    ]
    return VerificationIntervals(found[0], found[1:])


def equal_error_rate_interval(
    mated: npt.ArrayLike,
    mated_labels: Labels,
    non_mated: npt.ArrayLike,
    non_mated_labels: Labels,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The equal error rate of :func:`verification_intervals` alone."""
    return verification_intervals(
        mated, mated_labels, non_mated, non_mated_labels, (), level, resamples, seed
    ).equal_error_rate


def tmr_at_fmr_interval(
    mated: npt.ArrayLike,
    mated_labels: Labels,
    non_mated: npt.ArrayLike,
    non_mated_labels: Labels,
    fmr: float,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The true match rate of :func:`verification_intervals` at one false match rate."""
    return verification_intervals(
        mated, mated_labels, non_mated, non_mated_labels, (fmr,), level, resamples, seed
    ).tmr[0]


def rate_interval(value: float, draws: Floats, identities: int, level: float) -> Interval:
    """Percentile interval of a rate, or Wilson's over identities where the draws do not vary.

    Args:
        value: the rate, in [0, 1].
        draws: the rate on resamples, shape (R,); may be empty.
        identities: n of Wilson's interval, >= 1.
        level: confidence level, in (0, 1).
    """
    if not draws.size or np.ptp(draws) <= SAME:
        return wilson(value * identities, identities, level)
    return percentile_interval(value, draws, level)
