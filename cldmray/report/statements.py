"""What follows from the rows of an attribution, a reconstruction and a training, in sentences."""

from collections.abc import Mapping, Sequence

from cldmray.evaluation.attribution import AblationGrid
from cldmray.evaluation.diagnostics import not_converged
from cldmray.evaluation.operating_points import OperatingPoint, operating_point
from cldmray.report.formatting import gallery_name, percent, points
from cldmray.results.attribution import AttributionRow
from cldmray.results.audit import AttackerDiagnostics
from cldmray.results.reconstruction import ReconstructionReport, ReconstructionVerdict


def scale_statements(rows: Sequence[AttributionRow], grids: Sequence[AblationGrid]) -> list[str]:
    """Whether the leak grows with the control scale.

    Args:
        rows: of :func:`cldmray.evaluation.attribution.ablation_rows`.
    """
    attacks: dict[tuple[str, str, str], dict[str, AttributionRow]] = {}
    for row in rows:
        if row.question == "scale":
            attack = attacks.setdefault((row.attacker, row.protocol, row.gallery), {})
            attack[row.anonymizer] = row
    return [
        f"{steps[0].compared_with} to {steps[-1].anonymizer}, {attacker}, "
        f"{gallery_name(gallery)}: {_course(steps)}."
        for (attacker, _, gallery), attack in attacks.items()
        for grid in grids
        if len(steps := [attack[name] for name in grid.names if name in attack]) > 1
    ]


def _course(steps: Sequence[AttributionRow]) -> str:
    rises, falls = (sum(row.low > 0 for row in steps), sum(row.high < 0 for row in steps))
    count = f"in {len(steps)} steps of control scale"
    if rises == len(steps):
        return f"the leak rises {count}, significantly in each"
    if falls:
        return (
            f"the leak does not only rise with the control scale: it falls significantly in "
            f"{falls} of {len(steps)} steps"
        )
    if rises:
        return f"the leak never falls significantly {count}, and rises significantly in {rises}"
    return f"the leak changes significantly in none of {len(steps)} steps of control scale"


def attribution_headline(rows: Sequence[AttributionRow]) -> str:
    """How much of the leak is carried by the condition, in one sentence.

    From the swap whose images are identified as either person most often, where that is
    significantly above chance; else from the largest significant difference to a setting without a
    condition.
    """
    swaps: dict[tuple[str, str, str], dict[str, AttributionRow]] = {}
    for row in rows:
        if row.question == "swap":
            swaps.setdefault((row.anonymizer, row.attacker, row.gallery), {})[row.measure] = row
    conclusive = [
        swap
        for swap in swaps.values()
        if "condition_share" in swap
        and swap["condition_share"].reason is None
        and _above_chance(swap["rank_1_either"])
    ]
    if not conclusive:
        return _ablation_headline(rows)
    best = max(conclusive, key=_strength)
    share, condition = best["condition_share"], best["rank_1_condition"]
    return (
        f"{_share_text(share)} of the leak is carried by the condition: where it comes from "
        f"one person and the starting image from another, {share.attacker} identifies the "
        f"condition's person in {percent(condition.value)} and the starting image's in "
        f"{percent(best['rank_1_start'].value)} of the images "
        f"({share.anonymizer}, {gallery_name(share.gallery)}; chance: "
        f"{percent(condition.chance or 0)} each)."
    )


def _above_chance(row: AttributionRow) -> bool:
    return row.low > (row.chance or 0.0)


def _strength(swap: Mapping[str, AttributionRow]) -> tuple[bool, float]:
    either = swap["rank_1_either"]
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
        and row.reason is None
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


def operating_point_sentence(
    searched: Sequence[OperatingPoint],
    k: int,
    measure: str,
    confidence_level: float,
    weakness: Mapping[str, str],
) -> str:
    """The loosest setting under 1/k, or how close the search came.

    Args:
        searched: all settings that were searched, at least one.
        measure: of utility.
        weakness: see :func:`cldmray.evaluation.diagnostics.weaknesses`.
    """
    best = operating_point(searched, 1 / k)
    count = f"Of {len(searched)} settings searched"
    target = f"1/{k} = {percent(1 / k)}"
    if best is None:
        closest = min(searched, key=lambda point: point.high)
        return (
            f"{count}, none stays significantly under {target}: the lowest upper bound is "
            f"{percent(closest.high)}, of {closest.anonymizer} ({closest.attacker})."
        )
    weak = weakness.get(best.anonymizer, "")
    caveat = f". But nothing can be concluded from that: {weak}" if weak else ""
    return (
        f"{count}, the loosest that stays significantly under {target} is {best.anonymizer}: its "
        f"strongest attack, {best.attacker}, identifies {percent(best.value)}, at most "
        f"{percent(best.high)} ({percent(confidence_level)} confidence for all settings at once), "
        f"and its {measure} is {best.utility:.3f}{caveat}."
    )


def reconstruction_sentence(result: ReconstructionVerdict) -> str:
    """The verdict on one reconstruction with its numbers."""
    low, high = result.rank_1.low, result.rank_1.high
    return (
        f"{result.reconstructor} on {result.anonymizer} ({gallery_name(result.gallery)}): "
        f"{result.verdict}. {percent(result.rank_1.value)} [{100 * low:.1f}, {100 * high:.1f}] of "
        f"the reconstructions are identified, {points(result.best_control_gain)} points over the "
        f"best control, {result.control}, and {points(result.gain_over_raw)} points over the "
        f"unreconstructed images ({percent(result.raw.value)}); chance: {percent(result.chance)}; "
        f"{result.queries:,} queries."
    )


def reconstruction_headline(report: ReconstructionReport) -> str:
    """Whose images are recovered, in one sentence: in the gallery that stands first."""
    if not report.results:
        return "Nothing was reconstructed; see the notes."
    gallery = report.results[0].gallery
    results = [result for result in report.results if result.gallery == gallery]
    recovered = [result for result in results if result.recovers]
    where = f"by {report.held_out_recognizer}, Full-Ref, {gallery_name(gallery)}"
    count = f"any of {len(results)} reconstructions"
    if not recovered:
        highest = max(result.raw.value for result in results)
        return (
            f"No identity is recovered by "
            f"{count if len(results) > 1 else 'the one reconstruction'} ({where}). Of the "
            f"unreconstructed images at most {percent(highest)} are identified."
        )
    best = max(recovered, key=lambda result: result.rank_1.value)
    control = best.rank_1.value - best.best_control_gain.value
    return (
        f"Identity is recovered by {len(recovered)} of {len(results)} reconstructions ({where}): "
        f"{best.reconstructor} on {best.anonymizer} makes {percent(best.rank_1.value)} "
        f"identifiable, where the best control reaches {percent(control)} and the unreconstructed "
        f"images {percent(best.raw.value)}."
    )


def convergence_note(rows: Sequence[AttackerDiagnostics]) -> str:
    """One sentence on attackers whose learning curves were not flat yet; empty if all were."""
    rising: dict[tuple[str, float, float], list[str]] = {}
    for row in rows:
        if not_converged(row):
            key = row.attacker, row.validation_rank_1 or 0.0, row.final_gain or 0.0
            rising.setdefault(key, []).append(row.anonymizer)
    if not rising:
        return ""
    named = ", ".join(
        f"{attacker} on {' and '.join(names)} (validation {percent(rate)}, of which "
        f"{percent(gain)} came last)"
        for (attacker, rate, gain), names in rising.items()
    )
    return (
        f"Not converged, still rising in the last quarter of the training: {named}. Longer "
        "training would probably find more."
    )


def weakness_notes(rows: Sequence[AttackerDiagnostics], weakness: Mapping[str, str]) -> list[str]:
    """Which attackers have shown their ability, which have not, and what follows from that.

    Args:
        rows: of all attackers on all anonymizers.
        weakness: see :func:`cldmray.evaluation.diagnostics.weaknesses`.
    """
    notes = []
    encoders = [(row.clean_rank_1, row.attacker) for row in rows if row.clean_rank_1 is not None]
    if encoders:
        best, attacker = max(encoders)
        notes.append(
            f"Of all attackers {attacker} recognizes clean faces best: it identifies "
            f"{percent(best)} of clean images (Full-Ref, source excluded)."
        )
    weak: dict[str, list[str]] = {}
    for row in rows:
        if row.ability == "not_shown":
            weak.setdefault(row.attacker, []).append(row.anonymizer)
    if weak:
        named = "; ".join(f"{attacker} on {', '.join(names)}" for attacker, names in weak.items())
        notes.append(f"Too weak to conclude by themselves: {named}.")
    reasons: dict[str, list[str]] = {}
    for anonymizer, reason in weakness.items():
        if reason:
            reasons.setdefault(reason, []).append(anonymizer)
    for reason, names in reasons.items():
        notes.append(f"{reason[0].upper()}{reason[1:]} ({', '.join(names)}).")
    return notes


def teacher_note(synthetic: bool, has_teacher: bool) -> str:
    """One sentence where real faces were attacked without the strongest attackers; else empty.

    Args:
        synthetic: whether the people do not exist.
        has_teacher: whether an attacker learnt from a public recognizer.
    """
    if synthetic or has_teacher:
        return ""
    return (
        "No attacker here learnt from a public recognizer, as those do that find most in real "
        "faces: add adaptive_distilled, or take the attackers of --config-name real."
    )


def query_note(queries: Mapping[tuple[str, str], int]) -> str:
    """One sentence on how often reconstruction attacks asked the anonymizers; empty if none did.

    Args:
        queries: by anonymizer and attacker.
    """
    counts = [
        f"{attacker} {count:,} images of {anonymizer}"
        for (anonymizer, attacker), count in queries.items()
    ]
    if not counts:
        return ""
    return (
        "Queries, each an image of another person to learn the reconstruction from: "
        f"{', '.join(counts)}."
    )
