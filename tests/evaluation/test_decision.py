"""Usefulness, supported k and the choice of a setting, by hand-made risks."""

from dataclasses import replace

import pytest

from cldmray.evaluation.decision import by_usefulness, decide, recommend, supported_k
from cldmray.results.audit import AnonymizerRisk
from tests.given_risks import WEAK, risk, rows


class TestUsefulness:
    def test_mean_rank_over_measures_in_their_direction(self) -> None:
        utility = [
            *rows("ssim", a=0.9, b=0.8, c=0.1),
            *rows("frechet", higher=False, a=3.0, b=1.0, c=2.0),
            *rows("face_detection_rate", a=0.5, b=0.9, c=0.7),
        ]
        assert by_usefulness(["a", "b", "c"], utility) == ["b", "a", "c"]
        assert by_usefulness(["a", "c"], utility) == ["c", "a"]

    def test_ties_keep_the_order_given(self) -> None:
        utility = [*rows("ssim", a=0.9, b=0.8), *rows("edge_f1", a=0.1, b=0.2)]
        assert by_usefulness(["b", "a"], utility) == ["b", "a"]
        assert by_usefulness(["a", "b"], utility) == ["a", "b"]

    def test_equal_values_share_their_rank(self) -> None:
        """Mean ranks: a 1.75, b 1.25, c 3."""
        utility = [*rows("ssim", a=0.5, b=0.5, c=0.1), *rows("edge_f1", a=0.1, b=0.2, c=0.05)]
        assert by_usefulness(["a", "c", "b"], utility) == ["b", "a", "c"]

    def test_only_common_measures_count(self) -> None:
        utility = [
            *rows("ssim", a=0.9, b=0.8),
            *rows("edge_f1", b=0.9),
            *rows("face_detection_rate", b=0.9, a=float("nan")),
        ]
        assert by_usefulness(["b", "a", "unmeasured"], utility) == ["a", "b"]

    def test_nothing_in_common(self) -> None:
        assert by_usefulness(["a", "b"], [*rows("ssim", a=0.9), *rows("edge_f1", b=0.9)]) == []
        assert by_usefulness(["a", "b"], []) == []


class TestSupport:
    @pytest.mark.parametrize(("high", "k"), [(0.05, 20), (0.0501, 19), (1.0, 1), (0.001, 100)])
    def test_the_upper_bound_decides(self, high: float, k: int) -> None:
        assert supported_k(risk("blur", high, value=0.001, low=0.0)) == k

    def test_the_highest_of_all_upper_bounds_counts(self) -> None:
        assert supported_k(replace(risk("blur", 0.04), highest_upper_bound=0.1)) == 10

    def test_weak_attackers_support_nothing(self) -> None:
        assert supported_k(replace(risk("blur", 0.04), weakness=WEAK)) == 1

    @pytest.mark.parametrize(
        ("given", "weakness", "note"),
        [
            (risk("blur", 0.04), WEAK, WEAK),
            (replace(risk("blur", 0.04), note=WEAK), "", WEAK),
            (risk("blur", 0.04, value=0.03, low=0.02), WEAK, ""),
            (risk("blur", 0.04), "", ""),
        ],
    )
    def test_a_leak_keeps_the_weakness_and_has_no_note(
        self, given: AnonymizerRisk, weakness: str, note: str
    ) -> None:
        (decided,) = decide([given], [], weakness={"blur": weakness}).risks
        assert decided.note == note
        assert decided.weakness == (weakness or given.note)
        assert decided.k_supported == (1 if decided.weakness else 25)


class TestChoice:
    def test_the_most_useful_that_supports_the_target(self) -> None:
        utility = rows("ssim", no_op=1.0, blur=0.83, k_same=0.5, none=0.2)
        candidates = [risk("blur", 0.3, 0.2), risk("none", 0.02), risk("k_same", 0.05)]
        choice = recommend(candidates, ["no_op"], utility, 20, missed={})
        assert choice.recommended == candidates[2] and choice.by_utility
        assert choice.supporting == (candidates[1], candidates[2])
        assert choice.candidates == (candidates[1], candidates[2], candidates[0])
        assert (choice.most_useful, choice.control) == ("blur", "no_op")
        assert choice.utility == {"ssim": {"value": 0.5, "most_useful": 0.83, "control": 1.0}}

    def test_weak_attackers_recommend_nothing(self) -> None:
        choice = recommend([replace(risk("a", 0.01), weakness=WEAK)], [], [], 20, missed={})
        assert choice.recommended is None and choice.supporting == ()
