"""Which audited setting may be released, and what it costs in utility.

One sentence that a privacy officer can act on, what follows, and the same for programs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cldmray.arrays import Interval
from cldmray.evaluation.gate import Rule, evaluate_gate
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.report.formatting import gallery_name, percent, protocol_name
from cldmray.report.utility import formatted, heading
from cldmray.results.audit import AnonymizerRisk, Finding, UtilityRow, Verdict
from cldmray.results.decision import Recommendation

Values = Mapping[str, Mapping[str, float]]
"""Value of each measure by the setting's name."""


def supported_k(risk: AnonymizerRisk, weakness: str = "") -> int:
    """The largest k that an audit positively supports for a setting.

    That is the largest k whose 1/k is not below the highest upper bound of all attacks, from 1 to
    the gallery's people; 1, which says nothing, where the attackers are too weak to conclude.

    Args:
        weakness: why the attackers may be too weak to conclude; empty if they are not.
    """
    return 1 if weakness or risk.note else _k_by_numbers(risk)


def by_usefulness(names: Iterable[str], rows: Sequence[UtilityRow]) -> list[str]:
    """Settings by their mean rank over the measures of utility, the most useful first.

    Ranks are taken among these settings, equal values share the mean of theirs. Only measures that
    all of them have count, but for settings without any measure, which are left out. Equal mean
    ranks stay in the order of ``names``.

    Args:
        names: of the settings.
        rows: utility of these and other settings.

    Returns:
        The settings that could be compared; none where no measure is common to them.
    """
    values = _values(rows)
    rated = [name for name in names if values.get(name)]
    higher = {row.measure: row.higher_is_better for row in rows}
    shared = [m for m in higher if rated and all(m in values[name] for name in rated)]
    if not shared:
        return []

    def mean_rank(name: str) -> float:
        total = 0.0
        for measure in shared:
            sign = 1 if higher[measure] else -1
            gaps = [sign * (values[other][measure] - values[name][measure]) for other in rated]
            total += sum(gap > 0 for gap in gaps) + sum(gap == 0 for gap in gaps) / 2
        return total

    return sorted(rated, key=mean_rank)


def recommend(
    candidates: Sequence[AnonymizerRisk],
    controls: Iterable[str],
    rows: Sequence[UtilityRow],
    target_k: int,
    weakness: str,
    missed: Mapping[str, Sequence[str]],
) -> Recommendation:
    """The most useful candidate whose highest upper bound stays at or under 1/target_k.

    The most useful is the first of :func:`by_usefulness` over all candidates; where utility does
    not tell, the one with the lowest upper bound. Where attackers are too weak to conclude,
    nothing can be recommended.

    Args:
        candidates: the strongest attack on each setting that is a candidate for release.
        controls: names of the settings that are controls; utility is compared with the first.
        rows: utility of all settings; may be empty.
        target_k: k that a setting must support, at least 2.
        weakness: see :func:`supported_k`.
        missed: attackers that could not be run, by setting.
    """
    safest = sorted(
        candidates, key=lambda risk: (risk.simultaneous_upper_bound, risk.risk, risk.anonymizer)
    )
    useful = by_usefulness([risk.anonymizer for risk in safest], rows)
    most_useful = useful[0] if useful else None
    fit = [risk for risk in safest if supported_k(risk, weakness) >= target_k]
    if not fit:
        reason = _why_none(safest, target_k, weakness)
        return Recommendation(None, reason, most_useful)
    place = {name: rank for rank, name in enumerate(useful)}
    chosen = min(fit, key=lambda risk: place.get(risk.anonymizer, len(place)))
    name = chosen.anonymizer
    values = _values(rows)
    own = {risk.anonymizer for risk in candidates}
    control = next((other for other in controls if other in values and other not in own), None)
    utility = {
        measure: {"value": value}
        | {
            role: values[other][measure]
            for role, other in (("most_useful", most_useful), ("control", control))
            if other is not None and measure in values[other]
        }
        for measure, value in values.get(name, {}).items()
    }
    sentences = [
        f"The upper bound of {name}, {percent(chosen.simultaneous_upper_bound)}, stays at or under "
        f"{_target(target_k)}{_choice(len(fit), len(safest), name in place)}."
    ]
    for risk in safest:
        if risk not in fit and _k_by_numbers(risk) >= target_k:
            sentences.append(f"By numbers that of {risk.anonymizer} does too, but {risk.note}.")
    if chosen.finding == "leak":
        sentences.append("People are still named more often than by chance.")
    if utility:
        sentences.append(_cost(name, most_useful, control, utility))
    if missed.get(name):
        sentences.append(f"It was not attacked by {' and '.join(missed[name])}, which may do more.")
    return Recommendation(name, " ".join(sentences), most_useful, control, utility)


def _values(rows: Iterable[UtilityRow]) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if math.isfinite(row.value):
            values.setdefault(row.anonymizer, {})[row.measure] = row.value
    return values


def _k_by_numbers(risk: AnonymizerRisk) -> int:
    interval = Interval(risk.risk, risk.low, risk.simultaneous_upper_bound)
    return k_anonymity(interval, risk.gallery_size).k_supported


def _target(k: int) -> str:
    return f"1/{k} ({percent(1 / k)})"


def _choice(fit: int, candidates: int, rated: bool) -> str:
    if candidates == 1:
        return ""
    if fit == 1:
        return f"; of {candidates} candidates it is the only one to be relied on"
    if rated:
        return f"; of {fit} candidates that do so it is the most useful"
    return f"; of {fit} candidates that do so it has the lowest, and utility does not tell"


def _cost(name: str, most_useful: str | None, control: str | None, utility: Values) -> str:
    others = {"most_useful": most_useful, "control": control}
    beside = {role: other for role, other in others.items() if other and other != name}
    formatting = [
        f"{other}, the most useful candidate" if role == "most_useful" else other
        for role, other in beside.items()
    ]
    parts = []
    for measure, values in utility.items():
        measured = [formatted(measure, values[role]) if role in values else "-" for role in beside]
        label = heading(measure)
        parts.append(
            f"{label[0].lower()}{label[1:]} {formatted(measure, values['value'])}"
            + (f" ({', '.join(measured)})" if measured else "")
        )
    compared = f", in brackets of {', and of '.join(formatting)}" if formatting else ""
    text = f"Utility{compared}: {'; '.join(parts)}."
    return f"{text} No candidate is more useful." if most_useful == name else text


def _why_none(safest: Sequence[AnonymizerRisk], k: int, weakness: str) -> str:
    if not safest:
        return "No attack could be run on a candidate for release."
    gallery_identities = max(risk.gallery_size for risk in safest)
    if gallery_identities < k:
        return f"{gallery_identities} people in the gallery can show no more than k = {gallery_identities}, not {k}."
    closest = safest[0]
    bound, limit = (
        f"upper bound {percent(closest.simultaneous_upper_bound)}",
        closest.note or weakness,
    )
    if _k_by_numbers(closest) >= k:
        return f"{closest.anonymizer} stays under {_target(k)} by numbers ({bound}), but {limit}."
    return (
        f"No audited setting stays under {_target(k)}; the closest is {closest.anonymizer} "
        f"({bound}){f', and {limit}' if limit else ''}."
    )


@dataclass(frozen=True)
class DecisionPolicy:
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


DEFAULT_POLICY = DecisionPolicy()


def verdict(
    risks: Sequence[AnonymizerRisk],
    controls: Iterable[str],
    policy: DecisionPolicy = DEFAULT_POLICY,
    utility: Sequence[UtilityRow] = (),
    weakness: str = "",
    missed: Mapping[str, Sequence[str]] | None = None,
) -> Verdict:
    """The audit's answer over all settings that are candidates for release.

    Args:
        risks: the strongest attack on each anonymizer that was attacked, at least one.
        controls: names of anonymizers that are controls, the one to compare utility with first.
        policy: what to answer.
        utility: how useful each anonymizer's images still are; may be empty.
        weakness: why the attackers may be too weak to conclude that nothing leaks; may be empty.
        missed: attackers that could not be run, by anonymizer; one without any attack has no risk.
    """
    controls, missed = sorted(controls), missed or {}
    by_name = {risk.anonymizer: risk for risk in risks}
    names = policy.candidates(dict.fromkeys([*by_name, *missed]), controls)
    candidates = [by_name[name] for name in names if name in by_name]
    unattacked = [name for name in names if name not in by_name]
    leaks = sorted(
        (risk for risk in candidates if risk.finding == "leak"), key=lambda r: -r.tested_attack.low
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
    gate = evaluate_gate(policy.rules, names, by_name)
    advice = recommend(candidates, controls, utility, policy.target_k, weakness, missed)
    machine = {
        "severity": severity,
        "fail_on": gate.rules or None,
        "gate": {"outcome": gate.outcome, "reasons": list(gate.reasons)},
        "target_k": policy.target_k,
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
    attack = worst.tested_attack
    verb = "gives" if len(leaks) == 1 else "give"
    named = ", ".join(risk.anonymizer for risk in leaks)
    which = f"{len(leaks)} of {count} settings {verb} people away ({named})"
    if count == 1:
        which = f"{worst.anonymizer} gives people away"
    claims = f"above k = {worst.k_not_rejected}" if worst.k_not_rejected > 1 else "from k = 2 on"
    return (
        f"{which}: with {worst.anonymizer}, the {attack.attacker} attack names the right person "
        f"in {percent(attack.value)} of images ({100 * worst.confidence_level:g} % confidence: "
        f"{percent(attack.low)} to {percent(attack.high)}; chance: {percent(worst.chance)}; "
        f"{protocol_name(attack.protocol)}, {gallery_name(attack.gallery)}), which rejects every "
        f"claim of k-anonymity {claims}."
    )


def _calm_sentence(candidates: list[AnonymizerRisk]) -> str:
    worst = max(candidates, key=lambda risk: risk.simultaneous_upper_bound)
    note = next((risk.note for risk in (worst, *candidates) if risk.note), "")
    which = worst.anonymizer if len(candidates) == 1 else f"any of {len(candidates)} settings"
    text = (
        f"No attack on {which} can be told from chance; the most that is "
        f"compatible with the measurements is {percent(worst.simultaneous_upper_bound)} of images named rightly "
        f"({worst.anonymizer}; chance: {percent(worst.chance)})"
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
        "confidence_level": risk.confidence_level,
        "chance": risk.chance,
        "attacker": risk.attacker,
        "protocol": risk.protocol,
        "gallery": risk.gallery,
        "simultaneous_upper_bound": risk.simultaneous_upper_bound,
        "point_estimate_k": claims.point_estimate,
        "k_not_rejected": risk.k_not_rejected,
        "k_supported": supported_k(risk, weakness),
        "note": risk.note,
    }
