"""Which audited setting may be released, and what it costs in utility."""

import math
from collections.abc import Iterable, Mapping, Sequence

from cldmray.metrics.confidence import Interval
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.report.advice import Recommendation
from cldmray.report.model import AnonymizerRisk, UtilityRow
from cldmray.report.utility import heading, shown
from cldmray.report.words import percent

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
    safest = sorted(candidates, key=lambda risk: (risk.ceiling, risk.risk, risk.anonymizer))
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
        f"The upper bound of {name}, {percent(chosen.ceiling)}, stays at or under "
        f"{_target(target_k)}{_choice(len(fit), len(safest), name in place)}."
    ]
    for risk in safest:
        if risk not in fit and _k_by_numbers(risk) >= target_k:
            sentences.append(f"By numbers that of {risk.anonymizer} does too, but {risk.note}.")
    if chosen.finding == "leak":
        sentences.append("People are still named more often than by guessing.")
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
    interval = Interval(risk.risk, risk.low, risk.ceiling)
    return k_anonymity(interval, risk.gallery_size).largest_k_supported


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
    words = [
        f"{other}, the most useful candidate" if role == "most_useful" else other
        for role, other in beside.items()
    ]
    parts = []
    for measure, values in utility.items():
        measured = [shown(measure, values[role]) if role in values else "-" for role in beside]
        label = heading(measure)
        parts.append(
            f"{label[0].lower()}{label[1:]} {shown(measure, values['value'])}"
            + (f" ({', '.join(measured)})" if measured else "")
        )
    compared = f", in brackets of {', and of '.join(words)}" if words else ""
    text = f"Utility{compared}: {'; '.join(parts)}."
    return f"{text} No candidate is more useful." if most_useful == name else text


def _why_none(safest: Sequence[AnonymizerRisk], k: int, weakness: str) -> str:
    if not safest:
        return "No attack could be run on a candidate for release."
    people = max(risk.gallery_size for risk in safest)
    if people < k:
        return f"{people} people in the gallery can show no more than k = {people}, not {k}."
    closest = safest[0]
    bound, limit = f"upper bound {percent(closest.ceiling)}", closest.note or weakness
    if _k_by_numbers(closest) >= k:
        return f"{closest.anonymizer} stays under {_target(k)} by numbers ({bound}), but {limit}."
    return (
        f"No audited setting stays under {_target(k)}; the closest is {closest.anonymizer} "
        f"({bound}){f', and {limit}' if limit else ''}."
    )
