"""Figures of a reconstruction attack: rates beside the controls', and rates over queries."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from cldmray.report.figures.image_grid import image_sheet
from cldmray.report.figures.style import (
    FINDING_COLOURS,
    INK,
    LINE_COLOURS,
    MUTED,
    RULE,
    as_written,
    canvas,
    short,
    style,
    svg,
)
from cldmray.results.audit import Finding
from cldmray.results.reconstruction import (
    SHUFFLED,
    Learning,
    ReconstructionReport,
    ReconstructionRow,
    Search,
)

HEIGHT_BASE, HEIGHT_ROW = 1.2, 0.34
FRONT_HEIGHT = 4.2
PANEL_HEIGHT, PANELS_A_ROW = 2.6, 2
LOWEST_TOP = 0.05
"""Of a panel's axis, so that chance does not look like learning."""


def rates_figure(
    rows: Sequence[ReconstructionRow], outcomes: dict[tuple[str, str], Finding]
) -> bytes:
    """Rank-1 rate of each reconstruction model and control in one gallery, beside chance.

    Args:
        rows: of the measure ``rank_1`` and one gallery; at least one.
        outcomes: by anonymizer and reconstruction model; controls have none and are grey.

    Returns:
        SVG, taller with every row.
    """
    figure = canvas(HEIGHT_BASE + HEIGHT_ROW * len(rows))
    axes = figure.add_subplot()
    style(axes)
    for place, row in enumerate(rows):
        finding = outcomes.get((row.anonymizer, row.reconstructor))
        colour = FINDING_COLOURS[finding] if finding else MUTED
        axes.plot([row.low, row.high], [place] * 2, color=colour, lw=2.4, solid_capstyle="round")
        axes.plot(row.value, place, "o", color=colour, ms=5.5, mew=0)
        if row.chance is not None:
            axes.plot([row.chance] * 2, [place - 0.32, place + 0.32], color=INK, lw=1.4)
    names = [short(f"{row.reconstructor} on {row.anonymizer}") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    as_written(axes.get_yticklabels())
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.01, 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=RULE)
    axes.set_xlabel("rank-1 rate of the held-out recognizer; the upright tick is chance")
    return svg(figure)


def front_figure(searches: Sequence[Search]) -> bytes:
    """Validation rank-1 of every trial over its queries; the front of each search as steps.

    Args:
        searches: at least one, each with trials that did not all fail.

    Returns:
        SVG.
    """
    figure = canvas(FRONT_HEIGHT)
    axes = figure.add_subplot()
    style(axes)
    for number, search in enumerate(searches):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        trials = [trial for trial in search.trials if trial.status != "failed"]
        front = sorted(
            (trial.queries, trial.validation_rank_1) for trial in trials if trial.optimal
        )
        label = short(search.anonymizer)
        axes.plot(
            [trial.queries for trial in trials],
            [trial.validation_rank_1 for trial in trials],
            "o", color=colour, ms=4, alpha=0.5, mew=0,
        )  # fmt: skip
        xs, ys = zip(*front, strict=True)
        axes.plot(xs, ys, color=colour, lw=2, drawstyle="steps-post", marker="o", label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=RULE)
    axes.set_ylim(0, max(axes.get_ylim()[1], LOWEST_TOP))
    axes.set_xlabel("queries: images of other people that were learnt from")
    axes.set_ylabel("rank-1 rate on validation people")
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    as_written(legend.get_texts())
    return svg(figure)


def learning_figure(curves: Sequence[Learning]) -> bytes:
    """Validation rank-1 over training steps: a panel for each anonymizer.

    Each reconstruction has a colour; those of the label-permutation control are dashed,
    controls without training dotted across the panel.

    Args:
        curves: at least one of them with two points.

    Returns:
        SVG, taller with every row of panels.
    """
    panels: dict[str, list[Learning]] = {}
    for curve in curves:
        panels.setdefault(curve.anonymizer, []).append(curve)
    models = list(dict.fromkeys(curve.reconstructor.removesuffix(SHUFFLED) for curve in curves))
    rows = -(-len(panels) // PANELS_A_ROW)
    figure = canvas(PANEL_HEIGHT * rows + 0.5)
    columns = min(PANELS_A_ROW, len(panels))
    places = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    lines: dict[str, Line2D] = {}
    for axes, (anonymizer, panel) in zip(places, panels.items(), strict=False):
        style(axes)
        for curve in panel:
            number = models.index(curve.reconstructor.removesuffix(SHUFFLED))
            line = _learning_line(axes, curve, LINE_COLOURS[number % len(LINE_COLOURS)])
            lines.setdefault(curve.reconstructor, line)
        axes.set_title(short(anonymizer), fontsize=10, color=INK, parse_math=False)
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(color=RULE)
        axes.set_ylim(0, max(axes.get_ylim()[1], LOWEST_TOP))
        axes.set_xlabel("training steps")
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    legend = figure.legend(
        lines.values(), [short(name) for name in lines], loc="outside lower center", ncols=3,
        frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    as_written(legend.get_texts())
    return svg(figure)


def _learning_line(axes: Axes, curve: Learning, colour: str) -> Line2D:
    steps = [point["step"] for point in curve.points]
    rates = [point["validation_rank_1"] for point in curve.points]
    if len(rates) == 1:
        return axes.axhline(rates[0], color=colour, ls=(0, (1, 2)), lw=1.6)
    dashed = curve.reconstructor.endswith(SHUFFLED)
    (line,) = axes.plot(
        steps, rates, color=colour, lw=2, ls=(0, (4, 2)) if dashed else "-", marker="o", ms=4
    )
    return line


def reconstruction_figures(report: ReconstructionReport) -> dict[str, bytes]:
    """The report's figures by file name: ``rates.svg``, ``learning.svg``, ``queries.svg`` and, with
    people in them, ``images_<number>.png``; one that has nothing to show is left out.
    """
    figures = {}
    if report.results:
        gallery = report.results[0].gallery
        rates = [r for r in report.rows if (r.measure, r.gallery) == ("rank_1", gallery)]
        outcomes = {
            (result.anonymizer, result.reconstructor): result.finding
            for result in report.results
            if result.gallery == gallery
        }
        figures["rates.svg"] = rates_figure(rates, outcomes)
    if any(len(curve.points) > 1 for curve in report.learning):
        figures["learning.svg"] = learning_figure(report.learning)
    searches = [
        search for search in report.searches if any(trial.optimal for trial in search.trials)
    ]
    if searches:
        figures["queries.svg"] = front_figure(searches)
    for number, (name, grid) in enumerate(report.grids.items()):
        if len(grid.originals):
            rows = [("original", "", grid.originals)]
            kinds = ["anonymized", *["reconstruction"] * len(grid.rows)]
            for kind, row in zip(kinds, grid.rows, strict=False):
                label = name if kind == "anonymized" else row.anonymizer
                rows.insert(len(rows) - 1, (label, kind, row.anonymized))
            figures[f"images_{number}.png"] = image_sheet(rows)
    return figures
