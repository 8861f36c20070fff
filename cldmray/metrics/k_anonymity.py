"""The test of a k-anonymity claim by a re-identification attack (docs/measures.md).

The claim is that an image drawn at random is identified with a probability of at most 1/k. It is
rejected when the lower confidence bound of the strongest attack's rank-1 identification rate
exceeds 1/k, and with it Sweeney's, which says the same of each person. What supports the average
does not support that.

Source of the notion: L. Sweeney, "k-anonymity: a model for protecting privacy", IJUFKS 10, 2002.
"""

import math
from typing import NamedTuple

from cldmray.arrays import Interval
from cldmray.errors import BadInputError

TOLERANCE = 1e-9
"""Relative rounding error of a bound that still counts as equal to 1/k."""


class KAnonymity(NamedTuple):
    """What an attack says about claims of k-anonymity.

    Attributes:
        k_not_rejected: claims up to this k survive the attack, claims above do not;
            from 1 to ``gallery_size``.
        point_estimate: 1 / rank-1 rate, ``gallery_size`` where the rate is lower than chance.
        k_supported: the largest k whose 1/k is not below the *upper* bound: the k that
            this attack positively supports, from 1 to ``gallery_size``.
        gallery_size: number of candidates; no attack on it can speak about a larger k.
    """

    k_not_rejected: int
    point_estimate: float
    k_supported: int
    gallery_size: int


def rejects(rank_1: Interval, k: int) -> bool:
    """Whether the attack rejects the claim "k-anonymous": lower bound above 1/k.

    With the bounds of a two-sided interval of level c the test's error is (1 - c) / 2: 2.5 % for
    the usual 95 %. Bounds within a relative ``TOLERANCE`` of 1/k count as equal.

    Args:
        rank_1: rank-1 identification rate of the strongest attack, in [0, 1].
        k: claimed anonymity, >= 1; the claim k = 1 says nothing and is never rejected.

    Raises:
        BadInputError: k < 1, or the interval is not ordered within [0, 1].

    >>> rejects(Interval(0.12, 0.08, 0.17), k=20)
    True
    """
    _check(rank_1)
    if k < 1:
        raise BadInputError(f"k must be at least 1, not {k}")
    return rank_1.low * k > 1 + TOLERANCE


def k_anonymity(rank_1: Interval, gallery_size: int) -> KAnonymity:
    """The claims of k-anonymity that a rank-1 rate leaves standing.

    Args:
        rank_1: rank-1 identification rate of the strongest attack, in [0, 1].
        gallery_size: number of candidate identities, >= 1.

    Raises:
        BadInputError: gallery_size < 1, or the interval is not ordered within [0, 1].

    >>> k_anonymity(Interval(0.04, 0.02, 0.10), gallery_size=100)
    KAnonymity(k_not_rejected=50, point_estimate=25.0, k_supported=10, gallery_size=100)
    """
    _check(rank_1)
    if gallery_size < 1:
        raise BadInputError(f"gallery_size must be at least 1, not {gallery_size}")
    return KAnonymity(
        k_not_rejected=_claim_within(rank_1.low, gallery_size),
        point_estimate=_inverse(rank_1.value, gallery_size),
        k_supported=_claim_within(rank_1.high, gallery_size),
        gallery_size=gallery_size,
    )


def _check(rank_1: Interval) -> None:
    if not 0 <= rank_1.low <= rank_1.value <= rank_1.high <= 1:
        raise BadInputError(f"not an interval of a rate: {rank_1}")


def _inverse(rate: float, gallery_size: int) -> float:
    return float(gallery_size) if rate * gallery_size <= 1 else 1 / rate


def _claim_within(rate: float, gallery_size: int) -> int:
    """The largest whole k <= gallery_size with rate * k <= 1, up to rounding error."""
    return math.floor(_inverse(rate, gallery_size) * (1 + TOLERANCE))
