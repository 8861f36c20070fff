"""Identification: how often the true person is among the k best candidates, or found at all.

A probe's outcome is two counts over the gallery's *non-mated* identities: ``n_higher``, those
that score above the true identity, and ``n_tied``, those that score exactly as it does. Ties are
resolved in expectation over a random order, so that an encoder that has collapsed to a constant
scores chance instead of 100 %.

In open-set identification some people who are searched for are not in the gallery.

Source: ISO/IEC 19795-1:2021 (identification rank, CMC, false positive and
false negative identification rate).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Floats, Labels, Unsupported, check_confidence_level
from cldmray.metrics.verification import (
    ScoreSample,
    resample_errors,
    threshold_at,
    threshold_rate_interval,
    true_match_rates,
    unsupported_rate,
)

Counts = npt.NDArray[np.integer]
"""One count of identities per probe, shape (P,), values >= 0."""


def _check(n_higher: Counts, n_tied: Counts) -> tuple[Counts, Counts]:
    n_higher, n_tied = np.asarray(n_higher), np.asarray(n_tied)
    for name, counts in (("n_higher", n_higher), ("n_tied", n_tied)):
        if not np.issubdtype(counts.dtype, np.integer):
            raise BadInputError(f"{name} must hold whole numbers, not {counts.dtype}")
        if counts.ndim != 1 or counts.size == 0:
            raise BadInputError(f"{name} must have shape (P,) with P >= 1, not {counts.shape}")
        if counts.min() < 0:
            raise BadInputError(f"{name} must not be negative")
    if n_higher.shape != n_tied.shape:
        raise BadInputError(f"n_higher {n_higher.shape} and n_tied {n_tied.shape} differ in shape")
    return n_higher, n_tied


def success_at_rank(n_higher: Counts, n_tied: Counts, k: int) -> Floats:
    """Probability that the true identity is among the ``k`` best, ties broken at random.

    The true identity takes each of the ranks ``n_higher + 1 ... n_higher + n_tied + 1`` with equal
    probability, hence ``clip((k - n_higher) / (n_tied + 1), 0, 1)``.

    Args:
        n_higher: non-mated identities that score above the true one, shape (P,).
        n_tied: non-mated identities that score exactly as the true one, shape (P,).
        k: rank, >= 1.

    Returns:
        Shape (P,), values in [0, 1].

    Raises:
        BadInputError: the counts are no non-negative whole numbers of one shape (P,), or k < 1.

    >>> success_at_rank(np.array([0, 2, 0]), np.array([0, 0, 3]), k=1)
    array([1.  , 0.  , 0.25])
    """
    n_higher, n_tied = _check(n_higher, n_tied)
    if k < 1:
        raise BadInputError(f"rank k must be at least 1, not {k}")
    return np.clip((k - n_higher.astype(np.float64)) / (n_tied + 1.0), 0.0, 1.0)


def cmc(n_higher: Counts, n_tied: Counts, ranks: Sequence[int]) -> Floats:
    """Cumulative match characteristic: the rank-k identification rate at each of ``ranks``.

    Args:
        n_higher, n_tied: see :func:`success_at_rank`, shape (P,).
        ranks: ranks k >= 1.

    Returns:
        Shape (len(ranks),), share of probes in [0, 1].

    Raises:
        BadInputError: see :func:`success_at_rank`.

    >>> cmc(np.array([0, 2]), np.array([0, 0]), ranks=[1, 3])
    array([0.5, 1. ])
    """
    return np.array([success_at_rank(n_higher, n_tied, k).mean() for k in ranks], np.float64)


def reciprocal_rank(n_higher: Counts, n_tied: Counts) -> Floats:
    """Expected 1 / rank of the true identity, ties broken at random.

    With H(n) = 1 + 1/2 + ... + 1/n it is (H(n_higher + n_tied + 1) - H(n_higher)) / (n_tied + 1).

    Args:
        n_higher, n_tied: see :func:`success_at_rank`, shape (P,).

    Returns:
        Shape (P,), values in (0, 1].

    Raises:
        BadInputError: see :func:`success_at_rank`.
    """
    n_higher, n_tied = _check(n_higher, n_tied)
    last = n_higher + n_tied + 1
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(last.max()) + 1))])
    expected: Floats = (harmonic[last] - harmonic[n_higher]) / (n_tied + 1.0)
    return expected


def mean_reciprocal_rank(n_higher: Counts, n_tied: Counts) -> float:
    """Mean over probes of :func:`reciprocal_rank`, in (0, 1]."""
    return float(reciprocal_rank(n_higher, n_tied).mean())


def expected_rank(n_higher: Counts, n_tied: Counts) -> Floats:
    """Expected rank of the true identity: how many candidates an attacker must consider.

    Args:
        n_higher, n_tied: see :func:`success_at_rank`, shape (P,).

    Returns:
        ``n_higher + 1 + n_tied / 2``, shape (P,), in identities, from 1 to the gallery's size.

    Raises:
        BadInputError: see :func:`success_at_rank`.

    >>> expected_rank(np.array([0, 2]), np.array([3, 0]))
    array([2.5, 3. ])
    """
    n_higher, n_tied = _check(n_higher, n_tied)
    return n_higher + 1.0 + n_tied / 2.0


def success_in_smaller_gallery(
    n_higher: Counts, n_tied: Counts, gallery_size: int, size: int
) -> Floats:
    """Probability of rank 1 where the gallery is a random part of the candidates.

    The true identity stays, and ``size - 1`` of the ``gallery_size - 1`` others are drawn. With M =
    gallery_size - 1 - n_higher others that are not higher, and C for binomial coefficients, it is
    (C(M + 1, size) - C(M - n_tied, size)) / ((n_tied + 1) C(gallery_size - 1, size - 1)): the mean
    over the places among the tied of the probability that nobody before it is drawn.

    Args:
        n_higher, n_tied: in the whole gallery, see :func:`success_at_rank`, shape (P,).
        gallery_size: N candidates.
        size: in 1..N.

    Returns:
        Shape (P,), values in [0, 1]; :func:`success_at_rank` of rank 1 where size is N.

    Raises:
        BadInputError: see :func:`success_at_rank`, or a size or count is out of range.

    >>> success_in_smaller_gallery(np.array([1, 0]), np.array([0, 1]), gallery_size=3, size=2)
    array([0.5 , 0.75])
    """
    n_higher, n_tied = _check(n_higher, n_tied)
    if not 1 <= size <= gallery_size or (n_higher + n_tied).max() >= gallery_size:
        raise BadInputError(
            f"size = {size} must lie in 1..{gallery_size}, and fewer than {gallery_size} "
            "candidates score higher or the same"
        )
    others = gallery_size - 1 - n_higher.astype(np.float64)
    # Logarithms, as binomial coefficients of large galleries exceed every float.
    whole = _log_choose(np.array([gallery_size - 1.0]), size - 1)
    drawn = np.exp(_log_choose(others + 1, size) - whole)
    drawn -= np.exp(_log_choose(others - n_tied, size) - whole)
    expected: Floats = np.clip(drawn / (n_tied + 1.0), 0.0, 1.0)
    return expected


def _log_choose(n: Floats, k: int) -> Floats:
    """Logarithm of the binomial coefficients of n (P,) and k; -inf where n < k."""
    enough = np.maximum(n, k)
    value: Floats = -np.log(enough + 1) - special.betaln(enough - k + 1, k + 1)
    return np.where(n >= k, value, -np.inf)


def chance(k: int, gallery_size: int) -> float:
    """Rank-k identification rate of chance, ``min(1, k / gallery_size)``.

    Args:
        k: rank, >= 1.
        gallery_size: number of candidate identities, >= 1.

    Raises:
        BadInputError: either is below 1.

    >>> chance(5, gallery_size=100)
    0.05
    """
    if k < 1 or gallery_size < 1:
        raise BadInputError(f"k = {k} and gallery_size = {gallery_size} must be at least 1")
    return min(1.0, k / gallery_size)


def fnir_at_fpir(
    mated: npt.ArrayLike, best_non_mated: npt.ArrayLike, unknown: npt.ArrayLike, fpir: float
) -> float:
    """Share of searches for enrolled people that fail, at a false positive identification rate.

    The threshold is the most permissive one that the best score of at most a share ``fpir`` of
    the unknown probes exceeds. A search fails when the true identity is not the single best one
    or its score does not exceed the threshold; a tie for the first place counts as failure, so
    an encoder that has collapsed to a constant identifies nobody.

    With fewer than 1 / ``fpir`` unknown probes the threshold is the highest of their scores, and
    the measure says less than its name.

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
    matched, stranger = _check_searches(mated, best_non_mated, unknown, fpir)
    return float(np.mean(matched <= threshold_at(np.sort(stranger), fpir)))


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
) -> Interval | Unsupported:
    """:func:`fnir_at_fpir` with its interval by bootstrap over the identities of all probes.

    Enrolled and unknown people are drawn together, so a resample varies how many of each there
    are; one that lacks either is left out. The bounds are never within those at the threshold of
    the sample, see :func:`cldmray.metrics.verification.threshold_rate_interval`.

    Args:
        mated, best_non_mated, unknown, fpir: see :func:`fnir_at_fpir`.
        mated_labels: identity of each probe of an enrolled person, shape (E,).
        unknown_labels: identity of each unknown probe, shape (U,).
        confidence_level: in (0, 1).
        n_bootstrap: >= 1.
        seed: the result depends on the values and this seed, never on the order of probes.

    Returns:
        The rate, or why fewer than 1 / ``fpir`` unknown probes do not support it.

    Raises:
        BadInputError: see :func:`fnir_at_fpir`; or another argument is out of range.
    """
    check_confidence_level(confidence_level)
    matched, stranger = _check_searches(mated, best_non_mated, unknown, fpir)
    (draws,), _ = resample_errors(
        ScoreSample(matched, mated_labels),
        ScoreSample(stranger, unknown_labels),
        [true_match_rates(fpir)],
        n_bootstrap,
        seed=seed,
    )
    unsupported = unsupported_rate(fpir, len(stranger), "probes of people not enrolled")
    fails = matched <= threshold_at(np.sort(stranger), fpir)
    return unsupported or threshold_rate_interval(fails, mated_labels, 1 - draws, confidence_level)


def _check_searches(
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
