"""Whether one anonymizer's images may be released, and how much of the originals they keep."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cldmray.arrays import Interval
from cldmray.evaluation.gate import Breach, BreachKind
from cldmray.metrics.k_anonymity import rejects
from cldmray.results.audit import AnonymizerRisk, AttackRate, Release, UtilityRow

SMALLEST_SPAN = 0.05
"""Least distance of clean from chance, as a share of the larger, that makes a scale of utility."""

FAILS: frozenset[BreachKind] = frozenset({"claim_rejected", "rate_exceeded", "leak", "linked"})
"""Breaches of the gate that forbid a release; the others say that the data do not decide."""


class UtilityKept(NamedTuple):
    """What is kept of the originals, on a scale from a random other person to the original.

    Attributes:
        kept: mean over the measures of (value - chance) / (clean - chance); 0 is the image of a
            random other person, 1 the original.
        measures: names of the measures that count.
    """

    kept: Interval
    measures: tuple[str, ...]

    @property
    def keeps_nothing(self) -> bool:
        """Whether no more is kept, significantly, than by the image of a random other person."""
        return self.kept.low <= 0


def utility_kept(anonymizer: str, rows: Iterable[UtilityRow]) -> UtilityKept | None:
    """How much of the originals an anonymizer keeps.

    Measures count that have both references, clean and chance, where these differ by at least
    ``SMALLEST_SPAN`` of the larger: where the original itself is hardly above chance there is no
    scale. The bounds are the means of the measures' bounds, which hold however the measures hang
    together; clean and chance are taken as given.

    Args:
        anonymizer: its name in ``rows``.
        rows: utility of this and other anonymizers.

    Returns:
        None where no measure has both references.

    >>> row = UtilityRow("blur", "ssim", 0.6, 0.5, 0.7, 9, True, clean=1.0, chance=0.2)
    >>> kept, measures = utility_kept("blur", [row])
    >>> [round(bound, 3) for bound in kept]
    [0.5, 0.375, 0.625]
    """
    scaled = {}
    for row in rows:
        if row.anonymizer != anonymizer or row.clean is None or row.chance is None:
            continue
        span = row.clean - row.chance
        values = [row.value, row.low, row.high]
        largest = max(abs(row.clean), abs(row.chance))
        if abs(span) > SMALLEST_SPAN * largest and all(map(math.isfinite, values)):
            # Dividing by a negative span (lower is better) swaps the bounds.
            value, *bounds = ((each - row.chance) / span for each in values)
            scaled[row.measure] = (value, min(bounds), max(bounds))
    if not scaled:
        return None
    means = (math.fsum(part) / len(scaled) for part in zip(*scaled.values(), strict=True))
    return UtilityKept(Interval(*means), tuple(scaled))


def release(risk: AnonymizerRisk, target_k: int, breaches: Sequence[Breach]) -> Release:
    """Whether an anonymizer's images may be released.

    - ``no``: an attack identifies people significantly more often than chance and than 1/target_k,
      by one image or by all images of a person, or a rule of the gate is broken because an attack
      succeeds.
    - ``yes``: otherwise, where the data support ``target_k`` and no rule is broken.
    - ``inconclusive``: otherwise. The attackers are too weak, or the people too few.

    Args:
        risk: the strongest attack on it.
        target_k: k that it must support, at least 2.
        breaches: of the gate, by this anonymizer.
    """
    if rejecting_attack(risk, target_k) or any(breach.kind in FAILS for breach in breaches):
        return "no"
    return "yes" if risk.k_supported >= target_k and not breaches else "inconclusive"


def rejecting_attack(risk: AnonymizerRisk, target_k: int) -> AttackRate | None:
    """The attack that identifies people too often: above chance, and above 1/target_k.

    Of single images that with the highest lower bound, else that on all images of a person.
    """
    if risk.finding == "leak" and _rejects(risk.tested_attack, target_k):
        return risk.tested_attack
    pooled = risk.person_level
    if pooled is not None and pooled.above_chance and _rejects(pooled, target_k):
        return pooled
    return None


def _rejects(attack: AttackRate, k: int) -> bool:
    return rejects(Interval(attack.value, attack.low, attack.high), k)
