"""The verdict in sentences: what an audit concludes, recommends, and why its gate fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cldmray.arrays import Interval
from cldmray.evaluation.decision import (
    NO_ORIGINAL,
    Decision,
    DecisionPolicy,
    ReleaseChoice,
    k_by_bound,
)
from cldmray.evaluation.gate import Breach, BreachKind, Linked, Rule, evaluate_gate
from cldmray.evaluation.release import rejecting_attack
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.report.formatting import (
    attacker_subject,
    held_name,
    percent,
    protocol_name,
    sentence_case,
)
from cldmray.results.audit import AnonymizerRisk, AttackRate, Verdict
from cldmray.results.decision import Gate, Recommendation
from cldmray.results.schema import SCHEMA_VERSION


def state_verdict(decision: Decision) -> Verdict:
    """A decision as one sentence that a privacy officer can act on, and as data for programs."""
    sentences = []
    leaks = decision.leaks
    if leaks:
        sentences.append(_leaking(leaks, len(decision.candidates)))
    by_images = bool(leaks) and leaks[0].finding == "leak"
    if by_images:
        sentences.append(_image_sentence(leaks[0]))
    if pooled := _pooled_sentence(leaks, decision.policy.target_k):
        sentences.append(pooled)
    if decision.candidates and not by_images:
        sentences.append(_no_leak_sentence(decision.candidates, by_pooled=bool(leaks)))
    if decision.unattacked:
        sentences.append(
            f"No attack could be run on {' and '.join(decision.unattacked)}, "
            "so nothing is known about their privacy."
        )
    if linkage := _linkage_sentence(decision.candidates):
        sentences.append(linkage)
    gate = state_gate(decision.policy.rules, decision.breaches)
    recommendation = state_recommendation(decision.choice)
    candidates = {risk.anonymizer for risk in decision.candidates}
    machine = {
        "schema_version": SCHEMA_VERSION,
        "severity": decision.severity,
        "fail_on": gate.rules or None,
        "gate": {"outcome": gate.outcome, "reasons": list(gate.reasons)},
        "target_k": decision.policy.target_k,
        "rule": state_rule(decision),
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
    """Why in plain words, and how a leak goes with an interval that reaches chance; empty for a
    control."""
    reason = _answer_reason(risk, policy)
    attack = rejecting_attack(risk, policy.target_k) or risk.strongest_attack
    return f"{reason} {note}" if reason and (note := _sharper_test(attack)) else reason


def _sharper_test(attack: AttackRate) -> str:
    """A sentence for the reader who sees a leak, and an interval that reaches down to chance."""
    if not (attack.above_chance and attack.low <= attack.chance):
        return ""
    return (
        f"{percent(attack.value)} is above chance though the interval begins at "
        f"{percent(attack.low)}: chance is tested on the same images with permuted identities, "
        "which tells more than the interval."
    )


def _answer_reason(risk: AnonymizerRisk, policy: DecisionPolicy) -> str:
    """One plain sentence; empty for a control."""
    target = _target(policy.target_k)
    done = "linked" if risk.only_linked else "identified"
    at_most = f"at most {percent(risk.simultaneous_upper_bound)} of the images are {done}"
    if risk.release == "no":
        attack = rejecting_attack(risk, policy.target_k)
        whom = "people by all of their images" if attack == risk.person_level else "images"
        if attack is not None:
            return sentence_case(
                f"{attacker_subject(attack.attacker)}, holding {held_name(attack.gallery)}, "
                f"{_verb(risk)} {percent(attack.value)} of the {whom}, at least "
                f"{percent(attack.low)}, more than {target}."
            )
        return f"{_broken(risk, policy)}."
    if risk.release == "yes":
        kept = "; but it keeps no more of the original than a random face"
        leak = ", which is still above chance" if risk.finding == "leak" else ""
        return (
            f"{at_most.capitalize()}{leak}, not more than {target}"
            f"{kept if risk.keeps_nothing else ''}.{_unsettled(risk, policy)}"
        )
    if risk.release == "inconclusive":
        if risk.weakness:
            return f"{sentence_case(risk.weakness)}."
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


def _unsettled(risk: AnonymizerRisk, policy: DecisionPolicy) -> str:
    """What a yes leaves open: people by all of their images, who are fewer than images."""
    pooled = risk.person_level
    if pooled is None:
        return ""
    settled = pooled.high <= 1 / policy.target_k
    more = "" if settled else ": more people must be audited to say less"
    if pooled.above_chance:
        return (
            f" By all images of a person together {percent(pooled.value)} of the people are "
            f"identified, at most {percent(pooled.high)}, which is above chance{more}."
        )
    if settled:
        return ""
    return (
        f" By all images of a person together up to {percent(pooled.high)} of the people may be "
        f"identified{more}."
    )


def _broken(risk: AnonymizerRisk, policy: DecisionPolicy) -> str:
    """The rules of the gate that an anonymizer breaks."""
    breaches = evaluate_gate(policy.rules, [risk.anonymizer], {risk.anonymizer: risk})
    reasons = (f"{breach.rule}: {_reason(breach.kind, risk, breach.rule)}" for breach in breaches)
    return "; ".join(reasons)


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


def _verb(risk: AnonymizerRisk) -> str:
    """What an attack does with images: whoever holds no original identifies nobody."""
    return "links" if risk.only_linked else "identifies"


def _leaking(leaks: Sequence[AnonymizerRisk], n_candidates: int) -> str:
    """Which candidates leak."""
    names = ", ".join(risk.anonymizer for risk in leaks)
    if all(risk.only_linked for risk in leaks):
        return f"Anonymized images of one person are linked with each other ({names})."
    if n_candidates == 1:
        return f"{names} leaks identity."
    verb = "leaks" if len(leaks) == 1 else "leak"
    return f"{len(leaks)} of {n_candidates} settings {verb} identity ({names})."


def _image_sentence(worst: AnonymizerRisk) -> str:
    """What the attack on single images identifies, and what that rejects."""
    attack, k = worst.tested_attack, worst.k_not_rejected
    identifies = sentence_case(
        f"{attacker_subject(attack.attacker)} {_verb(worst)} {percent(attack.value)} of the images "
        f"of {worst.anonymizer} ({_numbers(attack, worst.confidence_level)})."
    )
    if worst.only_linked:
        return f"{identifies} Nobody is identified by that: {NO_ORIGINAL}."
    return (
        f"{identifies} "
        f"This rejects every claim of k-anonymity {f'above k = {k}' if k > 1 else 'from k = 2 on'}."
        f"{_cross_image_sentence(worst)}"
    )


def _pooled_sentence(leaks: Sequence[AnonymizerRisk], target_k: int) -> str:
    """What attacks on all images of a person tell that those on single images do not.

    They count where single images do not leak, or not enough to forbid a release.
    """
    decisive = [
        (pooled, risk)
        for risk in leaks
        if (pooled := risk.person_level) is not None
        and (risk.finding != "leak" or rejecting_attack(risk, target_k) == pooled)
    ]
    if not decisive:
        return ""
    attack, worst = max(decisive, key=lambda pair: pair[0].low)
    return (
        f"By all anonymized images of a person together, {attacker_subject(attack.attacker)} "
        f"identifies {percent(attack.value)} of the people of {worst.anonymizer} "
        f"({_numbers(attack, worst.confidence_level)})."
    )


def _numbers(attack: AttackRate, confidence_level: float) -> str:
    """Bounds, chance and circumstances of one attack."""
    return (
        f"{100 * confidence_level:g} % CI {percent(attack.low)} to {percent(attack.high)}; "
        f"chance {percent(attack.chance)}; {protocol_name(attack.protocol)}, attacker has "
        f"{held_name(attack.gallery)}"
    )


def _cross_image_sentence(risk: AnonymizerRisk) -> str:
    """The usual case beside that of an attacker who has the very image; empty where it is that."""
    usual = risk.cross_image
    if usual is None or risk.tested_attack.gallery != "source_included":
        return ""
    return (
        f" With another image of the person only, {percent(usual.value)} are identified "
        f"({percent(usual.low)} to {percent(usual.high)})."
    )


def state_rule(decision: Decision) -> str:
    """The rule of a release and the level of its bounds, in one line."""
    levels = sorted({risk.confidence_level for risk in decision.risks})
    level = " / ".join(f"{100 * level:g} %" for level in levels)
    conditions = [
        "every attack on single images identifies at most "
        f"{_target(decision.policy.target_k)} of them",
        "the attackers have shown their ability",
    ]
    if decision.policy.rules:
        conditions.append("no rule of audit.fail_on is broken")
    return (
        f"Release: yes where {', '.join(conditions[:-1])} and {conditions[-1]}; no where one, on "
        "single images or on all images of a person, identifies significantly more. Bounds hold "
        f"for all attacks of one kind on an anonymizer at once ({level})."
    )


def _linkage_sentence(candidates: Sequence[AnonymizerRisk]) -> str:
    """Which candidates' images can be linked with each other; empty where none can."""
    linked = [
        (risk.linkage, risk.anonymizer)
        for risk in candidates
        if risk.linkage is not None and risk.linkage.above_chance
    ]
    if not linked:
        return ""
    worst, name = max(linked, key=lambda pair: pair[0].low)
    names = ", ".join(anonymizer for _, anonymizer in linked)
    return (
        f"Anonymized images of one person can be linked with each other ({names}): of {name} "
        f"{percent(worst.value)} find another image of their person first "
        f"({percent(worst.low)} to {percent(worst.high)}; chance {percent(worst.chance)})."
    )


def _no_leak_sentence(candidates: Sequence[AnonymizerRisk], by_pooled: bool) -> str:
    """What attacks on single images leave possible.

    Args:
        by_pooled: whether attacks on all images of a person are above chance.
    """
    worst = max(candidates, key=lambda risk: risk.simultaneous_upper_bound)
    note = next((risk.note for risk in (worst, *candidates) if risk.note), "")
    subject = worst.anonymizer if len(candidates) == 1 else f"any of {len(candidates)} settings"
    images = "single images of " if by_pooled else ""
    done = "linked" if worst.only_linked else "identified"
    text = (
        f"No attack on {images}{subject} is significantly above chance. At most "
        f"{percent(worst.simultaneous_upper_bound)} of the images are {done} "
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


def _linked(risk: AnonymizerRisk, rule: Rule | None) -> str:
    if risk.linking_attacks is None:
        return f"{rule} cannot be tested; add anonymized_only to audit.galleries"
    best, tested = risk.linking_attacks
    rate = tested if isinstance(rule, Linked) and rule.rate is not None else best
    return (
        f"images of one person are linked with each other ({rate.attacker}, "
        f"{protocol_name(rate.protocol)}: {percent(rate.value)}, {percent(rate.low)} to "
        f"{percent(rate.high)})"
    )


REASONS: Mapping[BreachKind, Callable[[AnonymizerRisk, Rule | None], str]] = {
    "claim_rejected": lambda risk, _: (
        f"the largest k not rejected is {risk.k_not_rejected} ({_attack(risk)})"
    ),
    "claim_not_supported": lambda risk, _: (
        f"the largest k that the data support is {risk.k_supported} "
        f"(upper bound {percent(risk.simultaneous_upper_bound)}{_and(risk.weakness)})"
    ),
    "linked": _linked,
    "not_measured": _linked,
    "rate_exceeded": lambda risk, _: (
        f"the lower bound is {percent(risk.tested_attack.low)} ({_attack(risk)})"
    ),
    "leak": lambda risk, _: _recognised(risk),
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
    return f"{breach.anonymizer}: {breach.rule}: {_reason(breach.kind, breach.risk, breach.rule)}"


def _reason(kind: BreachKind, risk: AnonymizerRisk, rule: Rule | None) -> str:
    return REASONS[kind](risk, rule)


def _recognised(risk: AnonymizerRisk) -> str:
    """Which attack is above chance."""
    if risk.only_linked:
        return f"images of one person are linked above chance ({_attack(risk)})"
    if risk.finding != "leak" and risk.person_level is not None:
        return (
            "people are recognised above chance by all of their images "
            f"({_with_interval(risk.person_level)})"
        )
    return f"identities are recognised above chance ({_attack(risk)})"


def _attack(risk: AnonymizerRisk) -> str:
    """The attack against which claims are tested, with its interval."""
    return _with_interval(risk.tested_attack)


def _with_interval(attack: AttackRate) -> str:
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
            obstacle = _obstacle(risk, choice)
            sentences.append(f"By numbers that of {risk.anonymizer} does too, but {obstacle}.")
    if recommended.leaks:
        sentences.append("People are still identified more often than by chance.")
    if recommended.keeps_nothing:
        sentences.append("But it keeps no more of the original than a random face.")
    elif choice.most_useful == name:
        sentences.append("No candidate is more useful.")
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


def _obstacle(risk: AnonymizerRisk, choice: ReleaseChoice) -> str:
    """Why a candidate whose upper bound supports the target is not to be relied on, as a clause.

    An attack comes first: it is a reason, however weak the other attackers are. A rule of the gate
    is what remains.
    """
    attack = rejecting_attack(risk, choice.target_k)
    if attack is not None:
        return (
            f"by all images of a person together {attacker_subject(attack.attacker)} identifies "
            f"{percent(attack.value)} of the people, at least {percent(attack.low)}"
        )
    return risk.weakness if risk.weakness and risk.release != "no" else "it breaks audit.fail_on"


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
    name = closest.anonymizer
    bound = f"upper bound {percent(closest.simultaneous_upper_bound)}"
    if k_by_bound(closest) >= k:
        obstacle = _obstacle(closest, choice)
        return f"{name} stays under {_target(k)} by numbers ({bound}), but {obstacle}."
    return (
        f"No audited setting stays under {_target(k)}; the closest is {name} "
        f"({bound}){_and(closest.weakness)}."
    )
