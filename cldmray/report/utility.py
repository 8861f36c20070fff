"""Rows of utility as a table for readers and as metrics."""

from collections.abc import Sequence
from typing import NamedTuple

from cldmray.report.formatting import percent
from cldmray.results.audit import UtilityRow
from cldmray.results.decision import Recommendation

HEADINGS = {
    "ssim": "Looks like the original (SSIM)",
    "edge_f1": "Outlines kept (edge F1)",
    "face_detection_rate": "A face is found",
    "pose_consistency": "Head pose kept",
}
AGREEMENT, FRECHET = "_agreement", "frechet_"


class Cell(NamedTuple):
    """A measure of one anonymizer as text; ``interval`` is empty for references, % in rates."""

    value: str
    interval: str = ""


class Column(NamedTuple):
    """One measure; its cells follow the table's anonymizers, None where it was not measured.

    Attributes:
        heading: the measure in plain words.
        arrow: up where higher is more useful, else down.
        clean, chance: see :class:`~cldmray.results.audit.UtilityRow`.
    """

    heading: str
    arrow: str
    cells: list[Cell | None]
    clean: Cell | None
    chance: Cell | None


def heading(measure: str) -> str:
    """A measure in plain words; one that is not known as it is."""
    if measure.startswith(FRECHET):
        return f"Distance from original images (Fréchet, {measure.removeprefix(FRECHET)} features)"
    if measure.endswith(AGREEMENT) and measure not in HEADINGS:
        attribute = measure.removesuffix(AGREEMENT).replace("_", " ")
        return f"{attribute.capitalize()} kept"
    return HEADINGS.get(measure, measure)


def is_rate(measure: str) -> bool:
    """Whether the measure is a share of images."""
    return measure in ("face_detection_rate", "pose_consistency") or measure.endswith(AGREEMENT)


def formatted(measure: str, value: float) -> str:
    """A value of a measure as text: rates in %, others with two decimals."""
    return percent(value) if is_rate(measure) else f"{value:.2f}"


def utility_columns(rows: Sequence[UtilityRow], anonymizers: Sequence[str]) -> list[Column]:
    """The rows as a table of anonymizers and measures, measures in the order of the rows.

    Args:
        anonymizers: names from top to bottom.
    """
    by_key = {(row.anonymizer, row.measure): row for row in rows}
    columns = []
    for measure in dict.fromkeys(row.measure for row in rows):
        measured_rows = [by_key.get((name, measure)) for name in anonymizers]
        references: list[Cell | None] = []
        for values in (
            [row.clean for row in measured_rows if row],
            [row.chance for row in measured_rows if row],
        ):
            measured = [value for value in values if value is not None]
            references.append(Cell(formatted(measure, max(measured))) if measured else None)
        cells = [
            None if row is None else Cell(formatted(measure, row.value), _interval(row))
            for row in measured_rows
        ]
        upwards = next((row.higher_is_better for row in measured_rows if row), True)
        columns.append(Column(heading(measure), "↑" if upwards else "↓", cells, *references))
    return columns


class Costs(NamedTuple):
    """Utility of the recommended anonymizer beside others.

    Attributes:
        beside: names of the most useful candidate and of the control, where they are others.
        rows: a measure in plain words, and its values as text: of the recommended one, then of
            these.
    """

    beside: list[str]
    rows: list[tuple[str, list[str]]]


def costs(recommendation: Recommendation | None) -> Costs | None:
    """What the recommended anonymizer costs; None where there is none, or nothing was measured."""
    if recommendation is None or recommendation.name is None or not recommendation.utility:
        return None
    roles = {"most_useful": recommendation.most_useful, "control": recommendation.control}
    beside = {role: name for role, name in roles.items() if name not in (None, recommendation.name)}
    rows = [
        (
            heading(measure),
            [
                formatted(measure, values[role]) if role in values else "-"
                for role in ("value", *beside)
            ],
        )
        for measure, values in recommendation.utility.items()
    ]
    return Costs([str(name) for name in beside.values()], rows)


def _interval(row: UtilityRow) -> str:
    if is_rate(row.measure):
        return f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    return f"{row.low:.2f} to {row.high:.2f}"
