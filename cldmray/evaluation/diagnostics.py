"""Whether the attackers are good enough to be believed when they find nothing."""

from collections.abc import Sequence

from cldmray.pipelines.attack_runner import AttackResults, LearningCurve
from cldmray.report.formatting import percent
from cldmray.results.audit import AttackerDiagnostics

LAST_PART = 0.25
"""Share of the training, at its end, in which a curve must have become flat."""
FLAT = 0.1
"""Gain in that part, as a share of what was reached, up to which it counts as flat."""
NOISE = 0.01
"""Gain, as a rate, that may be chance."""


def attacker_diagnostics(found: AttackResults) -> list[AttackerDiagnostics]:
    """One row for every attacker and anonymizer: clear ceiling and learning curves.

    Where an attacker was trained several times, its validation rates are averaged.
    """
    rows = []
    for (anonymizer, attacker), curves in found.curves.items():
        last = [curve[-1] for curve in curves]
        rates = [point["validation_rank_1"] for point in last]
        rows.append(
            AttackerDiagnostics(
                anonymizer=anonymizer,
                attacker=attacker,
                clean=found.clean.get((anonymizer, attacker)),
                trainings=len(curves),
                steps=int(last[0]["step"]) if last else 0,
                validation=sum(rates) / len(rates) if rates else None,
                final_gain=final_gain(curves),
            )
        )
    return rows


def final_gain(curves: Sequence[LearningCurve]) -> float | None:
    """What the last quarter of the training added to the validation rate, averaged, 0..1.

    The first point is the last one at or before three quarters of the steps. None where a curve
    has no such point, as for attackers that learn nothing.
    """
    gains = []
    for curve in curves:
        steps = curve[-1]["step"]
        before = [point for point in curve if point["step"] <= (1 - LAST_PART) * steps]
        if not before:
            return None
        gains.append(curve[-1]["validation_rank_1"] - before[-1]["validation_rank_1"])
    return sum(gains) / len(gains) if gains else None


def not_converged(row: AttackerDiagnostics) -> bool:
    """Whether more training would probably find more."""
    if row.final_gain is None or row.validation is None:
        return False
    return row.final_gain > max(NOISE, FLAT * row.validation)


def convergence_note(rows: Sequence[AttackerDiagnostics]) -> str:
    """One sentence on attackers whose curves were not flat yet; empty if all were."""
    rising: dict[tuple[str, float, float], list[str]] = {}
    for row in rows:
        if not_converged(row):
            key = row.attacker, row.validation or 0.0, row.final_gain or 0.0
            rising.setdefault(key, []).append(row.anonymizer)
    if not rising:
        return ""
    named = ", ".join(
        f"{attacker} on {' and '.join(names)} (validation {percent(rate)}, of which "
        f"{percent(gain)} came last)"
        for (attacker, rate, gain), names in rising.items()
    )
    return (
        f"Still learning in the last quarter of their training: {named}. Longer training would "
        "probably find more."
    )


def query_note(found: AttackResults) -> str:
    """One sentence on how often inversions asked the anonymizers; empty if there were none."""
    told = [
        f"{attacker} {queries:,} images of {anonymizer}"
        for (anonymizer, attacker), queries in found.queries.items()
    ]
    if not told:
        return ""
    return f"Queries, each an image of another person to learn the reconstruction from: {', '.join(told)}."
