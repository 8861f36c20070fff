"""Whether an anonymizer may be released, and what it keeps, by hand-made numbers."""

from dataclasses import replace

import pytest

from cldmray.arrays import Interval
from cldmray.evaluation.decision import DecisionPolicy, decide
from cldmray.evaluation.gate import parse_rules
from cldmray.evaluation.release import utility_kept
from cldmray.results.audit import AnonymizerRisk, AttackRate, Release, UtilityRow
from tests.given_risks import risk

CALM = risk("blur", high=0.031, value=0.02, low=0.004)
LEAK = replace(CALM, risk=0.6, low=0.5, high=0.7, k_not_rejected=2)
LINKED = AttackRate("pretrained", "full_ref", "anonymized_only", 0.1, 0.06, 0.2, 0.01)
WEAK = "attacker too weak to conclude"


class TestRelease:
    @pytest.mark.parametrize(
        ("risk", "rules", "release"),
        [
            (LEAK, None, "no"),
            (CALM, None, "yes"),
            (CALM, "leak or k<20", "yes"),
            (replace(CALM, high=0.051), None, "inconclusive"),
            (replace(CALM, note=WEAK), None, "inconclusive"),
            (replace(LEAK, note=WEAK), None, "no"),
            (replace(CALM, risk=0.03, low=0.02, high=0.05), None, "yes"),
            (replace(CALM, risk=0.03, low=0.02, high=0.05), "leak", "no"),
            (replace(CALM, risk=0.03, low=0.02, high=0.05), "rank_1>0.01", "no"),
            (CALM, "k<101", "inconclusive"),
            (CALM, "k_supported<33", "inconclusive"),
            (replace(CALM, linkage=LINKED), None, "yes"),
            (replace(CALM, linkage=LINKED), "linkage", "no"),
            (replace(CALM, person_level=LINKED), None, "no"),
            (replace(CALM, person_level=LINKED._replace(low=0.04)), None, "yes"),
            (replace(CALM, person_level=LINKED._replace(low=0.04)), "leak", "no"),
            (replace(CALM, gallery="anonymized_only"), None, "inconclusive"),
            (replace(LEAK, gallery="anonymized_only"), None, "no"),
            # Eight people: chance itself exceeds 1/20, which is no success of an attack.
            (replace(CALM, risk=0.1, low=0.06, high=0.2, chance=1 / 8, gallery_size=8), None,
             "inconclusive"),
        ],
    )  # fmt: skip
    def test_rule(self, risk: AnonymizerRisk, rules: str | None, release: Release) -> None:
        (decided,) = decide([risk], [], DecisionPolicy(rules=parse_rules(rules))).risks
        assert decided.release == release

    def test_weak_attackers_decide_nothing(self) -> None:
        (decided,) = decide([CALM], [], weakness={"blur": WEAK}).risks
        assert (decided.release, decided.k_supported) == ("inconclusive", 1)

    def test_controls_have_no_release_unless_they_are_candidates(self) -> None:
        control, calm = decide([replace(LEAK, anonymizer="no_op"), CALM], ["no_op"]).risks
        assert (control.is_control, control.release) == (True, None)
        assert (calm.is_control, calm.release, calm.k_supported) == (False, "yes", 32)
        (alone,) = decide([replace(LEAK, anonymizer="no_op")], ["no_op"]).risks
        assert (alone.is_control, alone.release) == (True, "no")


def row(measure: str, *interval: float, clean: float | None, chance: float | None) -> UtilityRow:
    value, low, high = interval
    return UtilityRow("blur", measure, value, low, high, 9, True, clean, chance)


class TestUtilityKept:
    def test_mean_over_the_measures_with_both_references(self) -> None:
        """0.5 of [0.25, 0.75] and 0 of [-0.2, 0.2]: their means."""
        rows = [
            row("ssim", 0.6, 0.4, 0.8, clean=1.0, chance=0.2),
            row("pose_consistency", 0.5, 0.4, 0.6, clean=1.0, chance=0.5),
            row("face_detection_rate", 0.9, 0.9, 0.9, clean=1.0, chance=None),
        ]
        kept = utility_kept("blur", rows)
        assert kept is not None and kept.measures == ("ssim", "pose_consistency")
        assert kept.kept == pytest.approx((0.25, 0.025, 0.475))
        assert not kept.keeps_nothing

    def test_lower_is_better(self) -> None:
        """A distance of 2 [1, 3] where the original has 0 and a random image 4."""
        (kept, _) = utility_kept("blur", [row("frechet", 2, 1, 3, clean=0, chance=4)]) or ((), ())
        assert kept == pytest.approx((0.5, 0.25, 0.75))

    def test_a_random_face_keeps_nothing(self) -> None:
        (decided,) = decide(
            [CALM], [], utility=[row("ssim", 0.21, 0.19, 0.23, clean=1.0, chance=0.2)]
        ).risks
        assert decided.keeps_nothing
        assert decided.utility_kept == pytest.approx(Interval(0.0125, -0.0125, 0.0375))

    def test_no_scale_where_the_original_is_at_chance(self) -> None:
        assert utility_kept("blur", [row("sex", 0.5, 0.4, 0.6, clean=0.51, chance=0.5)]) is None
        assert utility_kept("other", [row("ssim", 0.5, 0.4, 0.6, clean=1.0, chance=0.5)]) is None
