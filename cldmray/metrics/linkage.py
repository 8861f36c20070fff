"""Unlinkability: can two anonymized images of one person be told to be the same person's?

A finite sample shows some linkability where there is none, and no bootstrap can tell how much:
:func:`linkage` compares it with what the same scores show when identities are permuted.

Sources: M. Gomez-Barrero, J. Galbally, C. Rathgeb and C. Busch, "General Framework to Evaluate
Unlinkability in Biometric Template Protection Systems", IEEE TIFS 13(6), 2018; B. Phipson and
G. K. Smyth, "Permutation P-values Should Never Be Zero", Statistical Applications in Genetics and
Molecular Biology 9(1), 2010.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    ROUNDING,
    SAME,
    Floats,
    Labels,
    check_confidence_level,
    resampled_counts,
    wilson,
)
from cldmray.metrics.verification import Codes, ScoreSample, identity_codes

MOST_BINS = 100


class Linkability(NamedTuple):
    """The local measure over bins of scores.

    Attributes:
        edges: of the bins, in rising order, shape (B + 1,).
        local: D(s) in each bin, shape (B,), in [0, 1].
        mated, non_mated: share of each sample in each bin, shape (B,), each sums to 1.
    """

    edges: Floats
    local: Floats
    mated: Floats
    non_mated: Floats


def automatic_bins(mated: int, non_mated: int) -> int:
    """Number of bins for samples of these sizes: 2 n^(1/3), n the smaller, from 1 to 100.

    This is Rice's rule, rounded up. From n = 100 on it has fewer bins than the min(n / 10, 100) of
    the authors' program, and therefore less of the bias that :func:`d_sys` describes; ask for
    theirs where a number is to be compared with published ones.
    """
    return min(MOST_BINS, int(np.ceil(round(2 * np.cbrt(min(mated, non_mated)), 9))))


def linkability(
    mated: npt.ArrayLike, non_mated: npt.ArrayLike, bins: int | None = None, omega: float = 1.0
) -> Linkability:
    """D(s) = 2 w LR / (1 + w LR) - 1 where w LR > 1, else 0; LR = p(s|mated) / p(s|non-mated).

    The densities are histograms of equal bins from the lowest to the highest score of all. Where
    no non-mated score lies but a mated one does, D is 1; where there is neither, it is 0.

    Args, Raises: see :func:`d_sys`.
    """
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    edges = _edges(same, other, bins, omega)
    shares = [_shares(part, edges) for part in (same, other)]
    return Linkability(edges, _local(shares[0], shares[1], omega), shares[0], shares[1])


def d_sys(
    mated: npt.ArrayLike, non_mated: npt.ArrayLike, bins: int | None = None, omega: float = 1.0
) -> float:
    """Global linkability: D(s) of :func:`linkability`, averaged over the mated scores.

    Small samples bias it upwards, because chance alone lifts one density over the other in about
    half of the bins: with the same distribution on both sides, where D is 0, n independent mated
    and m non-mated scores in B bins give up to 0.2 sqrt(B / n + B / m). With the automatic bins
    and many more non-mated scores that is 0.06 for n = 100, 0.04 for n = 500 and 0.02 for n = 2000,
    and more where the scores of one person depend on each other. The bias fades as the
    distributions part: normal ones a standard deviation apart, D = 0.29, show less than 0.01.

    Args:
        mated: scores of pairs of one person, any shape with >= 1 entry, finite.
        non_mated: scores of pairs of two people, any shape with >= 1 entry, finite.
        bins: number of bins, >= 1; None for :func:`automatic_bins`.
        omega: p(mated) / p(non-mated) before the scores are seen, > 0; 1 in the paper.

    Returns:
        In [0, 1]; 0 fully unlinkable, 1 where mated and non-mated scores share no bin.

    Raises:
        BadInputError: a sample is empty or not finite, or an argument is out of range.

    >>> d_sys([0.8, 0.9], [0.1, 0.2])
    1.0
    """
    linked = linkability(mated, non_mated, bins, omega)
    return min(1.0, float(linked.local @ linked.mated))


def d_sys_interval(
    mated: npt.ArrayLike,
    mated_labels: Labels,
    non_mated: npt.ArrayLike,
    non_mated_labels: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    bins: int | None = None,
    omega: float = 1.0,
) -> Interval:
    """:func:`d_sys` with its interval by bootstrap over identities; the bins stay where they are.

    A resample is biased upwards against its sample as the sample is against the truth. The bounds
    are therefore those of the basic bootstrap, 2 value - quantile (Efron & Tibshirani 1993),
    within [0, 1] and stretched to contain the value. Where all resamples agree, Wilson's interval
    with n = number of identities is returned.

    Args:
        mated: one score per probe, shape (P,), finite.
        mated_labels: identity of each of these probes, shape (P,).
        non_mated: scores of probes with M other people, shape (Q, M), finite.
        non_mated_labels: identity of each of these probes, shape (Q,).
        confidence_level: in (0, 1).
        n_bootstrap: >= 1. Those without a mated or without a non-mated score are left out.
        seed: the result depends on the values and this seed, never on the order of probes.
        bins, omega: see :func:`d_sys`.

    Raises:
        BadInputError: a shape does not fit, or see :func:`d_sys`.
    """
    check_confidence_level(confidence_level)
    same, other = _check(mated, "mated"), _check(non_mated, "non-mated")
    if same.ndim != 1 or other.ndim != 2:
        raise BadInputError(
            f"scores must have shapes (P,) and (Q, M), not {same.shape} and {other.shape}"
        )
    edges = _edges(same, other, bins, omega)
    codes, n = identity_codes(
        [ScoreSample(same, mated_labels), ScoreSample(other, non_mated_labels)]
    )
    tables = [_table(part, own, n, edges) for part, own in zip((same, other), codes, strict=True)]
    draws = []
    for counts in resampled_counts(n, n_bootstrap, seed, width=4 * len(edges)):
        drawn = [counts @ table for table in tables]
        totals = [part.sum(1, keepdims=True) for part in drawn]
        complete = ((totals[0] > 0) & (totals[1] > 0))[:, 0]
        shares = [
            part[complete] / total[complete] for part, total in zip(drawn, totals, strict=True)
        ]
        draws.append(np.einsum("rb,rb->r", _local(shares[0], shares[1], omega), shares[0]))
    value, identities = d_sys(same, other, bins, omega), min(len(np.unique(own)) for own in codes)
    values = np.concatenate(draws)
    if not values.size or np.ptp(values) <= SAME:
        return wilson(value * identities, identities, confidence_level)
    low, high = 2 * value - np.quantile(
        values, [(1 + confidence_level) / 2, (1 - confidence_level) / 2]
    )
    return Interval(value, max(0.0, min(float(low), value)), min(1.0, max(float(high), value)))


class Linkage(NamedTuple):
    """Linkability beside what the same scores show without any link.

    Attributes:
        interval: of :func:`d_sys_interval`; ``low`` is 0 unless the scores link significantly.
        chance: mean of :func:`d_sys` over permutations of the identities, in [0, 1].
        p_value: share of the permutations that link as much, the data themselves counted among
            them, in (0, 1].
    """

    interval: Interval
    chance: float
    p_value: float


def linkage(
    mated: npt.ArrayLike,
    mated_labels: Labels,
    non_mated: npt.ArrayLike,
    non_mated_labels: Labels,
    *,
    permuted: npt.ArrayLike,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    bins: int | None = None,
) -> Linkage:
    """:func:`d_sys` with its interval, tested against permuted identities.

    Scores link significantly where at most (1 - ``confidence_level``) / 2 of the permutations reach
    the linkability of the data, with mated scores above the mean of all. Lower mated scores are no
    link: an attacker who has fewer references of the true identity gives it lower scores. Up to
    four people can be permuted in so few ways that their scores never link significantly.

    Args:
        mated, mated_labels, non_mated, non_mated_labels: see :func:`d_sys_interval`.
        permuted: score of each probe with another identity in its own one's place, for each of R
            permutations of the gallery's identities, shape (P, R), finite. All probes of one
            identity take the same other one, so that images of a person stay as alike as they are.
        confidence_level, n_bootstrap, seed, bins: see :func:`d_sys_interval`.

    Raises:
        BadInputError: see :func:`d_sys_interval`; or ``permuted`` does not fit.

    >>> linkage([0.9, 0.8], ["ann", "bob"], [[0.1], [0.2]], ["ann", "bob"],
    ...         permuted=[[0.1, 0.9], [0.2, 0.8]])
    Linkage(interval=Interval(value=1.0, low=0.0, high=1.0), chance=1.0, p_value=0.666...)
    """
    interval = d_sys_interval(
        mated,
        mated_labels,
        non_mated,
        non_mated_labels,
        confidence_level=confidence_level,
        n_bootstrap=n_bootstrap,
        seed=seed,
        bins=bins,
    )
    same, other = np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)
    swapped = np.asarray(permuted, np.float64)
    if swapped.ndim != 2 or len(swapped) != len(same) or not np.isfinite(swapped).all():
        raise BadInputError(f"permuted must be finite, of shape ({len(same)}, R): {swapped.shape}")
    edges, n_others = _edges(same, other, bins, 1.0), other.shape[1]
    shares = [_shares(part, edges) for part in (same, other)]
    mean = (same.mean() + n_others * other.mean()) / (n_others + 1)
    values = []
    for scores in swapped.T:
        drawn = _shares(scores, edges)
        # What is mated in the data is non-mated in a permutation, and the other way round.
        rest = np.maximum(0.0, shares[1] + (shares[0] - drawn) / n_others)
        values.append(float(_local(drawn, rest, 1.0) @ drawn))
    linked = np.where(swapped.mean(0) > mean, values, 0.0)
    observed = interval.value if same.mean() > mean else 0.0
    p_value = (1 + np.count_nonzero(linked >= observed - ROUNDING)) / (1 + len(values))
    if p_value > (1 - confidence_level) / 2:
        interval = interval._replace(low=0.0)
    return Linkage(interval, float(np.mean(values)), float(p_value))


def _shares(scores: Floats, edges: Floats) -> Floats:
    """Share of the scores in each bin, shape (B,)."""
    counts = np.bincount(_bin(scores, edges), minlength=len(edges) - 1)
    shares: Floats = counts / counts.sum()
    return shares


def _check(scores: npt.ArrayLike, name: str) -> Floats:
    array = np.asarray(scores, np.float64)
    if not array.size or not np.isfinite(array).all():
        raise BadInputError(f"{name} scores must be at least one, and finite")
    return array


def _edges(mated: Floats, non_mated: Floats, bins: int | None, omega: float) -> Floats:
    number = automatic_bins(mated.size, non_mated.size) if bins is None else bins
    if number < 1 or not 0 < omega < np.inf:
        raise BadInputError(f"bins={number} must be at least 1, and omega={omega} above 0, finite")
    lowest = min(mated.min(), non_mated.min())
    return np.linspace(lowest, max(mated.max(), non_mated.max()), number + 1)


def _bin(scores: Floats, edges: Floats) -> Codes:
    """Bin of each score, flat; a score on an edge belongs to the bin above it, if there is one."""
    return np.searchsorted(edges[1:-1], scores.ravel(), side="right")


def _table(scores: Floats, codes: Codes, n: int, edges: Floats) -> Floats:
    """Scores of each identity in each bin, shape (n, B)."""
    bins = len(edges) - 1
    cells = np.repeat(codes, scores[0].size) * bins + _bin(scores, edges)
    return np.bincount(cells, minlength=n * bins).reshape(n, bins).astype(np.float64)


def _local(mated: Floats, non_mated: Floats, omega: float) -> Floats:
    """D(s) of shares of any shape: 2 w LR / (1 + w LR) - 1 = (w p - q) / (w p + q)."""
    ahead = omega * mated - non_mated
    local = np.zeros_like(ahead)
    np.divide(ahead, omega * mated + non_mated, out=local, where=ahead > SAME)
    return local
