"""Descriptions of runs in Markdown, as MLflow shows them above a run's numbers."""

from collections.abc import Mapping, Sequence

from cldmray.arrays import Interval
from cldmray.results.audit import AnonymizerRisk, AttackRate, AuditReport

MOST_ROWS = 25
"""Anonymizers in a description; MLflow keeps 8,000 characters."""
ATTACK_NAMES = {
    "rank_1_cross_image": "attacker holds other images of the person",
    "rank_1_same_image": "attacker holds the very image",
    "rank_1_person_level": "all images of a person pooled, attacker holds others",
    "rank_1_linkage": "anonymized images linked with each other",
}
COLUMNS = (
    "anonymizer",
    "release",
    "other images",
    "the very image",
    "person level",
    "linkage",
    "k supported",
    "utility kept",
)


def describe_audit(report: AuditReport, data: str) -> str:
    """The verdict, a line for each anonymizer, and how to read it.

    Args:
        data: name of the audited data.
    """
    verdict = report.verdict
    lines = [f"**{verdict.sentence}**", ""]
    if verdict.recommendation is not None:
        name = verdict.recommendation.name or "none"
        lines += [f"Recommended: **{name}**. {verdict.recommendation.reason}", ""]
    if verdict.gate.outcome != "none":
        reasons = "; ".join(verdict.gate.reasons)
        lines += [f"Gate {verdict.gate.outcome}{f': {reasons}' if reasons else ''}.", ""]
    risks = report.ranked_risks
    lines += _table(COLUMNS, [_risk_row(risk) for risk in risks[:MOST_ROWS]])
    if len(risks) > MOST_ROWS:
        lines += ["", f"{len(risks) - MOST_ROWS} more are in `tables/anonymizers.json`."]
    level = f"{100 * risks[0].confidence_level:g} %" if risks else "95 %"
    lines += [
        "",
        f"Data: {data}. Rates: rank-1 identification by the strongest attack; in brackets bounds "
        f"that hold at {level} for all attacks of one kind on an anonymizer at once. Utility kept: "
        "0 is the image of a random other person, 1 the original.",
    ]
    return "\n".join(lines)


def describe_attack(
    anonymizer: str,
    attacker: str,
    rates: Mapping[str, AttackRate],
    risk: AnonymizerRisk | None,
) -> str:
    """What one attacker identifies of one anonymizer's images.

    Args:
        rates: by ``ATTACK_NAMES``.
        risk: of the anonymizer.
    """
    rows = [
        [ATTACK_NAMES[name], _rate(rate), f"{100 * rate.chance:.1f} %", rate.protocol]
        for name, rate in rates.items()
    ]
    lines = [f"**{attacker}** attacks **{anonymizer}**.", ""]
    lines += _table(("case", "identified at rank 1", "chance", "protocol"), rows)
    if risk is not None and risk.release is not None:
        lines += ["", f"Release of {anonymizer}: **{risk.release}**. {risk.release_reason}"]
    return "\n".join(lines)


def _risk_row(risk: AnonymizerRisk) -> list[str]:
    rates = (risk.cross_image, risk.same_image, risk.person_level, risk.linkage)
    return [
        risk.anonymizer,
        "(control)" if risk.is_mere_control else risk.release or "",
        *("" if rate is None else _rate(rate) for rate in rates),
        str(risk.k_supported),
        "" if risk.utility_kept is None else f"{risk.utility_kept.value:.2f}",
    ]


def _rate(rate: AttackRate | Interval) -> str:
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
