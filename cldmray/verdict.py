"""One sentence that a privacy officer can act on, and the same for programs."""

from typing import Any

from cldmray.report.model import AnonymizerRisk, Finding, Verdict
from cldmray.report.words import gallery_name, percent, protocol_name


def verdict(risks: list[AnonymizerRisk], controls: set[str]) -> Verdict:
    """The audit's answer over all settings that are candidates for release.

    Args:
        risks: the strongest attack on each anonymizer, at least one.
        controls: names of anonymizers that are controls; they are spoken of only if alone.
    """
    candidates = [risk for risk in risks if risk.anonymizer not in controls] or risks
    leaks = sorted(
        (risk for risk in candidates if risk.finding == "leak"), key=lambda risk: -risk.low
    )
    severity: Finding = "no_leak_found"
    if leaks:
        severity = "leak"
    elif any(risk.finding == "inconclusive" for risk in candidates):
        severity = "inconclusive"
    sentence = _leak_sentence(leaks, len(candidates)) if leaks else _calm_sentence(candidates)
    return Verdict(sentence, {"severity": severity, "settings": [_machine(r) for r in risks]})


def _leak_sentence(leaks: list[AnonymizerRisk], count: int) -> str:
    worst = leaks[0]
    verb = "gives" if len(leaks) == 1 else "give"
    named = ", ".join(risk.anonymizer for risk in leaks)
    which = f"{len(leaks)} of {count} settings {verb} people away ({named})"
    if count == 1:
        which = f"{worst.anonymizer} gives people away"
    return (
        f"{which}: with {worst.anonymizer}, the {worst.attacker} attack names the right person "
        f"in {percent(worst.risk)} of photos ({100 * worst.level:g} % confidence: "
        f"{percent(worst.low)} to {percent(worst.high)}; guessing: {percent(worst.chance)}; "
        f"{protocol_name(worst.protocol)}, {gallery_name(worst.gallery)}), which rejects every "
        f"claim of k-anonymity above k = {worst.largest_k}."
    )


def _calm_sentence(candidates: list[AnonymizerRisk]) -> str:
    worst = max(candidates, key=lambda risk: risk.high)
    note = next((risk.note for risk in (worst, *candidates) if risk.note), "")
    which = worst.anonymizer if len(candidates) == 1 else f"any of {len(candidates)} settings"
    text = (
        f"No attack on {which} can be told from guessing; the most that is "
        f"compatible with the measurements is {percent(worst.high)} of photos named rightly "
        f"({worst.anonymizer}; guessing: {percent(worst.chance)})"
    )
    if note:
        return f"{text}, but nothing can be concluded from that: {note}."
    return f"{text}."


def _machine(risk: AnonymizerRisk) -> dict[str, Any]:
    return {
        "anonymizer": risk.anonymizer,
        "finding": risk.finding,
        "rank_1": risk.risk,
        "ci_low": risk.low,
        "ci_high": risk.high,
        "level": risk.level,
        "chance": risk.chance,
        "attacker": risk.attacker,
        "protocol": risk.protocol,
        "gallery": risk.gallery,
        "largest_k_not_rejected": risk.largest_k,
        "note": risk.note,
    }
