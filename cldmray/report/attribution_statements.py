"""What follows from the rows of an attribution, in sentences."""

from collections.abc import Sequence

from cldmray.evaluation.ablation import AblationGrid
from cldmray.report.formatting import gallery_name, percent
from cldmray.results.attribution import AttributionRow


def scale_statements(rows: Sequence[AttributionRow], groups: Sequence[AblationGrid]) -> list[str]:
    """Whether the leak grows with the control scale, from rows of :func:`ablation_rows`."""
    lanes: dict[tuple[str, str, str], dict[str, AttributionRow]] = {}
    for row in rows:
        if row.question == "scale":
            lanes.setdefault((row.attacker, row.protocol, row.gallery), {})[row.anonymizer] = row
    return [
        f"{steps[0].compared_with} to {steps[-1].anonymizer}, {attacker}, {gallery_name(gallery)}: "
        f"{_course(steps)}."
        for (attacker, _, gallery), lane in lanes.items()
        for group in groups
        if len(steps := [lane[name] for name in group.names if name in lane]) > 1
    ]


def _course(steps: Sequence[AttributionRow]) -> str:
    rises, falls = (sum(row.low > 0 for row in steps), sum(row.high < 0 for row in steps))
    count = f"in {len(steps)} steps of control scale"
    if rises == len(steps):
        return f"the leak rises {count}, surely in each"
    if falls:
        return (
            f"the leak does not only rise with the control scale: it falls surely in {falls} of "
            f"{len(steps)} steps"
        )
    if rises:
        return f"the leak never surely falls {count}, and surely rises in {rises}"
    return f"the leak changes surely in none of {len(steps)} steps of control scale"


def headline(rows: Sequence[AttributionRow]) -> str:
    """How much of the leak is carried by the condition, in one sentence.

    From the swap whose images name either person most often, where that is surely above
    chance; else from the largest sure difference to a setting without a condition.
    """
    swaps: dict[tuple[str, str, str], dict[str, AttributionRow]] = {}
    for row in rows:
        if row.question == "swap":
            swaps.setdefault((row.anonymizer, row.attacker, row.gallery), {})[row.measure] = row
    told = [
        found
        for found in swaps.values()
        if "condition_share" in found and _above_chance(found["rank_1_either"])
    ]
    if told:
        best = max(told, key=_strength)
        share, named = best["condition_share"], best["rank_1_condition"]
        return (
            f"{_share_text(share)} of the leak is carried by the condition: where it comes from "
            f"one person and the starting image from another, {share.attacker} names the "
            f"condition's person in {percent(named.value)} and the starting image's in "
            f"{percent(best['rank_1_start'].value)} of the images "
            f"({share.anonymizer}, {gallery_name(share.gallery)}; chance: "
            f"{percent(named.chance or 0)} each)."
        )
    return _ablation_headline(rows)


def _above_chance(row: AttributionRow) -> bool:
    return row.low > (row.chance or 0.0)


def _strength(found: dict[str, AttributionRow]) -> tuple[bool, float]:
    return found["rank_1_either"].gallery == "source_excluded", found["rank_1_either"].value


def _ablation_headline(rows: Sequence[AttributionRow]) -> str:
    sure = {
        (row.anonymizer, row.attacker, row.protocol, row.gallery): row
        for row in rows
        if row.question == "ablation" and row.measure == "rank_1_difference" and row.low > 0
    }
    carried = [
        row
        for row in rows
        if row.measure == "carried_share"
        and (row.anonymizer, row.attacker, row.protocol, row.gallery) in sure
    ]
    if not carried:
        return (
            "What carries the leak cannot be told: no attack on a conditioned setting names more "
            "people than chance, or than without the condition."
        )
    best = max(
        carried,
        key=lambda r: (
            r.gallery == "source_excluded",
            sure[r.anonymizer, r.attacker, r.protocol, r.gallery].value,
        ),
    )
    return (
        f"{_share_text(best)} of the leak is carried by the condition: so much less does "
        f"{best.attacker} name in {best.compared_with}, which has none, than in {best.anonymizer} "
        f"({gallery_name(best.gallery)})."
    )


def _share_text(row: AttributionRow) -> str:
    return f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
