"""Figures of an inversion: rates beside those of the controls, and what queries buy."""

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from cldmray.report.figures import (
    DPI,
    FINDING_COLOURS,
    INK,
    LINE_COLOURS,
    MUTED,
    RULE,
    WIDTH,
    plain,
    png,
    short,
    style,
)
from cldmray.report.inversion import InversionReport, Row, Search
from cldmray.report.pictures import picture_sheet

HEIGHT_BASE, HEIGHT_ROW = 1.2, 0.34
FRONT_HEIGHT = 4.2


def rates_figure(rows: Sequence[Row], shown: set[tuple[str, str]]) -> bytes:
    """Rank-1 rate of every inverter and control in one gallery, its interval, a tick at chance.

    Args:
        rows: of the measure ``rank_1`` and one gallery; at least one.
        shown: anonymizer and inverter of those by which recovery was shown.

    Returns:
        PNG of ``WIDTH`` inches at ``DPI``, taller with every row.
    """
    figure = _figure(HEIGHT_BASE + HEIGHT_ROW * len(rows))
    axes = figure.add_subplot()
    style(axes)
    for place, row in enumerate(rows):
        colour = FINDING_COLOURS["leak"] if (row.anonymizer, row.inverter) in shown else MUTED
        axes.plot([row.low, row.high], [place] * 2, color=colour, lw=2.4, solid_capstyle="round")
        axes.plot(row.value, place, "o", color=colour, ms=5.5, mew=0)
        if row.chance is not None:
            axes.plot([row.chance] * 2, [place - 0.32, place + 0.32], color=INK, lw=1.4)
    names = [short(f"{row.inverter} on {row.anonymizer}") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    plain(axes.get_yticklabels())
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.01, 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=RULE)
    axes.set_xlabel(
        "photos whose person the judge names at first guess; the upright tick is chance"
    )
    return png(figure)


def front_figure(searches: Sequence[Search]) -> bytes:
    """Validation rank-1 of every trial over its queries; the front of each search as steps.

    Args:
        searches: at least one, each with trials that did not all fail.

    Returns:
        PNG of ``WIDTH`` x ``FRONT_HEIGHT`` inches at ``DPI``.
    """
    figure = _figure(FRONT_HEIGHT)
    axes = figure.add_subplot()
    style(axes)
    for number, one in enumerate(searches):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        trials = [trial for trial in one.trials if trial.status != "failed"]
        front = sorted(
            (trial.queries, trial.validation_rank_1) for trial in trials if trial.optimal
        )
        label = short(one.anonymizer)
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
    axes.set_xlabel("queries: pictures of other people that were learnt from")
    axes.set_ylabel("validation photos named at first guess")
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    plain(legend.get_texts())
    return png(figure)


def inversion_figures(found: InversionReport) -> dict[str, bytes]:
    """The report's figures as PNG files by name: ``rates``, ``queries`` and, with people in them,
    ``pictures_<number>``; one that has nothing to show is left out.
    """
    figures = {}
    if found.recoveries:
        gallery = found.recoveries[0].gallery
        rates = [r for r in found.rows if (r.measure, r.gallery) == ("rank_1", gallery)]
        shown = {
            (one.anonymizer, one.inverter)
            for one in found.recoveries
            if one.shown and one.gallery == gallery
        }
        figures["rates"] = rates_figure(rates, shown)
    searches = [one for one in found.searches if any(trial.optimal for trial in one.trials)]
    if searches:
        figures["queries"] = front_figure(searches)
    for number, (name, grid) in enumerate(found.grids.items()):
        if len(grid.originals):
            rows = [("original", "", grid.originals)]
            kinds = ["anonymized", *["reconstruction"] * len(grid.rows)]
            for kind, row in zip(kinds, grid.rows, strict=False):
                label = name if kind == "anonymized" else row.anonymizer
                rows.insert(len(rows) - 1, (label, kind, row.anonymized))
            figures[f"pictures_{number}"] = picture_sheet(rows)
    return figures


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
