"""Which setting is recommended, by hand-made risks and measures of utility."""

from collections.abc import Sequence
from dataclasses import replace

from cldmray.evaluation.decision import recommend
from cldmray.report.verdict import state_recommendation
from cldmray.results.audit import AnonymizerRisk, AttackRate, UtilityRow
from cldmray.results.decision import Recommendation
from tests.given_risks import WEAK, risk, rows


def recommended(
    candidates: list[AnonymizerRisk],
    utility: Sequence[UtilityRow] = (),
    target_k: int = 20,
    weakness: str = "",
    missed: dict[str, list[str]] | None = None,
) -> Recommendation:
    if weakness:
        candidates = [replace(risk, weakness=weakness) for risk in candidates]
    choice = recommend(candidates, ["no_op"], utility, target_k, missed=missed or {})
    return state_recommendation(choice)


class TestRecommended:
    def test_the_most_useful_that_stays_under_the_target_and_its_cost(self) -> None:
        utility = [
            *rows("ssim", no_op=1.0, blur=0.83, k_same=0.512345, none=0.2),
            *rows("face_detection_rate", blur=0.99, k_same=0.9, none=0.7),
        ]
        candidates = [risk("blur", 0.3, 0.2), risk("none", 0.02), risk("k_same", 0.05)]
        assert recommended(candidates, utility) == Recommendation(
            "k_same",
            "The upper bound of k_same, 5.0 %, stays at or under 1/20 (5.0 %); of 2 candidates "
            "that do so it is the most useful.",
            most_useful="blur",
            control="no_op",
            utility={
                "ssim": {"value": 0.512345, "most_useful": 0.83, "control": 1.0},
                "face_detection_rate": {"value": 0.9, "most_useful": 0.99},
            },
        )

    def test_the_most_useful_of_all(self) -> None:
        recommendation = recommended([risk("a", 0.04), risk("b", 0.02)], rows("ssim", a=0.9, b=0.8))
        assert recommendation.name == recommendation.most_useful == "a"
        assert recommendation.control is None
        assert recommendation.reason.endswith("most useful. No candidate is more useful.")

    def test_without_utility_the_lowest_risk(self) -> None:
        recommendation = recommended([risk("a", 0.04), risk("b", 0.03), risk("c", 0.5, 0.2)])
        assert recommendation == Recommendation(
            "b",
            "The upper bound of b, 3.0 %, stays at or under 1/20 (5.0 %); of 2 candidates that "
            "do so it has the lowest, and utility does not tell.",
        )

    def test_a_setting_without_utility_comes_after_those_with(self) -> None:
        assert recommended([risk("a", 0.04), risk("b", 0.03)], rows("ssim", a=0.1)).name == "a"

    def test_the_only_one(self) -> None:
        among = recommended([risk("a", 0.04), risk("b", 0.3, 0.2)])
        assert among.reason == (
            "The upper bound of a, 4.0 %, stays at or under 1/20 (5.0 %); of 2 candidates it is "
            "the only one to be relied on."
        )
        alone = recommended([risk("a", 0.04)])
        assert alone.reason == "The upper bound of a, 4.0 %, stays at or under 1/20 (5.0 %)."

    def test_one_that_keeps_nothing_comes_last_and_says_so(self) -> None:
        nothing = replace(risk("a", 0.02), keeps_nothing=True)
        utility = rows("ssim", a=0.9, b=0.8)
        assert recommended([nothing, risk("b", 0.04)], utility).name == "b"
        alone = recommended([nothing], utility)
        assert alone.name == "a"
        assert alone.reason.endswith("But it keeps no more of the original than a random face.")

    def test_one_that_breaks_the_gate_is_not_recommended(self) -> None:
        broken = replace(risk("a", 0.02), release="no")
        recommendation = recommended([broken])
        assert recommendation.name is None
        assert recommendation.reason == (
            "a stays under 1/20 (5.0 %) by numbers (upper bound 2.0 %), but it breaks "
            "audit.fail_on."
        )

    def test_an_attack_on_all_images_of_a_person_is_the_reason_without_any_rule(self) -> None:
        pooled = AttackRate("album", "full_ref", "source_excluded", 0.3, 0.2, 0.42, 0.01)
        exposed = replace(risk("a", 0.02), release="no", person_level=pooled)
        reason = (
            "but by all images of a person together an attacker who pools a person's images "
            "(album) identifies 30.0 % of the people, at least 20.0 %."
        )
        alone = recommended([exposed]).reason
        assert alone == f"a stays under 1/20 (5.0 %) by numbers (upper bound 2.0 %), {reason}"
        weak = replace(exposed, weakness=WEAK)
        assert recommended([weak]).reason == alone
        beside = recommended([exposed, risk("b", 0.04)])
        assert beside.name == "b"
        assert beside.reason.endswith(f"By numbers that of a does too, {reason}")

    def test_a_candidate_beside_it_that_breaks_the_gate_has_a_reason(self) -> None:
        broken = replace(risk("a", 0.02), release="inconclusive")
        beside = recommended([broken, risk("b", 0.04)])
        assert beside.name == "b"
        assert beside.reason.endswith("By numbers that of a does too, but it breaks audit.fail_on.")

    def test_a_leak_below_the_target_says_so(self) -> None:
        recommendation = recommended([risk("a", 0.04, 0.03, 0.02)])
        assert recommendation.name == "a"
        assert recommendation.reason.endswith(
            "People are still identified more often than by chance."
        )

    def test_attackers_that_were_not_run_are_told(self) -> None:
        recommendation = recommended(
            [risk("a", 0.04)], missed={"a": ["adaptive_contrastive"], "b": ["condition_only"]}
        )
        assert recommendation.name == "a"
        assert recommendation.reason.endswith(
            "It was not attacked by adaptive_contrastive, which may do more."
        )


class TestNoneQualifies:
    def test_the_closest_is_named(self) -> None:
        recommendation = recommended([risk("a", 0.3), risk("b", 0.07)], rows("ssim", a=0.9, b=0.8))
        assert recommendation == Recommendation(
            None,
            "No audited setting stays under 1/20 (5.0 %); the closest is b (upper bound 7.0 %).",
            most_useful="a",
        )

    def test_a_stricter_target(self) -> None:
        assert recommended([risk("a", 0.02)], target_k=50).name == "a"
        assert recommended([risk("a", 0.0201)], target_k=50).name is None

    def test_an_inconclusive_setting_never_qualifies(self) -> None:
        weak = replace(risk("a", 0.02), weakness=WEAK)
        recommendation = recommended([weak, risk("b", 0.2)])
        assert recommendation.name is None
        assert recommendation.reason == (
            f"a stays under 1/20 (5.0 %) by numbers (upper bound 2.0 %), but {WEAK}."
        )
        beside = recommended([weak, risk("b", 0.04), risk("c", 0.3)])
        assert beside.name == "b"
        assert beside.reason == (
            "The upper bound of b, 4.0 %, stays at or under 1/20 (5.0 %); of 3 candidates it is "
            f"the only one to be relied on. By numbers that of a does too, but {WEAK}."
        )

    def test_weak_attackers_recommend_nothing_even_among_leaks(self) -> None:
        recommendation = recommended([risk("a", 0.04, 0.03, 0.02)], weakness=WEAK)
        assert recommendation.name is None
        assert recommendation.reason.endswith(f"by numbers (upper bound 4.0 %), but {WEAK}.")
        above = recommended([risk("a", 0.4)], weakness=WEAK)
        assert above.reason.endswith(f"the closest is a (upper bound 40.0 %), and {WEAK}.")

    def test_too_few_people_for_the_target(self) -> None:
        recommendation = recommended([replace(risk("a", 0.1), chance=1 / 8, gallery_size=8)])
        assert recommendation.name is None
        assert (
            recommendation.reason == "8 people in the gallery can show no more than k = 8, not 20."
        )

    def test_nobody_was_attacked(self) -> None:
        assert recommended([]).reason == "No attack could be run on a candidate for release."
