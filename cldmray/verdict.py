"""One sentence that a privacy officer can act on, what follows, and the same for programs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cldmray.gate import Rule, judge
from cldmray.metrics.confidence import Interval
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.recommendation import recommend, supported_k
from cldmray.report.model import AnonymizerRisk, Finding, UtilityRow, Verdict
from cldmray.report.words import gallery_name, percent, protocol_name


@dataclass(frozen=True)
class Terms:
    """What a verdict has to answer.

    Attributes:
        target_k: k of k-anonymity that a recommended setting must support.
        rules: of ``audit.fail_on``.
        release: names of the settings that are meant to be released; None: all but controls.
    """

    target_k: int = 20
    rules: tuple[Rule, ...] = ()
    release: tuple[str, ...] | None = None

    def candidates(self, names: Iterable[str], controls: Iterable[str]) -> list[str]:
        """Names of the candidates for release; controls are candidates only if alone or named."""
        if self.release is not None:
            return [name for name in names if name in self.release]
        every, excluded = list(names), set(controls)
        return [name for name in every if name not in excluded] or every


DEFAULT_TERMS = Terms()


def verdict(
    risks: Sequence[AnonymizerRisk],
    controls: Iterable[str],
    terms: Terms = DEFAULT_TERMS,
    utility: Sequence[UtilityRow] = (),
    weakness: str = "",
    missed: Mapping[str, Sequence[str]] | None = None,
) -> Verdict:
    """The audit's answer over all settings that are candidates for release.

    Args:
        risks: the strongest attack on each anonymizer that was attacked, at least one.
        controls: names of anonymizers that are controls, the one to compare utility with first.
        terms: what to answer.
        utility: how useful each anonymizer's pictures still are; may be empty.
        weakness: why the attackers may be too weak to conclude that nothing leaks; may be empty.
        missed: attackers that could not be run, by anonymizer; one without any attack has no risk.
    """
    controls, missed = sorted(controls), missed or {}
    by_name = {risk.anonymizer: risk for risk in risks}
    names = terms.candidates(dict.fromkeys([*by_name, *missed]), controls)
    candidates = [by_name[name] for name in names if name in by_name]
    unattacked = [name for name in names if name not in by_name]
    leaks = sorted(
        (risk for risk in candidates if risk.finding == "leak"), key=lambda r: -r.rejecting.low
    )
    severity: Finding = "no_leak_found"
    if leaks:
        severity = "leak"
    elif unattacked or any(risk.finding == "inconclusive" for risk in candidates):
        severity = "inconclusive"
    sentences = []
    if candidates:
        calm = _leak_sentence(leaks, len(candidates)) if leaks else _calm_sentence(candidates)
        sentences.append(calm)
    if unattacked:
        sentences.append(
            f"No attack could be run on {' and '.join(unattacked)}, "
            "so nothing is known about their privacy."
        )
    gate = judge(terms.rules, names, by_name)
    advice = recommend(candidates, controls, utility, terms.target_k, weakness, missed)
    machine = {
        "severity": severity,
        "fail_on": gate.rules or None,
        "gate": {"outcome": gate.outcome, "reasons": list(gate.reasons)},
        "target_k": terms.target_k,
        "recommended": {
            "name": advice.name,
            "reason": advice.reason,
            "most_useful": advice.most_useful,
            "control": advice.control,
            "utility": {measure: dict(values) for measure, values in advice.utility.items()},
        },
        "settings": [_machine(risk, risk.anonymizer in names, weakness) for risk in risks],
    }
    return Verdict(" ".join(sentences), machine, advice, gate)


def verdict_tags(judged: Verdict) -> dict[str, str]:
    """The verdict as tags of an MLflow run."""
    advice = judged.recommendation
    tags = {"verdict": judged.sentence, "gate": judged.gate.outcome}
    if judged.gate.reasons:
        tags["gate_reasons"] = "; ".join(judged.gate.reasons)
    if advice is not None:
        tags |= {"recommended": advice.name or "none", "recommended_reason": advice.reason}
    return tags


def _leak_sentence(leaks: list[AnonymizerRisk], count: int) -> str:
    worst = leaks[0]
    attack = worst.rejecting
    verb = "gives" if len(leaks) == 1 else "give"
    named = ", ".join(risk.anonymizer for risk in leaks)
    which = f"{len(leaks)} of {count} settings {verb} people away ({named})"
    if count == 1:
        which = f"{worst.anonymizer} gives people away"
    claims = f"above k = {worst.largest_k}" if worst.largest_k > 1 else "from k = 2 on"
    return (
        f"{which}: with {worst.anonymizer}, the {attack.attacker} attack names the right person "
        f"in {percent(attack.value)} of photos ({100 * worst.level:g} % confidence: "
        f"{percent(attack.low)} to {percent(attack.high)}; guessing: {percent(worst.chance)}; "
        f"{protocol_name(attack.protocol)}, {gallery_name(attack.gallery)}), which rejects every "
        f"claim of k-anonymity {claims}."
    )


def _calm_sentence(candidates: list[AnonymizerRisk]) -> str:
    worst = max(candidates, key=lambda risk: risk.ceiling)
    note = next((risk.note for risk in (worst, *candidates) if risk.note), "")
    which = worst.anonymizer if len(candidates) == 1 else f"any of {len(candidates)} settings"
    text = (
        f"No attack on {which} can be told from guessing; the most that is "
        f"compatible with the measurements is {percent(worst.ceiling)} of photos named rightly "
        f"({worst.anonymizer}; guessing: {percent(worst.chance)})"
    )
    if note:
        return f"{text}, but nothing can be concluded from that: {note}."
    return f"{text}."


def _machine(risk: AnonymizerRisk, candidate: bool, weakness: str) -> dict[str, Any]:
    claims = k_anonymity(Interval(risk.risk, risk.low, risk.high), risk.gallery_size)
    return {
        "anonymizer": risk.anonymizer,
        "candidate": candidate,
        "finding": risk.finding,
        "rank_1": risk.risk,
        "ci_low": risk.low,
        "ci_high": risk.high,
        "level": risk.level,
        "chance": risk.chance,
        "attacker": risk.attacker,
        "protocol": risk.protocol,
        "gallery": risk.gallery,
        "highest_upper_bound": risk.ceiling,
        "point_estimate_k": claims.point_estimate,
        "largest_k_not_rejected": risk.largest_k,
        "largest_k_supported": supported_k(risk, weakness),
        "note": risk.note,
    }
