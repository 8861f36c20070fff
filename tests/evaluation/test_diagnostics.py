import pytest

from cldmray.evaluation.diagnostics import (
    attacker_diagnostics,
    final_gain,
    not_converged,
)
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
    assert match[3:] == (0, 0, None, None)


def test_whose_curve_still_rises() -> None:
    rows = diagnostics()
    assert [not_converged(row) for row in rows] == [True, False, False]


def test_a_gain_of_less_than_a_percent_may_be_chance() -> None:
    (row,) = attacker_diagnostics({("a", "b"): [curve((50, 0.001), (100, 0.009))]}, {})
    assert row.final_gain == pytest.approx(0.008)
    assert not not_converged(row)
