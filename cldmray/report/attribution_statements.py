"""Sentences of an attribution: what follows from its rows."""

from collections.abc import Sequence

from cldmray.evaluation.ablation import AblationGrid
from cldmray.report.formatting import gallery_name, percent
from cldmray.results.attribution import AttributionRow


def scale_statements(rows: Sequence[AttributionRow], groups: Sequence[AblationGrid]) -> list[str]:
    """Whether the leak grows with the control scale, from rows of :func:`ablation_rows`."""
    by_attack: dict[tuple[str, str, str], dict[str, AttributionRow]] = {}
    for row in rows:
        if row.question == "scale":
            by_attack.setdefault((row.attacker, row.protocol, row.gallery), {})[row.anonymizer] = (
                row
            )
    return [
        f"{steps[0].compared_with} to {steps[-1].anonymizer}, {attacker}, {gallery_name(gallery)}: "
        f"{_course(steps)}."
        for (attacker, _, gallery), by_name in by_attack.items()
        for group in groups
        if len(steps := [by_name[name] for name in group.names if name in by_name]) > 1
    ]


def _course(steps: Sequence[AttributionRow]) -> str:
    rises, falls = (sum(row.low > 0 for row in steps), sum(row.high < 0 for row in steps))
    count = f"in {len(steps)} steps of control scale"
    if rises == len(steps):
        return f"the leak rises {count}, significantly in each"
    if falls:
        return (
            "the leak does not only rise with the control scale: it falls significantly in "
            f"{falls} of {len(steps)} steps"
        )
    if rises:
        return f"the leak never falls significantly {count}, and rises significantly in {rises}"
    return f"the leak changes significantly in none of {len(steps)} steps of control scale"


def headline(rows: Sequence[AttributionRow]) -> str:
    """How much of the leak is carried by the condition, in one sentence.

    From the swap whose images identify either person most often, where that is significantly above
    chance; else from the largest significant difference to an anonymizer without a condition.
    """
    swaps: dict[tuple[str, str, str], dict[str, AttributionRow]] = {}
    for row in rows:
        if row.question == "swap":
            swaps.setdefault((row.anonymizer, row.attacker, row.gallery), {})[row.measure] = row
    leaking = [
        by_measure
        for by_measure in swaps.values()
        if "condition_share" in by_measure and _above_chance(by_measure["rank_1_either"])
    ]
    if leaking:
        best = max(leaking, key=_strength)
        share, identified = best["condition_share"], best["rank_1_condition"]
        return (
            f"{_share_text(share)} of the leak is carried by the condition: where it comes from "
            f"one person and the starting image from another, {share.attacker} identifies the "
            f"condition's person in {percent(identified.value)} and the starting image's in "
            f"{percent(best['rank_1_start'].value)} of the images "
            f"({share.anonymizer}, {gallery_name(share.gallery)}; chance: "
            f"{percent(identified.chance or 0)} each)."
        )
    return _ablation_headline(rows)


def _above_chance(row: AttributionRow) -> bool:
    return row.low > (row.chance or 0.0)


def _strength(by_measure: dict[str, AttributionRow]) -> tuple[bool, float]:
    either = by_measure["rank_1_either"]
    return either.gallery == "source_excluded", either.value


def _ablation_headline(rows: Sequence[AttributionRow]) -> str:
    significant = {
        (row.anonymizer, row.attacker, row.protocol, row.gallery): row
        for row in rows
        if row.question == "ablation" and row.measure == "rank_1_difference" and row.low > 0
    }
    carried = [
        row
        for row in rows
        if row.measure == "carried_share"
        and (row.anonymizer, row.attacker, row.protocol, row.gallery) in significant
    ]
    if not carried:
        return (
            "What carries the leak cannot be told: no attack on a conditioned anonymizer "
            "identifies more people than chance, or than without the condition."
        )
    best = max(
        carried,
        key=lambda r: (
            r.gallery == "source_excluded",
            significant[r.anonymizer, r.attacker, r.protocol, r.gallery].value,
        ),
    )
    return (
        f"{_share_text(best)} of the leak is carried by the condition: by this much "
        f"{best.attacker} identifies fewer people in {best.compared_with}, which has none, than in "
        f"{best.anonymizer} ({gallery_name(best.gallery)})."
    )


def _share_text(row: AttributionRow) -> str:
    return f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
