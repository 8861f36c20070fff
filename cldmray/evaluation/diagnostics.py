"""Whether the attackers are good enough to be believed when they find nothing.

Each attacker stands for itself, whatever the others reach. It has *shown its ability*

- where its own encoder identifies enough clean images (``audit.min_clean_rank_1``), or
- where it has learnt to read anonymized images: its rate on validation identities is
  significantly above chance, and has come at least a tenth of the way from its start, before the
  first step, to 1. On an anonymizer that leaves nothing there is nothing to learn, so that another
  anonymizer of the audit may show it: a positive control, such as a weak blur.

That nothing is found on an anonymizer counts where an encoder that was used there identifies
enough clean images and, where the audit has attackers that learn from the anonymizer, one of those
has shown its ability.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from scipy.special import betaincinv

from cldmray.results.audit import Ability, AttackerDiagnostics
from cldmray.results.audit import LearningCurve as TrainingCurve

LearningCurve = Sequence[Mapping[str, float]]
"""Points in order of ``step``, each with ``validation_rank_1``; NaN where it is not measured."""
AttackKey = tuple[str, str]
"""Names of an anonymizer and of an attacker."""

LAST_PART = 0.25
"""Share of the training, at its end, in which a curve must have become flat."""
FLAT = 0.1
"""Gain in that part, as a share of what was reached, up to which it counts as flat."""
NOISE = 0.01
"""Gain, as a rate, that may be chance."""
LEARNT = 0.1
"""Share of the way from its start to a rate of 1 that an attacker must come to have learnt."""
TOO_WEAK = "attacker too weak to conclude"


def attacker_diagnostics(
    curves: Mapping[AttackKey, Sequence[LearningCurve]],
    clean: Mapping[AttackKey, float],
    adaptive: Collection[str] = (),
    required: float = 0.9,
) -> list[AttackerDiagnostics]:
    """One row for every attacker and anonymizer: rank-1 on clean images and learning curves.

    Where an attacker was trained several times, its validation rates are averaged.

    Args:
        curves: learning curve of every training; none for attackers that learn nothing.
        clean: rank-1 rate of an attacker's own encoder on clean images, where that says how well it
            knows faces.
        adaptive: names of the attackers that learn from anonymized images.
        required: rate on clean images that shows an attacker's ability.
    """
    rows = []
    for (anonymizer, attacker), trainings in curves.items():
        last = [curve[-1] for curve in trainings]
        rows.append(
            AttackerDiagnostics(
                anonymizer=anonymizer,
                attacker=attacker,
                clean_rank_1=clean.get((anonymizer, attacker)),
                n_trainings=len(trainings),
                n_steps=int(last[0]["step"]) if last else 0,
                validation_rank_1=_mean(last, "validation_rank_1"),
                final_gain=final_gain(trainings),
                untrained_rank_1=_mean(last, "untrained_rank_1"),
                n_validation_identities=int(_mean(last, "validation_identities") or 0),
                learns_from_anonymized=attacker in adaptive,
            )
        )
    learnt = {row.attacker for row in rows if has_learnt(row)}
    return [row._replace(ability=_ability(row, learnt, required)) for row in rows]


def _mean(points: Sequence[Mapping[str, float]], key: str) -> float | None:
    """Mean over trainings of what their last points tell; None where they do not."""
    values = [point[key] for point in points if math.isfinite(point.get(key, math.nan))]
    return sum(values) / len(values) if values else None


def has_learnt(row: AttackerDiagnostics) -> bool:
    """Whether an attacker's rate on validation identities shows that it has learnt its task.

    >>> row = AttackerDiagnostics("blur", "student", None, 1, 100, 0.5, 0.0, 0.1, 20)
    >>> has_learnt(row), has_learnt(row._replace(validation_rank_1=0.15))
    (True, False)
    """
    rate, n = row.validation_rank_1, row.n_validation_identities
    if rate is None or n < 2:
        return False
    chance = 1 / n
    start = max(chance, row.untrained_rank_1 or 0.0)
    # Clopper and Pearson's lower bound, one trial an identity.
    hits = rate * n
    significant = hits > 0 and float(betaincinv(hits, n - hits + 1, 0.025)) > chance
    return significant and rate > start and rate - start >= LEARNT * (1 - start)


def _ability(row: AttackerDiagnostics, learnt: Collection[str], required: float) -> Ability:
    """See the module; ``learnt`` names the attackers that have learnt on some anonymizer."""
    if row.clean_rank_1 is not None and row.clean_rank_1 >= required:
        return "shown"
    if row.attacker in learnt:
        return "shown"
    return "unknown" if row.clean_rank_1 is None and not row.n_trainings else "not_shown"


def weaknesses(rows: Sequence[AttackerDiagnostics], required: float) -> dict[str, str]:
    """Why it would not count that nothing is found, by anonymizer; empty text where it counts.

    Args:
        rows: of all attackers on all anonymizers.
        required: rate on clean images that one encoder must reach.
    """
    by_anonymizer: dict[str, list[AttackerDiagnostics]] = {}
    for row in rows:
        by_anonymizer.setdefault(row.anonymizer, []).append(row)
    return {name: _weakness(own, required) for name, own in by_anonymizer.items()}


def _weakness(rows: Sequence[AttackerDiagnostics], required: float) -> str:
    encoders = [(row.clean_rank_1, row.attacker) for row in rows if row.clean_rank_1 is not None]
    if not encoders:
        return f"{TOO_WEAK}: none of the attackers has been tried on clean images"
    best, attacker = max(encoders)
    if best < required:
        return (
            f"{TOO_WEAK}: on clean images the best, {attacker}, identifies {100 * best:.1f} %, "
            f"less than the {100 * required:.1f} % that audit.min_clean_rank_1 asks for"
        )
    adaptive = [row for row in rows if row.learns_from_anonymized and row.ability != "unknown"]
    if not adaptive:
        return (
            f"{TOO_WEAK}: no attacker that learns from anonymized images was there, and others "
            "miss what images still tell; add adaptive_contrastive, for real faces "
            "adaptive_distilled"
        )
    if not any(row.ability == "shown" for row in adaptive):
        names = " and ".join(row.attacker for row in adaptive)
        return (
            f"{TOO_WEAK}: {names} learnt too little here and on every other anonymizer to tell "
            "that there is nothing to learn; train longer, or add an anonymizer that is easier to "
            "attack, such as blur"
        )
    return ""


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
            [_mean([point], "validation_rank_1") for point in points],
        )
        for (anonymizer, attacker), trainings in curves.items()
        for training, points in enumerate(trainings)
    ]


def final_gain(trainings: Sequence[LearningCurve]) -> float | None:
    """What the last quarter of the training added to the validation rate, averaged, 0..1.

    The first point is the last one at or before three quarters of the steps. None where a curve
    has no such point, as for attackers that learn nothing, or where no rate was measured.

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
        gain = curve[-1]["validation_rank_1"] - before[-1]["validation_rank_1"]
        if not math.isfinite(gain):
            return None
        gains.append(gain)
    return sum(gains) / len(gains) if gains else None


def not_converged(row: AttackerDiagnostics) -> bool:
    """Whether more training would probably find more."""
    if row.final_gain is None or row.validation_rank_1 is None:
        return False
    return row.final_gain > max(NOISE, FLAT * row.validation_rank_1)
