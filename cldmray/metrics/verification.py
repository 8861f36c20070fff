"""Verification: are two pictures the same person? Exact measures on score samples.

Scores are similarities: higher means "same person". The error rates are step functions of the
threshold; nothing is smoothed or binned.

Source: ISO/IEC 19795-1:2021 (false match rate, false non-match rate, equal error rate).
"""

import math

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError

Floats = npt.NDArray[np.float64]


def _check(scores: npt.ArrayLike, name: str) -> Floats:
    array = np.sort(np.asarray(scores, np.float64), axis=None)
    if array.size == 0:
        raise BadInputError(f"no {name} scores")
    if not np.all(np.isfinite(array)):
        raise BadInputError(f"{name} scores must be finite")
    return array


def equal_error_rate(mated: npt.ArrayLike, non_mated: npt.ArrayLike) -> float:
    """Error rate where false matches and false non-matches are equally frequent.

    FMR falls and FNMR rises in steps as the threshold grows; the EER is where the two step
    functions, drawn with their risers, cross. Where mated and non-mated scores tie at the
    crossing, the tie is broken at random, so a constant score gives 0.5.

    Args:
        mated: scores of pairs of one person, any shape with >= 1 entry, finite.
        non_mated: scores of pairs of two people, any shape with >= 1 entry, finite.

    Returns:
        In [0, 1]; 0 where the scores separate perfectly, 0.5 where they say nothing.

    Raises:
        BadInputError: a sample is empty or not finite.
    """
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    thresholds = np.unique(np.concatenate([same, other]))
    accepted = len(other) - np.searchsorted(other, thresholds, side="left")
    refused = np.searchsorted(same, thresholds, side="left")
    fmr = np.append(accepted / len(other), 0.0)
    fnmr = np.append(refused / len(same), 1.0)
    after = int(np.argmax(fnmr >= fmr))
    before = after - 1
    gap_before = fmr[before] - fnmr[before]
    gap_after = fnmr[after] - fmr[after]
    weight = gap_before / (gap_before + gap_after)
    return float(fmr[before] + weight * (fmr[after] - fmr[before]))


def tmr_at_fmr(mated: npt.ArrayLike, non_mated: npt.ArrayLike, fmr: float) -> float:
    """True match rate at the most permissive threshold whose false match rate is at most ``fmr``.

    With fewer than 1 / ``fmr`` non-mated scores the threshold is the highest of them, and the
    measure says less than its name: report how many there are.

    Args:
        mated, non_mated: see :func:`equal_error_rate`.
        fmr: largest false match rate, in [0, 1], for example 1e-3.

    Returns:
        Share of mated scores above the threshold, in [0, 1].

    Raises:
        BadInputError: a sample is empty or not finite, or ``fmr`` lies outside [0, 1].
    """
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    if not 0 <= fmr <= 1:
        raise BadInputError(f"fmr must lie in [0, 1], not {fmr}")
    allowed = math.floor(fmr * len(other) * (1 + 1e-12))
    if allowed >= len(other):
        return 1.0
    threshold = other[len(other) - 1 - allowed]
    return float(np.mean(same > threshold))
