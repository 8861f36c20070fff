"""Sentences on operating points, on learning curves and on queries, by hand-made numbers."""

from cldmray.evaluation.operating_points import OperatingPoint
from cldmray.report.statements import (
    convergence_note,
    operating_point_sentence,
    query_note,
    teacher_note,
    weakness_notes,
)
from cldmray.results.audit import AttackerDiagnostics


def point(name: str, high: float, utility: float) -> OperatingPoint:
    return OperatingPoint(name, "adaptive_contrastive", high / 2, high / 4, high, 100, utility)


GRID = [point("tight", 0.01, 0.2), point("loose", 0.05, 0.6), point("leaky", 0.2, 0.9)]


class TestOperatingPoint:
    def test_found(self) -> None:
        text = operating_point_sentence(GRID, 20, "ssim", 0.95, {})
        assert text.startswith(
            "Of 3 settings searched, the loosest that stays significantly under 1/20"
        )
        assert "is loose:" in text and "at most 5.0 %" in text and "ssim is 0.600" in text

    def test_weak_attackers_vouch_for_no_point(self) -> None:
        weakness = {"loose": "attacker too weak to conclude: so it is", "tight": "another"}
        text = operating_point_sentence(GRID, 20, "ssim", 0.95, weakness)
        assert text.endswith(
            "ssim is 0.600. But nothing can be concluded from that: attacker too weak to conclude: "
            "so it is."
        )

    def test_not_found(self) -> None:
        text = operating_point_sentence(GRID, 200, "ssim", 0.95, {})
        assert "none stays significantly under 1/200 = 0.50 %" in text
        assert "lowest upper bound is 1.0 %, of tight (adaptive_contrastive)" in text


def test_attackers_that_have_not_converged() -> None:
    rising = AttackerDiagnostics("blur", "adaptive_contrastive", None, 2, 100, 0.4, 0.1)
    flat = AttackerDiagnostics("blur", "clean_trained", 0.6, 1, 100, 0.52, 0.02)
    untrained = AttackerDiagnostics("blur", "condition_match", None, 0, 0, None, None)
    note = convergence_note([rising, flat, untrained])
    assert note.startswith("Not converged, ")
    assert "adaptive_contrastive on blur (validation 40.0 %, of which 10.0 % came last)" in note
    assert "clean_trained" not in note
    assert convergence_note([flat, untrained]) == ""
    both = [rising, rising._replace(anonymizer="no_op")]
    assert "adaptive_contrastive on blur and no_op (validation 40.0 %" in convergence_note(both)


def test_real_faces_want_attackers_with_a_teacher() -> None:
    assert "add adaptive_distilled" in teacher_note(synthetic=False, has_teacher=False)
    assert teacher_note(synthetic=False, has_teacher=True) == ""
    assert teacher_note(synthetic=True, has_teacher=False) == ""


def test_queries() -> None:
    assert query_note({}) == ""
    assert query_note({("blur", "reconstruction"): 1200, ("no_op-x", "reconstruction"): 5}) == (
        "Queries, each an image of another person to learn the reconstruction from: "
        "reconstruction 1,200 images of blur, reconstruction 5 images of no_op-x."
    )


def test_attackers_that_are_too_weak_are_named() -> None:
    rows = [
        AttackerDiagnostics("blur", "pretrained", 0.97, 0, 0, None, None, ability="shown"),
        AttackerDiagnostics("blur", "student", None, 1, 9, 0.05, None, ability="not_shown"),
        AttackerDiagnostics("none", "student", None, 1, 9, 0.05, None, ability="not_shown"),
    ]
    reason = "attacker too weak to conclude: student learnt too little"
    assert weakness_notes(rows, {"blur": "", "none": reason}) == [
        "Of all attackers pretrained recognizes clean faces best: it identifies 97.0 % of clean "
        "images (Full-Ref, source excluded).",
        "Too weak to conclude by themselves: student on blur, none.",
        "Attacker too weak to conclude: student learnt too little (none).",
    ]
    assert weakness_notes([], {}) == []
