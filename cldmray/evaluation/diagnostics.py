"""Whether the attackers are good enough to be believed when they find nothing."""

from collections.abc import Mapping, Sequence

from cldmray.results.audit import AttackerDiagnostics
from cldmray.results.audit import LearningCurve as TrainingCurve

LearningCurve = Sequence[Mapping[str, float]]
"""Points in order of ``step``, each with ``validation_rank_1``."""
AttackKey = tuple[str, str]
"""Names of an anonymizer and of an attacker."""

LAST_PART = 0.25
"""Share of the training, at its end, in which a curve must have become flat."""
FLAT = 0.1
"""Gain in that part, as a share of what was reached, up to which it counts as flat."""
NOISE = 0.01
"""Gain, as a rate, that may be chance."""


def attacker_diagnostics(
    curves: Mapping[AttackKey, Sequence[LearningCurve]], clean: Mapping[AttackKey, float]
) -> list[AttackerDiagnostics]:
    """One row for every attacker and anonymizer: rank-1 on clean images and learning curves.

    Where an attacker was trained several times, its validation rates are averaged.

    Args:
        curves: learning curve of every training; none for attackers that learn nothing.
        clean: rank-1 rate on clean images, where that says how well an attacker knows faces.
    """
    rows = []
    for (anonymizer, attacker), trainings in curves.items():
        last = [curve[-1] for curve in trainings]
        rates = [point["validation_rank_1"] for point in last]
        rows.append(
            AttackerDiagnostics(
                anonymizer=anonymizer,
                attacker=attacker,
                clean_rank_1=clean.get((anonymizer, attacker)),
                n_trainings=len(trainings),
                n_steps=int(last[0]["step"]) if last else 0,
                validation_rank_1=sum(rates) / len(rates) if rates else None,
                final_gain=final_gain(trainings),
            )
        )
    return rows


def learning_curves(
    curves: Mapping[AttackKey, Sequence[LearningCurve]],
) -> list[TrainingCurve]:
    """The curves as records of the results, one a training.

    >>> points = [{"step": 50.0, "validation_rank_1": 0.5}]
    >>> learning_curves({("blur", "adaptive_contrastive"): [points]})[0].steps
    [50]
    """
    return [
        TrainingCurve(
            anonymizer,
            attacker,
            training,
            [int(point["step"]) for point in points],
            [point["validation_rank_1"] for point in points],
        )
        for (anonymizer, attacker), trainings in curves.items()
        for training, points in enumerate(trainings)
    ]


def final_gain(trainings: Sequence[LearningCurve]) -> float | None:
    """What the last quarter of the training added to the validation rate, averaged, 0..1.

    The first point is the last one at or before three quarters of the steps. None where a curve
    has no such point, as for attackers that learn nothing.

    >>> curve = [{"step": 75, "validation_rank_1": 0.5}, {"step": 100, "validation_rank_1": 0.75}]
    >>> final_gain([curve])
    0.25
    """
    gains = []
    for curve in trainings:
        n_steps = curve[-1]["step"]
        before = [point for point in curve if point["step"] <= (1 - LAST_PART) * n_steps]
        if not before:
            return None
        gains.append(curve[-1]["validation_rank_1"] - before[-1]["validation_rank_1"])
    return sum(gains) / len(gains) if gains else None


def not_converged(row: AttackerDiagnostics) -> bool:
    """Whether more training would probably find more."""
    if row.final_gain is None or row.validation_rank_1 is None:
        return False
    return row.final_gain > max(NOISE, FLAT * row.validation_rank_1)
