import json
import math
from typing import Any

import pytest

from cldmray.evaluation.diagnostics import (
    attacker_diagnostics,
    final_gain,
    has_learnt,
    learning_curves,
    not_converged,
    weaknesses,
)
from cldmray.report.statements import convergence_note
from cldmray.results.audit import AttackerDiagnostics


def curve(*points: tuple[int, float]) -> list[dict[str, float]]:
    return [{"step": s, "loss": 1.0, "validation_rank_1": rate} for s, rate in points]


class TestFinalGain:
    def test_the_last_quarter_by_hand(self) -> None:
        rising = curve((25, 0.1), (50, 0.2), (75, 0.25), (100, 0.35))
        assert final_gain([rising]) == pytest.approx(0.10)

    def test_a_point_between_does_not_count(self) -> None:
        assert final_gain([curve((50, 0.2), (90, 0.5), (100, 0.3))]) == pytest.approx(0.1)

    def test_trainings_are_averaged(self) -> None:
        flat, rising = curve((60, 0.3), (100, 0.3)), curve((60, 0.1), (100, 0.3))
        assert final_gain([flat, rising]) == pytest.approx(0.1)

    def test_unknown_without_an_early_point(self) -> None:
        assert final_gain([curve((100, 0.3))]) is None
        assert final_gain([]) is None


def diagnostics() -> list[AttackerDiagnostics]:
    return attacker_diagnostics(
        {
            ("blur", "adaptive_contrastive"): [
                curve((50, 0.2), (100, 0.4)),
                curve((50, 0.4), (100, 0.4)),
            ],
            ("blur", "clean_trained"): [curve((75, 0.5), (100, 0.52))],
            ("blur", "condition_match"): [],
        },
        {("blur", "clean_trained"): 0.6},
    )


def test_rows() -> None:
    adaptive, clean_trained, match = diagnostics()
    assert (adaptive.n_trainings, adaptive.n_steps, adaptive.clean_rank_1) == (2, 100, None)
    assert adaptive.validation_rank_1 == pytest.approx(0.4)
    assert adaptive.final_gain == pytest.approx(0.1)
    assert (clean_trained.clean_rank_1, clean_trained.n_trainings) == (0.6, 1)
    assert match[3:7] == (0, 0, None, None)


def test_whose_curve_still_rises() -> None:
    rows = diagnostics()
    assert [not_converged(row) for row in rows] == [True, False, False]


def test_a_gain_of_less_than_a_percent_may_be_chance() -> None:
    (row,) = attacker_diagnostics({("a", "b"): [curve((50, 0.001), (100, 0.009))]}, {})
    assert row.final_gain == pytest.approx(0.008)
    assert not not_converged(row)


def test_a_rate_that_nobody_measured_is_none() -> None:
    points = curve((50, math.nan), (75, math.nan), (100, math.nan))
    points = [{**point, "untrained_rank_1": math.nan} for point in points]
    curves = {("blur", "clean_trained"): [points, points]}
    (weak,) = attacker_diagnostics(curves, {})
    assert (weak.validation_rank_1, weak.untrained_rank_1, weak.final_gain) == (None,) * 3
    assert not has_learnt(weak) and not not_converged(weak) and weak.ability == "not_shown"
    assert convergence_note([weak]) == ""
    records = learning_curves(curves)
    assert [record.validation_rank_1 for record in records] == [[None] * 3] * 2
    assert records[0].steps == [50, 75, 100]
    json.dumps([weak, records], allow_nan=False)


def row(
    attacker: str,
    clean: float | None = None,
    validation: float | None = None,
    untrained: float | None = None,
    anonymizer: str = "blur",
) -> tuple[tuple[str, str], float | None, list[list[dict[str, float]]]]:
    """Keys, clean rate and learning curves of one attacker; 20 validation identities."""
    point = {"step": 9.0, "validation_identities": 20.0}
    point |= {} if untrained is None else {"untrained_rank_1": untrained}
    curves = [] if validation is None else [[{**point, "validation_rank_1": validation}]]
    return (anonymizer, attacker), clean, curves


def weakness_of(*rows: tuple[tuple[str, str], float | None, Any]) -> dict[str, str]:
    attackers = {key[1] for key, _, _ in rows}
    diagnosed = attacker_diagnostics(
        {key: curves for key, _, curves in rows},
        {key: clean for key, clean, _ in rows if clean is not None},
        {name for name in attackers if name.startswith(("adaptive", "student", "score_fusion"))},
    )
    return weaknesses(diagnosed, 0.9)


CALM = row("pretrained", clean=0.97)


class TestAbility:
    """Each attacker for itself: what the others reach does not vouch for it."""

    def abilities(self, *rows: tuple[tuple[str, str], float | None, Any]) -> list[str]:
        curves = {key: curves for key, _, curves in rows}
        clean = {key: rate for key, rate, _ in rows if rate is not None}
        return [diagnosed.ability for diagnosed in attacker_diagnostics(curves, clean)]

    def test_by_its_own_encoder(self) -> None:
        rows = CALM, row("clean_trained", clean=0.5, validation=0.06), row("condition_match")
        assert self.abilities(*rows) == ["shown", "not_shown", "unknown"]

    @pytest.mark.parametrize(
        ("validation", "untrained", "ability"),
        [
            (0.5, 0.1, "shown"),
            (0.5, None, "shown"),
            (0.05, 0.05, "not_shown"),
            (0.5, 0.5, "not_shown"),  # its start recognizes people, it has learnt nothing
            (0.5, 0.48, "not_shown"),
            (0.15, 0.05, "not_shown"),  # three of twenty people may be luck
            (float("nan"), 0.05, "not_shown"),
        ],
    )
    def test_a_student_by_what_it_has_learnt(
        self, validation: float, untrained: float | None, ability: str
    ) -> None:
        student = row("student", validation=validation, untrained=untrained)
        assert self.abilities(CALM, student) == ["shown", ability]

    def test_another_anonymizer_is_a_positive_control(self) -> None:
        here = row("student", validation=0.05, untrained=0.05, anonymizer="none")
        there = row("student", validation=0.6, untrained=0.05)
        assert self.abilities(here) == ["not_shown"]
        assert self.abilities(here, there) == ["shown", "shown"]


class TestWeakness:
    def test_attackers_that_do_not_learn_what_images_keep_prove_nothing(self) -> None:
        """On LFW a recognizer as it is identifies nobody behind a mosaic, a student 55 %."""
        expected = "no attacker that learns from anonymized images was there"
        for others in ([row("condition_match")], [row("score_fusion")], []):
            assert expected in weakness_of(CALM, *others)["blur"]

    def test_none_recognizes_clean_faces(self) -> None:
        reason = weakness_of(row("clean_trained", clean=0.5), row("pretrained", clean=0.6))["blur"]
        assert "on clean images the best, pretrained, identifies 60.0 %, less than the 90.0 %" in (
            reason
        )
        assert weakness_of(row("condition_match"))["blur"].endswith(
            "none of the attackers has been tried on clean images"
        )

    def test_a_student_that_learnt_nothing_is_not_vouched_for(self) -> None:
        weak = row("student", validation=0.05, untrained=0.05)
        reason = weakness_of(CALM, weak)["blur"]
        assert reason.startswith("attacker too weak to conclude: student learnt too little")
        able = row("adaptive_contrastive", clean=0.2, validation=0.6, untrained=0.05)
        assert weakness_of(CALM, weak, able) == {"blur": ""}

    def test_each_anonymizer_by_itself(self) -> None:
        able = row("adaptive_contrastive", validation=0.6, untrained=0.05)
        other = row("clean_trained", clean=0.5, anonymizer="k_same")
        reasons = weakness_of(CALM, able, other)
        assert reasons["blur"] == "" and reasons["k_same"]
