"""The verdict in sentences: what an audit concludes, recommends, and why its gate fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cldmray.arrays import Interval
from cldmray.evaluation.decision import Decision, DecisionPolicy, ReleaseChoice, k_by_bound
from cldmray.evaluation.gate import Breach, BreachKind, Rule, evaluate_gate
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.report.formatting import gallery_name, percent, protocol_name
from cldmray.report.utility import formatted, heading
from cldmray.results.audit import AnonymizerRisk, AttackRate, Verdict
from cldmray.results.decision import Gate, Recommendation
from cldmray.results.schema import SCHEMA_VERSION


def state_verdict(decision: Decision) -> Verdict:
    """A decision as one sentence that a privacy officer can act on, and as data for programs."""
    sentences = []
    if decision.leaks:
        sentences.append(_leak_sentence(decision.leaks, len(decision.candidates)))
    elif decision.candidates:
        sentences.append(_no_leak_sentence(decision.candidates))
    if decision.unattacked:
        sentences.append(
            f"No attack could be run on {' and '.join(decision.unattacked)}, "
            "so nothing is known about their privacy."
        )
    gate = state_gate(decision.policy.rules, decision.breaches)
    recommendation = state_recommendation(decision.choice)
    candidates = {risk.anonymizer for risk in decision.candidates}
    machine = {
        "schema_version": SCHEMA_VERSION,
        "severity": decision.severity,
        "fail_on": gate.rules or None,
        "gate": {"outcome": gate.outcome, "reasons": list(gate.reasons)},
        "target_k": decision.policy.target_k,
        "recommended": {
            "name": recommendation.name,
            "reason": recommendation.reason,
            "most_useful": recommendation.most_useful,
            "control": recommendation.control,
            "utility": {name: dict(values) for name, values in recommendation.utility.items()},
        },
        "settings": [
            _setting(risk, risk.anonymizer in candidates) for risk in state_risks(decision)
        ],
    }
    return Verdict(" ".join(sentences), machine, recommendation, gate)


def state_risks(decision: Decision) -> list[AnonymizerRisk]:
    """The strongest attack on each anonymizer, with why it may be released or not."""
    policy = decision.policy
    return [replace(risk, release_reason=_release_reason(risk, policy)) for risk in decision.risks]


def _release_reason(risk: AnonymizerRisk, policy: DecisionPolicy) -> str:
    """One plain sentence; empty for a control."""
    target, attack = _target(policy.target_k), risk.tested_attack
    at_most = f"at most {percent(risk.simultaneous_upper_bound)} of the images are identified"
    if risk.release == "no":
        return (
            f"{attack.attacker} identifies {percent(attack.value)} of the images, at least "
            f"{percent(attack.low)}: {_broken(risk, policy) or f'more than {target}'}."
        )
    if risk.release == "yes":
        kept = "; it keeps no more of the original than a random face" if risk.keeps_nothing else ""
        leak = ", which is still above chance" if risk.finding == "leak" else ""
        return f"{at_most.capitalize()}{leak}, not more than {target}{kept}."
    if risk.release == "inconclusive":
        if risk.note:
            return f"Nothing can be concluded: {risk.note}."
        if risk.gallery_size < policy.target_k:
            return (
                f"{risk.gallery_size} people in the gallery can show no more than "
                f"k = {risk.gallery_size}, not {policy.target_k}."
            )
        return (
            f"The data support k = {risk.k_supported}: {at_most}, and {target} is asked for"
            f"{_and(_broken(risk, policy))}."
        )
    return ""


def _broken(risk: AnonymizerRisk, policy: DecisionPolicy) -> str:
    """The rules of the gate that an anonymizer breaks."""
    breaches = evaluate_gate(policy.rules, [risk.anonymizer], {risk.anonymizer: risk})
    rules = " and ".join(str(breach.rule) for breach in breaches)
    return f"{rules} of audit.fail_on is broken" if rules else ""


def _and(clause: str) -> str:
    return f", and {clause}" if clause else ""


def verdict_tags(verdict: Verdict) -> dict[str, str]:
    """The verdict as tags of an MLflow run."""
    recommendation = verdict.recommendation
    tags = {"verdict": verdict.sentence, "gate": verdict.gate.outcome}
    if verdict.gate.reasons:
        tags["gate_reasons"] = "; ".join(verdict.gate.reasons)
    if recommendation is not None:
        tags["recommended"] = recommendation.name or "none"
        tags["recommended_reason"] = recommendation.reason
    return tags


def _leak_sentence(leaks: Sequence[AnonymizerRisk], n_candidates: int) -> str:
    worst = leaks[0]
    attack = worst.tested_attack
    verb = "leaks" if len(leaks) == 1 else "leak"
    names = ", ".join(risk.anonymizer for risk in leaks)
    subject = f"{len(leaks)} of {n_candidates} settings {verb} identity ({names})."
    if n_candidates == 1:
        subject = f"{worst.anonymizer} leaks identity."
    k = worst.k_not_rejected
    return (
        f"{subject} The attacker {attack.attacker} identifies {percent(attack.value)} of the "
        f"images of {worst.anonymizer} ({100 * worst.confidence_level:g} % CI "
        f"{percent(attack.low)} to {percent(attack.high)}; chance {percent(worst.chance)}; "
        f"{protocol_name(attack.protocol)}, {gallery_name(attack.gallery)}). "
        f"This rejects every claim of k-anonymity {f'above k = {k}' if k > 1 else 'from k = 2 on'}."
    )


def _no_leak_sentence(candidates: Sequence[AnonymizerRisk]) -> str:
    worst = max(candidates, key=lambda risk: risk.simultaneous_upper_bound)
    note = next((risk.note for risk in (worst, *candidates) if risk.note), "")
    subject = worst.anonymizer if len(candidates) == 1 else f"any of {len(candidates)} settings"
    text = (
        f"No attack on {subject} is significantly above chance. At most "
        f"{percent(worst.simultaneous_upper_bound)} of the images are identified "
        f"(simultaneous upper bound, {worst.anonymizer}; chance {percent(worst.chance)})"
    )
    return f"{text}, but nothing can be concluded from that: {note}." if note else f"{text}."


def _setting(risk: AnonymizerRisk, candidate: bool) -> dict[str, Any]:
    """One setting of the verdict's JSON; see docs/results_files.md."""
    claims = k_anonymity(Interval(risk.risk, risk.low, risk.high), risk.gallery_size)
    return {
        "anonymizer": risk.anonymizer,
        "candidate": candidate,
        "is_control": risk.is_control,
        "release": risk.release,
        "release_reason": risk.release_reason,
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
        "k_supported": risk.k_supported,
        "k_not_rejected": risk.k_not_rejected,
        "point_estimate_k": claims.point_estimate,
        "cross_image": _rate(risk.cross_image),
        "same_image": _rate(risk.same_image),
        "person_level": _rate(risk.person_level),
        "linkage": _rate(risk.linkage),
        "utility_kept": risk.utility_kept and _bounds(risk.utility_kept),
        "keeps_nothing": risk.keeps_nothing,
        "excess": risk.excess and _bounds(risk.excess),
        "note": risk.note,
    }


def _rate(attack: AttackRate | None) -> dict[str, Any] | None:
    """One attack of the verdict's JSON."""
    if attack is None:
        return None
    rate = Interval(attack.value, attack.low, attack.high)
    return {
        "attacker": attack.attacker,
        "protocol": attack.protocol,
        "gallery": attack.gallery,
        **_bounds(rate),
        "chance": attack.chance,
        "above_chance": attack.above_chance,
    }


def _bounds(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high}


REASONS: Mapping[BreachKind, Callable[[AnonymizerRisk, Rule | None], str]] = {
    "claim_rejected": lambda risk, _: (
        f"the largest k not rejected is {risk.k_not_rejected} ({_attack(risk)})"
    ),
    "rate_exceeded": lambda risk, _: (
        f"the lower bound is {percent(risk.tested_attack.low)} ({_attack(risk)})"
    ),
    "leak": lambda risk, _: f"identities are recognised above chance ({_attack(risk)})",
    "inconclusive": lambda risk, _: risk.note,
    "gallery_too_small": lambda risk, rule: (
        f"with {risk.gallery_size} people in the gallery {rule} cannot be tested"
    ),
}
"""Why a setting breaks a rule, in words, by kind."""


def state_gate(rules: Sequence[Rule], breaches: Sequence[Breach]) -> Gate:
    """The gate with a reason for every setting and rule that is broken."""
    return Gate(" or ".join(map(str, rules)), tuple(_breach(breach) for breach in breaches))


def _breach(breach: Breach) -> str:
    if breach.risk is None:
        return f"{breach.anonymizer}: no attack could be run on it"
    return f"{breach.anonymizer}: {breach.rule}: {REASONS[breach.kind](breach.risk, breach.rule)}"


def _attack(risk: AnonymizerRisk) -> str:
    """The attack against which claims are tested, with its interval."""
    attack = risk.tested_attack
    return (
        f"{attack.attacker}, {protocol_name(attack.protocol)}: {percent(attack.value)}, "
        f"{percent(attack.low)} to {percent(attack.high)}"
    )


def state_recommendation(choice: ReleaseChoice) -> Recommendation:
    """The recommended setting, why it is recommended, and what it costs in utility."""
    recommended = choice.recommended
    if recommended is None:
        return Recommendation(None, _why_none(choice), choice.most_useful)
    name = recommended.anonymizer
    sentences = [
        f"The upper bound of {name}, {percent(recommended.simultaneous_upper_bound)}, stays at or "
        f"under {_target(choice.target_k)}{_among(choice)}."
    ]
    for risk in choice.candidates:
        if risk not in choice.supporting and k_by_bound(risk) >= choice.target_k:
            sentences.append(f"By numbers that of {risk.anonymizer} does too, but {risk.note}.")
    if recommended.finding == "leak":
        sentences.append("People are still identified more often than by chance.")
    if choice.utility:
        sentences.append(_cost(name, choice))
    if choice.missed:
        sentences.append(
            f"It was not attacked by {' and '.join(choice.missed)}, which may do more."
        )
    return Recommendation(
        name, " ".join(sentences), choice.most_useful, choice.control, choice.utility
    )


def _target(k: int) -> str:
    return f"1/{k} ({percent(1 / k)})"


def _among(choice: ReleaseChoice) -> str:
    n_candidates, n_supporting = len(choice.candidates), len(choice.supporting)
    if n_candidates == 1:
        return ""
    if n_supporting == 1:
        return f"; of {n_candidates} candidates it is the only one to be relied on"
    if choice.by_utility:
        return f"; of {n_supporting} candidates that do so it is the most useful"
    return f"; of {n_supporting} candidates that do so it has the lowest, and utility does not tell"


def _cost(name: str, choice: ReleaseChoice) -> str:
    others = {"most_useful": choice.most_useful, "control": choice.control}
    beside = {role: other for role, other in others.items() if other and other != name}
    named = [
        f"{other}, the most useful candidate" if role == "most_useful" else other
        for role, other in beside.items()
    ]
    parts = []
    for measure, values in choice.utility.items():
        measured = [formatted(measure, values[role]) if role in values else "-" for role in beside]
        label = heading(measure)
        parts.append(
            f"{label[0].lower()}{label[1:]} {formatted(measure, values['value'])}"
            + (f" ({', '.join(measured)})" if measured else "")
        )
    compared = f", in brackets of {', and of '.join(named)}" if named else ""
    text = f"Utility{compared}: {'; '.join(parts)}."
    return f"{text} No candidate is more useful." if choice.most_useful == name else text


def _why_none(choice: ReleaseChoice) -> str:
    k = choice.target_k
    if not choice.candidates:
        return "No attack could be run on a candidate for release."
    n_identities = max(risk.gallery_size for risk in choice.candidates)
    if n_identities < k:
        return (
            f"{n_identities} people in the gallery can show no more than k = {n_identities}, "
            f"not {k}."
        )
    closest = choice.candidates[0]
    bound = f"upper bound {percent(closest.simultaneous_upper_bound)}"
    limit = closest.note or choice.weakness.get(closest.anonymizer, "")
    if k_by_bound(closest) >= k:
        return f"{closest.anonymizer} stays under {_target(k)} by numbers ({bound}), but {limit}."
    return (
        f"No audited setting stays under {_target(k)}; the closest is {closest.anonymizer} "
        f"({bound}){f', and {limit}' if limit else ''}."
    )
