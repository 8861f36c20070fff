"""Open-set identification: some people who are searched for are not in the gallery.

Source: ISO/IEC 19795-1:2021 (false positive identification rate, false negative identification
rate).
"""

import math

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Floats, Labels, check_confidence_level
from cldmray.metrics.verification import (
    ScoreSample,
    rate_interval,
    resample_errors,
    true_match_rates,
)


def fnir_at_fpir(
    mated: npt.ArrayLike, best_non_mated: npt.ArrayLike, unknown: npt.ArrayLike, fpir: float
) -> float:
    """Share of searches for enrolled people that fail, at a false positive identification rate.

    The threshold is the most permissive one that the best score of at most a share ``fpir`` of
    the unknown probes exceeds. A search fails when the true identity is not the single best one
    or its score does not exceed the threshold; a tie for the first place counts as failure, so
    an encoder that has collapsed to a constant identifies nobody.

    With fewer than 1 / ``fpir`` unknown probes the threshold is the highest of their scores, and
    the measure says less than its name: report how many there are.

    Args:
        mated: score of the true identity, per probe of an enrolled person, shape (E,), finite.
        best_non_mated: best score of the other enrolled identities for these probes, shape (E,),
            finite.
        unknown: best score of all enrolled identities, per probe of a person who is not
            enrolled, shape (U,), finite.
        fpir: largest false positive identification rate, in [0, 1], for example 1e-2.

    Returns:
        In [0, 1]; 0 where every enrolled person is matched.

    Raises:
        BadInputError: shapes differ, a sample is empty or not finite, or ``fpir`` lies outside
            [0, 1].

    >>> fnir_at_fpir([0.9, 0.4], [0.3, 0.6], [0.5, 0.2], fpir=0.0)
    0.5
    """
    matched, stranger = _check(mated, best_non_mated, unknown, fpir)
    return _fnir(matched, stranger, fpir)


def fnir_at_fpir_interval(
    mated: npt.ArrayLike,
    best_non_mated: npt.ArrayLike,
    unknown: npt.ArrayLike,
    mated_labels: Labels,
    *,
    unknown_labels: Labels,
    fpir: float,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """:func:`fnir_at_fpir` with its interval by bootstrap over the identities of all probes.

    Enrolled and unknown people are drawn together, so a resample varies how many of each there
    are; one that lacks either is left out. Where all resamples agree, Wilson's interval over
    identities is returned, see :func:`cldmray.metrics.verification.verification_intervals`.

    Args:
        mated, best_non_mated, unknown, fpir: see :func:`fnir_at_fpir`.
        mated_labels: identity of each probe of an enrolled person, shape (E,).
        unknown_labels: identity of each unknown probe, shape (U,).
        confidence_level: in (0, 1).
        n_bootstrap: >= 1.
        seed: the result depends on the values and this seed, never on the order of probes.

    Raises:
        BadInputError: see :func:`fnir_at_fpir`; or another argument is out of range.
    """
    check_confidence_level(confidence_level)
    matched, stranger = _check(mated, best_non_mated, unknown, fpir)
    (draws,), identities = resample_errors(
        ScoreSample(matched, mated_labels),
        ScoreSample(stranger, unknown_labels),
        [true_match_rates(fpir)],
        n_bootstrap,
        seed=seed,
    )
    return rate_interval(_fnir(matched, stranger, fpir), 1 - draws, identities, confidence_level)


def _check(
    mated: npt.ArrayLike, best_non_mated: npt.ArrayLike, unknown: npt.ArrayLike, fpir: float
) -> tuple[Floats, Floats]:
    """Score of the true identity where it is first, else -inf, (E,); and the unknown scores."""
    mine, best, stranger = (
        np.asarray(scores, np.float64) for scores in (mated, best_non_mated, unknown)
    )
    if mine.ndim != 1 or mine.shape != best.shape or stranger.ndim != 1:
        raise BadInputError(
            "mated, best_non_mated and unknown must have shapes (E,), (E,) and (U,), not "
            f"{mine.shape}, {best.shape} and {stranger.shape}"
        )
    for name, scores in (("mated", mine), ("best_non_mated", best), ("unknown", stranger)):
        if not scores.size or not np.isfinite(scores).all():
            raise BadInputError(f"{name} must hold at least one score and only finite ones")
    if not 0 <= fpir <= 1:
        raise BadInputError(f"fpir must lie in [0, 1], not {fpir}")
    return np.where(mine > best, mine, -np.inf), stranger


def _fnir(matched: Floats, stranger: Floats, fpir: float) -> float:
    allowed = math.floor(fpir * len(stranger) * (1 + 1e-12))
    ranked = np.append(np.sort(stranger)[::-1], -np.inf)
    return float(np.mean(matched <= ranked[allowed]))
