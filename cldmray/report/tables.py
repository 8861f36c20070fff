"""What the tables of the audit's page hold: one interval a rate, the attack matrix, groups."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cldmray.evaluation.diagnostics import not_converged
from cldmray.report.figures.curves import GrowthPoint
from cldmray.report.formatting import (
    ATTACKERS,
    GALLERIES,
    PROTOCOLS,
    AttackerWords,
    attacker_name,
    held_name,
    percent,
    protocol_name,
    subset_name,
)
from cldmray.results.audit import AnonymizerRisk, AttackRate, AuditReport
from cldmray.results.content import UntouchedFaces
from cldmray.results.exposed import ExposedIdentity
from cldmray.results.table import ALL, IMAGE_LEVEL

Row = Mapping[str, Any]
"""One row of ``results.parquet``."""
RateKey = tuple[str, str, str, str, str]
"""Anonymizer, attacker, protocol, gallery and level of a rank-1 rate."""
PERSON_LEVEL = "person"
AT_GALLERY = "rank_1_at_gallery_"
MOST_EXPOSED = 5
"""People of each anonymizer that the page lists."""
CONFIDENT_CLAIMS = ("precision_top_1pct", "precision_top_5pct", "precision_top_10pct")
LEVELS = {IMAGE_LEVEL: "", PERSON_LEVEL: ", all images of a person together"}


class Panel(NamedTuple):
    """The rank-1 rates of one protocol and gallery: anonymizers down, attackers across.

    Attributes:
        label: what the attacker holds.
        attackers: headings of the columns.
        rows: an anonymizer and its rate by each attacker, None where that attack was not run.
        chance: of these attacks, the highest.
    """

    label: str
    attackers: list[str]
    rows: list[tuple[str, list[float | None]]]
    chance: float


class GroupTable(NamedTuple):
    """The risk of groups of people: groups down, anonymizers across.

    Attributes:
        anonymizers: headings of the columns.
        rows: a group, how many people it has, and its rate on each anonymizer.
    """

    anonymizers: list[str]
    rows: list[tuple[str, int, list[Row | None]]]


class MostExposed(NamedTuple):
    """The most exposed people of one anonymizer.

    Attributes:
        anonymizer: its name.
        n_identities: people that were attacked.
        n_significant: those identified significantly more often than by chance.
        most_exposed: the most exposed of them.
    """

    anonymizer: str
    n_identities: int
    n_significant: int
    most_exposed: list[ExposedIdentity]


def decision_order(report: AuditReport) -> list[AnonymizerRisk]:
    """The rows of the first table: those with an answer, highest risk first, then controls."""
    return sorted(report.ranked_risks, key=lambda risk: risk.is_mere_control)


def simultaneous_rates(risks: Iterable[AnonymizerRisk]) -> dict[RateKey, AttackRate]:
    """The rates with bounds for all attacks of a kind at once: each has one interval only."""
    rates: dict[RateKey, AttackRate] = {}
    for risk in risks:
        attacks = {
            IMAGE_LEVEL: (
                risk.strongest_attack,
                risk.cross_image,
                risk.same_image,
                risk.linkage,
                risk.tested_linkage,
                risk.highest_lower_bound,
            ),
            PERSON_LEVEL: (risk.person_level,),
        }
        for level, of_level in attacks.items():
            for attack in of_level:
                if attack is not None:
                    where = attack.attacker, attack.protocol, attack.gallery
                    rates[risk.anonymizer, *where, level] = attack
    return rates


def with_one_interval(
    rows: Iterable[dict[str, Any]], rates: Mapping[RateKey, AttackRate]
) -> list[dict[str, Any]]:
    """The rows, rank-1 rates of the first table with the bounds that they have there.

    Each row gets the key ``simultaneous``: whether its bounds hold for all attacks of a kind.
    """
    result = []
    for row in rows:
        rate = rates.get(_key(row)) if (row["measure"], row["subset"]) == ("rank_1", ALL) else None
        bounds = {} if rate is None else {"ci_low": rate.low, "ci_high": rate.high}
        result.append({**row, **bounds, "simultaneous": rate is not None})
    return result


def _key(row: Row) -> RateKey:
    return (
        row["anonymizer"], row["attacker"], row["protocol"], row["gallery"], row["level"]
    )  # fmt: skip


def attack_matrix(rows: Sequence[Row], anonymizers: Sequence[str]) -> list[Panel]:
    """A panel for each gallery, protocol and level, the usual case of another image first.

    Args:
        rows: of results.
        anonymizers: from top to bottom.
    """
    rates: dict[tuple[str, str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        if (row["measure"], row["subset"]) == ("rank_1", ALL) and row["value"] is not None:
            where = row["level"], row["gallery"], row["protocol"]
            rates.setdefault(where, {})[row["anonymizer"], row["attacker"]] = row
    panels = []
    for where in sorted(rates, key=_panel_place):
        level, gallery, protocol = where
        cells = rates[where]
        attackers = sorted({attacker for _, attacker in cells}, key=_attacker_place)
        names = dict.fromkeys([*anonymizers, *(name for name, _ in cells)])
        values = {key: row["value"] for key, row in cells.items()}
        held = f"{held_name(gallery)}, {protocol_name(protocol)}"
        panels.append(
            Panel(
                held + LEVELS.get(level, level),
                attackers,
                [(name, [values.get((name, a)) for a in attackers]) for name in names],
                max(row["chance"] or 0.0 for row in cells.values()),
            )
        )
    return panels


def _panel_place(where: tuple[str, str, str]) -> tuple[int, int, int]:
    level, gallery, protocol = where
    return _place(LEVELS, level), _place(GALLERIES, gallery), _place(PROTOCOLS, protocol)


def _attacker_place(attacker: str) -> tuple[int, str]:
    return _place(ATTACKERS, attacker), attacker


def _place(order: Iterable[str], name: str) -> int:
    """Place of a name in an order; behind all of them if it is not there."""
    names = list(order)
    return names.index(name) if name in names else len(names)


def group_table(
    rows: Iterable[Row], risks: Iterable[AnonymizerRisk], measure: str = "rank_1"
) -> GroupTable:
    """The risk by group, by the strongest attack that holds other images of the person.

    Args:
        rows: of results.
        risks: from left to right.
        measure: ``rank_1``, or ``rank_1_difference`` between two groups.
    """
    attacks = {risk.anonymizer: risk.shown_attack for risk in risks}
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        attack = attacks.get(row["anonymizer"])
        is_group = "=" in row["subset"] and not row["subset"].startswith("region=")
        wanted = (row["measure"], row["level"]) == (measure, IMAGE_LEVEL) and is_group
        if attack is None or not wanted or row["value"] is None:
            continue
        if (row["attacker"], row["protocol"], row["gallery"]) == attack[:3]:
            groups.setdefault(row["subset"], {})[row["anonymizer"]] = row
    names = [name for name in attacks if any(name in by_name for by_name in groups.values())]
    table = [
        (
            subset_name(subset, measure),
            max(row["n_identities"] for row in by_name.values()),
            [by_name.get(name) for name in names],
        )
        for subset, by_name in groups.items()
    ]
    return GroupTable(names, table)


def strongest_values(report: AuditReport) -> dict[str, dict[str, Row]]:
    """Rows by measure of the attack that is shown of each anonymizer, in the order of the tables.

    That is the strongest one with another image of the person, else the strongest of all. Only rows
    of all images count that have a value.
    """
    attacks = {
        (risk.anonymizer, *risk.shown_attack[:3]): risk.anonymizer
        for risk in decision_order(report)
    }
    rows: dict[str, dict[str, Row]] = {name: {} for name in attacks.values()}
    for row in report.results.to_pylist():
        name = attacks.get(_key(row)[:4])
        is_whole = (row["level"], row["subset"]) == (IMAGE_LEVEL, ALL)
        if name is not None and is_whole and row["value"] is not None:
            rows[name][row["measure"]] = row
    return rows


def most_exposed(report: AuditReport) -> list[MostExposed]:
    """The most exposed people of each anonymizer with an answer; the attacker has another image."""
    gallery = "source_excluded"
    exposures = []
    for risk in decision_order(report):
        identities = [
            each
            for each in report.exposed_identities
            if (each.anonymizer, each.gallery) == (risk.anonymizer, gallery)
        ]
        if identities and not risk.is_mere_control:
            identities.sort(key=lambda each: (-each.share, -each.ci_low, each.identity))
            n_significant = sum(each.is_significant for each in identities)
            exposures.append(
                MostExposed(
                    risk.anonymizer, len(identities), n_significant, identities[:MOST_EXPOSED]
                )
            )
    return exposures


def untouched_faces(report: AuditReport) -> list[UntouchedFaces]:
    """Anonymizers that have left a face as it was; controls without an answer are left out."""
    controls = {risk.anonymizer for risk in report.risks if risk.is_mere_control}
    return [
        faces
        for faces in report.untouched
        if faces.n_untouched and faces.anonymizer not in controls
    ]


def gallery_growth(report: AuditReport) -> dict[str, list[GrowthPoint]]:
    """The risk over the gallery's size, by anonymizer; rows without bounds are extrapolated."""
    return {
        name: sorted(
            GrowthPoint(row["gallery_size"], row["value"], row["ci_low"] is None, row["chance"])
            for measure, row in rows.items()
            if measure.startswith(AT_GALLERY)
        )
        for name, rows in strongest_values(report).items()
    }


def confident_claims(report: AuditReport) -> list[tuple[str, list[Row | None]]]:
    """Precision among the attacker's most confident 1, 5 and 10 % of claims, by anonymizer."""
    rows = [
        (name, [by_measure.get(measure) for measure in CONFIDENT_CLAIMS])
        for name, by_measure in strongest_values(report).items()
    ]
    return [(name, of_name) for name, of_name in rows if any(of_name)]


def attackers_sentence(report: AuditReport) -> str:
    """Whether the attackers are good enough to be believed when they find nothing."""
    clean: dict[str, float] = {}
    for row in report.diagnostics:
        if row.clean_rank_1 is not None:
            clean[row.attacker] = max(row.clean_rank_1, clean.get(row.attacker, 0.0))
    if not clean:
        return "None of the attackers has been tried on clean images."
    best = max(clean, key=lambda attacker: clean[attacker])
    sentence = (
        f"Of {len({row.attacker for row in report.diagnostics})} attackers the best, "
        f"{attacker_name(best)}, identifies {percent(clean[best])} of clean images"
    )
    required = report.settings.get("audit", {}).get("min_clean_rank_1")
    if required is not None:
        sentence += f"; {percent(float(required))} are required"
    weak = dict.fromkeys(row.attacker for row in report.diagnostics if row.ability == "not_shown")
    if weak:
        names = ", ".join(map(attacker_name, weak))
        sentence += f". Too weak to conclude by themselves: {names}"
    n_rising = sum(not_converged(row) for row in report.diagnostics)
    if n_rising:
        sentence += f". Trainings that had not converged: {n_rising}"
    return f"{sentence}."


def attackers_known(report: AuditReport) -> list[AttackerWords]:
    """Each shipped attacker that attacked, in words."""
    names = sorted(set(report.results["attacker"].to_pylist()), key=_attacker_place)
    return [ATTACKERS[name] for name in names if name in ATTACKERS]


def chance_text(risks: Sequence[AnonymizerRisk]) -> str:
    """The rate that attacks reach without information: ``1.0 %``, or a range.

    >>> chance_text([])
    'not known'
    """
    chances = [risk.chance for risk in risks]
    if not chances:
        return "not known"
    lowest, highest = percent(min(chances)), percent(max(chances))
    return lowest if lowest == highest else f"{lowest} to {highest}"
