"""The loosest setting under a target, on hand-made searches."""

import numpy as np
import pytest

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.operating_points import (
    OperatingPoint,
    candidate_point,
    operating_point,
)
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.ranking import Ranks
from cldmray.metrics.rates import rate_interval

NAN = float("nan")


def point(name: str, high: float, utility: float) -> OperatingPoint:
    return OperatingPoint(name, "adaptive_contrastive", high / 2, high / 4, high, 100, utility)


GRID = [point("tight", 0.01, 0.2), point("loose", 0.05, 0.6), point("leaky", 0.2, 0.9)]


class TestBoundary:
    @pytest.mark.parametrize(
        ("target", "name"),
        [(0.5, "leaky"), (0.2, "leaky"), (0.19, "loose"), (0.05, "loose"), (0.02, "tight")],
    )
    def test_the_most_useful_that_qualifies(self, target: float, name: str) -> None:
        for points in (GRID, GRID[::-1]):
            best = operating_point(points, target)
            assert best is not None and best.anonymizer == name

    def test_none_qualifies(self) -> None:
        assert operating_point(GRID, 0.009) is None
        assert operating_point([], 0.5) is None

    def test_the_less_risky_of_two_alike(self) -> None:
        best = operating_point([point("b", 0.05, 0.6), point("a", 0.04, 0.6)], 0.05)
        assert best is not None and best.anonymizer == "a"

    def test_a_setting_whose_utility_is_unknown_comes_last(self) -> None:
        best = operating_point([point("a", 0.01, NAN), point("b", 0.04, 0.1)], 0.05)
        assert best is not None and best.anonymizer == "b"
        best = operating_point([point("a", 0.01, NAN)], 0.05)
        assert best is not None and best.anonymizer == "a"


def attack(name: str, rate: float, gallery_identities: int = 40) -> AttackResult:
    hits = np.arange(gallery_identities) < rate * gallery_identities
    ranks = Ranks(
        np.where(hits, 0, 3),
        np.zeros(gallery_identities, np.int64),
        np.array([f"p{number:02}" for number in range(gallery_identities)]),
        np.array([f"s{number:02}" for number in range(gallery_identities)]),
        gallery_identities,
    )
    return AttackResult("cldm", name, "full_ref", "source_excluded", ranks)


class TestSearchPoint:
    def test_bounds_hold_for_all_settings_at_once(self) -> None:
        settings = EvaluationSettings(n_bootstrap=500)
        weak, strong = attack("condition_only", 0.1), attack("adaptive_contrastive", 0.4)
        candidate = candidate_point([weak, strong], 10, 0.7, settings)
        assert (candidate.anonymizer, candidate.attacker, candidate.n_probes) == (
            "cldm",
            "adaptive_contrastive",
            40,
        )
        assert (candidate.value, candidate.utility) == (0.4, 0.7)
        confidence_level = 1 - 0.05 / 10
        expected = rate_interval(
            strong.rank_1, strong.ranks.identities, confidence_level=confidence_level
        )
        assert (candidate.low, candidate.high) == pytest.approx((expected.low, expected.high))
        single = candidate_point([strong], 1, 0.7, settings)
        assert candidate.low < single.low and single.high < candidate.high
