"""Which audited setting may be released, what it costs in utility, and what the audit concludes.

Rules only: :mod:`cldmray.report.verdict` puts a decision into sentences.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cldmray.arrays import Interval
from cldmray.evaluation.gate import Breach, Rule, evaluate_gate
from cldmray.evaluation.release import release, utility_kept
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.results.audit import AnonymizerRisk, Severity, UtilityRow

NO_ORIGINAL = "no attacker held an original; add source_excluded to audit.galleries"
"""Why nothing follows from linkage alone: whoever holds no original can identify nobody."""


def supported_k(risk: AnonymizerRisk) -> int:
    """The largest k that an audit positively supports for a setting.

    That is the largest k whose 1/k is not below the simultaneous upper bound of all attacks, from 1
    to the gallery's identities; 1, which says nothing, where the attackers are too weak to
    conclude.
    """
    return 1 if risk.weakness else k_by_bound(risk)


def k_by_bound(risk: AnonymizerRisk) -> int:
    """:func:`supported_k` by numbers alone, however weak the attackers are."""
    interval = Interval(risk.risk, risk.low, risk.simultaneous_upper_bound)
    return k_anonymity(interval, risk.gallery_size).k_supported


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

    >>> ssim = [UtilityRow(name, "ssim", value, value, value, 9, True)
    ...         for name, value in {"blur": 0.8, "k_same": 0.5}.items()]
    >>> by_usefulness(["k_same", "blur"], ssim)
    ['blur', 'k_same']
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


@dataclass(frozen=True)
class ReleaseChoice:
    """Which candidate is recommended for release, and among which it was chosen.

    Attributes:
        recommended: the risk of the recommended setting; None: none can be recommended.
        target_k: k that a setting must support.
        candidates: risks of all candidates, the lowest simultaneous upper bound first.
        supporting: those of them that support ``target_k``.
        by_utility: whether utility decided, not the lowest bound.
        most_useful: the most useful candidate, whatever its risk; None: unknown.
        control: the control that utility is compared with; None: there is none.
        utility: for each measure the ``value`` of the recommended setting, beside that of
            ``most_useful`` and of ``control`` where they have one.
        missed: attackers that could not be run on the recommended setting.
    """

    recommended: AnonymizerRisk | None
    target_k: int
    candidates: tuple[AnonymizerRisk, ...]
    supporting: tuple[AnonymizerRisk, ...] = ()
    by_utility: bool = False
    most_useful: str | None = None
    control: str | None = None
    utility: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    missed: tuple[str, ...] = ()


def recommend(
    candidates: Sequence[AnonymizerRisk],
    controls: Iterable[str],
    rows: Sequence[UtilityRow],
    target_k: int,
    *,
    missed: Mapping[str, Sequence[str]],
) -> ReleaseChoice:
    """The most useful candidate whose simultaneous upper bound stays at or under 1/target_k.

    The most useful is the first of :func:`by_usefulness` over all candidates; where utility does
    not tell, the one with the lowest upper bound. Those that keep nothing come last. Where
    attackers are too weak to conclude, or a rule of the gate is broken, nothing can be recommended.

    Args:
        candidates: the strongest attack on each setting that is a candidate for release.
        controls: names of the settings that are controls; utility is compared with the first.
        rows: utility of all settings; may be empty.
        target_k: k that a setting must support, at least 2.
        missed: attackers that could not be run, by setting.
    """
    safest = tuple(
        sorted(
            candidates, key=lambda risk: (risk.simultaneous_upper_bound, risk.risk, risk.anonymizer)
        )
    )
    useful = by_usefulness([risk.anonymizer for risk in safest], rows)
    most_useful = useful[0] if useful else None
    supporting = tuple(
        risk for risk in safest if supported_k(risk) >= target_k and risk.release in (None, "yes")
    )
    if not supporting:
        return ReleaseChoice(None, target_k, safest, most_useful=most_useful)
    place = {name: rank for rank, name in enumerate(useful)}
    recommended = min(
        supporting,
        key=lambda risk: (risk.keeps_nothing, place.get(risk.anonymizer, len(place))),
    )
    name = recommended.anonymizer
    values = _values(rows)
    candidate_names = {risk.anonymizer for risk in candidates}
    control = next(
        (other for other in controls if other in values and other not in candidate_names), None
    )
    utility = {
        measure: {"value": value}
        | {
            role: values[other][measure]
            for role, other in (("most_useful", most_useful), ("control", control))
            if other is not None and measure in values[other]
        }
        for measure, value in values.get(name, {}).items()
    }
    return ReleaseChoice(
        recommended=recommended,
        target_k=target_k,
        candidates=safest,
        supporting=supporting,
        by_utility=name in place,
        most_useful=most_useful,
        control=control,
        utility=utility,
        missed=tuple(missed.get(name, ())),
    )


def _values(rows: Iterable[UtilityRow]) -> dict[str, dict[str, float]]:
    """Finite values of each measure by the setting's name."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if math.isfinite(row.value):
            values.setdefault(row.anonymizer, {})[row.measure] = row.value
    return values


@dataclass(frozen=True)
class DecisionPolicy:
    """What a verdict has to answer.

    Attributes:
        target_k: k of k-anonymity that a recommended setting must support.
        rules: of ``audit.fail_on``.
        release: names of the settings that are meant to be released; None: all but controls.

    >>> DecisionPolicy().candidates(["no_op", "blur"], controls=["no_op"])
    ['blur']
    """

    target_k: int = 20
    rules: tuple[Rule, ...] = ()
    release: tuple[str, ...] | None = None

    def candidates(self, names: Iterable[str], controls: Iterable[str]) -> list[str]:
        """Names of the candidates for release; controls are candidates only if alone or named."""
        if self.release is not None:
            return [name for name in names if name in self.release]
        attacked, excluded = list(names), set(controls)
        return [name for name in attacked if name not in excluded] or attacked


DEFAULT_POLICY = DecisionPolicy()


@dataclass(frozen=True)
class Decision:
    """What an audit concludes, as data.

    Attributes:
        severity: ``leak`` where a candidate must not be released, or leaks identity and is not
            known to stay at the target; ``inconclusive`` where nothing follows for one, or it was
            not attacked; ``leak_within_target`` where one leaks, but all stay at the target; else
            ``no_leak_found``.
        policy: what was asked.
        risks: the strongest attack on each setting that was attacked, in the order given, with what
            follows from it: ``weakness``, ``k_supported``, ``is_control``, ``release``,
            ``utility_kept`` and ``keeps_nothing``.
        candidates: those of them that are candidates for release.
        leaks: candidates that leak identity, the highest lower bound first; those that leak by all
            images of a person only come last.
        unattacked: names of candidates on which no attack could be run.
        breaches: of the gate's rules.
        choice: what may be released.
    """

    severity: Severity
    policy: DecisionPolicy
    risks: tuple[AnonymizerRisk, ...]
    candidates: tuple[AnonymizerRisk, ...]
    leaks: tuple[AnonymizerRisk, ...]
    unattacked: tuple[str, ...]
    breaches: tuple[Breach, ...]
    choice: ReleaseChoice


def decide(
    risks: Sequence[AnonymizerRisk],
    controls: Iterable[str],
    policy: DecisionPolicy = DEFAULT_POLICY,
    utility: Sequence[UtilityRow] = (),
    *,
    weakness: Mapping[str, str] | None = None,
    missed: Mapping[str, Sequence[str]] | None = None,
) -> Decision:
    """The audit's conclusion over all settings that are candidates for release.

    Args:
        risks: the strongest attack on each anonymizer that was attacked, at least one.
        controls: names of anonymizers that are controls.
        policy: what to answer.
        utility: how useful each anonymizer's images still are; may be empty.
        weakness: why the attackers are too weak to conclude that nothing leaks, by anonymizer.
        missed: attackers that could not be run, by anonymizer; one without any attack has no risk.
    """
    controls, missed, weakness = sorted(controls), missed or {}, weakness or {}
    names = policy.candidates(
        dict.fromkeys([*(risk.anonymizer for risk in risks), *missed]), controls
    )
    by_name = {
        risk.anonymizer: _decided(
            risk, policy, utility, weakness.get(risk.anonymizer, ""), names, controls
        )
        for risk in risks
    }
    candidates = tuple(by_name[name] for name in names if name in by_name)
    unattacked = tuple(name for name in names if name not in by_name)
    leaks = sorted(
        (risk for risk in candidates if risk.leaks),
        key=lambda risk: (risk.finding != "leak", -risk.tested_attack.low),
    )
    severity: Severity = "leak_within_target" if leaks else "no_leak_found"
    if any(risk.release == "no" for risk in candidates) or any(
        risk.release != "yes" for risk in leaks
    ):
        severity = "leak"
    elif unattacked or any(risk.release == "inconclusive" for risk in candidates):
        severity = "inconclusive"
    return Decision(
        severity=severity,
        policy=policy,
        risks=tuple(by_name.values()),
        candidates=candidates,
        leaks=tuple(leaks),
        unattacked=unattacked,
        breaches=tuple(evaluate_gate(policy.rules, names, by_name)),
        choice=recommend(candidates, controls, utility, policy.target_k, missed=missed),
    )


def _decided(
    risk: AnonymizerRisk,
    policy: DecisionPolicy,
    utility: Sequence[UtilityRow],
    weakness: str,
    names: Sequence[str],
    controls: Sequence[str],
) -> AnonymizerRisk:
    """A risk with what follows from it; controls have a release only where they are candidates."""
    name = risk.anonymizer
    kept = utility_kept(name, utility)
    weakness = NO_ORIGINAL if risk.only_linked else weakness or risk.note
    risk = replace(risk, weakness=weakness, note="" if risk.finding == "leak" else weakness)
    risk = replace(
        risk,
        k_supported=supported_k(risk),
        is_control=name in controls,
        candidate=name in names,
        utility_kept=kept and kept.kept,
        keeps_nothing=kept is not None and kept.keeps_nothing,
    )
    if name in controls and name not in names:
        return risk
    breaches = evaluate_gate(policy.rules, [name], {name: risk})
    return replace(risk, release=release(risk, policy.target_k, breaches))
