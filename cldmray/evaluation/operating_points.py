"""Operating-point search: the loosest of many settings that stays under a target."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.metrics.rates import rate_interval


class OperatingPoint(NamedTuple):
    """One setting of a search: its risk, with bounds that hold for all of them, and utility.

    Attributes:
        attacker: the one with the highest upper bound.
        value, low, high: its rank-1 rate.
        utility: higher is better; NaN where it was not measured.
    """

    anonymizer: str
    attacker: str
    value: float
    low: float
    high: float
    n_probes: int
    utility: float


def candidate_point(
    attacks: Sequence[AttackResult], searched: int, utility: float, settings: EvaluationSettings
) -> OperatingPoint:
    """A setting's strongest attack, with bounds that hold for all ``searched`` settings at once.

    The level of each is 1 - (1 - confidence_level) / searched (Bonferroni). Attacks on one
    setting need no further correction: the highest of their upper bounds is at least that of the
    strongest.
    """
    confidence_level = 1 - (1 - settings.confidence_level) / searched
    intervals = [
        (
            rate_interval(
                a.rank_1,
                a.ranks.identities,
                samples=a.ranks.sample_ids,
                confidence_level=confidence_level,
            ),
            a,
        )
        for a in attacks
    ]
    interval, attack = max(intervals, key=lambda pair: (pair[0].high, pair[0].value))
    count = len(np.unique(attack.ranks.sample_ids))
    return OperatingPoint(attack.anonymizer, attack.attacker, *interval, count, utility)


def operating_point(points: Sequence[OperatingPoint], target: float) -> OperatingPoint | None:
    """The loosest setting that stays under a target: the most useful whose upper bound does.

    Args:
        points: all settings that were searched.
        target: rank-1 rate that must not be exceeded, 1/k.

    Returns:
        The one of highest utility among those with ``high <= target``, at equal utility the one
        of lower risk; None where there is none.
    """
    fit = [point for point in points if point.high <= target]
    return max(fit, key=lambda p: (-np.inf if np.isnan(p.utility) else p.utility, -p.high),
               default=None)  # fmt: skip
