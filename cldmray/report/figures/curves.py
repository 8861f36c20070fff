"""Curves over ranks, thresholds, training steps and the size of the gallery."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from cldmray.report.figures.style import (
    DASHED,
    DOTTED,
    INK,
    MUTED,
    RULE,
    as_written,
    canvas,
    line_style,
    panel,
    short,
    style,
    svg,
)
from cldmray.report.formatting import attacker_name, percent
from cldmray.results.audit import CmcCurve, DetCurve, LearningCurve

CMC_HEIGHT = 4.4
DET_HEIGHT = 4.0
LEARNING_HEIGHT = 2.5
PANELS_A_ROW = 2
LOWEST_RATE = 1e-3
"""Of a logarithmic axis: what is smaller is drawn here."""
MANY = 1000
"""People in a gallery, above which only powers of ten have ticks."""
LOWEST_TOP = 0.05
"""Of an axis of rates, so that chance does not look like learning."""

DET_AXES = {
    "verification": ("false match rate (FMR)", "false non-match rate (FNMR)"),
    "open_set": ("false positive identification rate (FPIR)", "false negative rate (FNIR)"),
}
"""Names of the axes, across and up, by the kind of a DET curve."""


def cmc_figure(curves: Sequence[CmcCurve]) -> bytes:
    """Cumulative match characteristics over a logarithmic rank axis, chance dashed.

    Args:
        curves: in the order of the legend, which repeats each curve's first rate; at least one.

    Returns:
        SVG of ``WIDTH`` x ``CMC_HEIGHT`` inches.
    """
    figure, axes = panel(CMC_HEIGHT)
    handles, labels = [], []
    for place, curve in enumerate(curves):
        colour, dashes = line_style(place)
        (line,) = axes.plot(curve.ranks, curve.rates, color=colour, ls=dashes, lw=2.0)
        handles.append(line)
        labels.append(f"{percent(curve.rates[0]):>7}  {short(curve.anonymizer)}")
    for ranks, rates in dict.fromkeys((tuple(c.ranks), tuple(c.chance)) for c in curves):
        (line,) = axes.plot(ranks, rates, color=INK, ls=DASHED, lw=1.2)
    handles.append(line)
    labels.append(f"{percent(curves[-1].chance[0]):>7}  chance")
    _legend(axes, handles, labels, f"at rank {curves[0].ranks[0]}")
    _count_axis(axes, max(max(curve.ranks) for curve in curves))
    axes.set_xlabel("number of best-ranked identities looked at (rank)")
    axes.set_ylim(-0.01, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=RULE)
    axes.set_ylabel("images whose person is among them")
    return svg(figure)


def det_figure(curves: Sequence[DetCurve]) -> bytes | None:
    """Detection error trade-off: misses over false alarms, verification beside the open set.

    Args:
        curves: of the strongest attack on each anonymizer, in the order of the legend.

    Returns:
        SVG of ``WIDTH`` x ``DET_HEIGHT`` inches; None where no curve has two points.
    """
    drawn = [curve for curve in curves if len(curve.false_alarms) > 1]
    kinds = [kind for kind in DET_AXES if any(curve.kind == kind for curve in drawn)]
    if not kinds:
        return None
    figure = canvas(DET_HEIGHT)
    places = list(dict.fromkeys(curve.anonymizer for curve in drawn))
    handles: dict[str, Line2D] = {}
    all_axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(all_axes, kinds, strict=True):
        style(axes)
        for curve in (curve for curve in drawn if curve.kind == kind):
            colour, dashes = line_style(places.index(curve.anonymizer))
            misses = np.maximum(curve.misses, LOWEST_RATE)
            (line,) = axes.plot(curve.false_alarms, misses, color=colour, ls=dashes, lw=1.8)
            handles.setdefault(curve.anonymizer, line)
        _log_axes(axes)
        across, up = DET_AXES[kind]
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    _legend_below(figure, handles)
    return svg(figure)


class GrowthPoint(NamedTuple):
    """The rank-1 rate among ``gallery_size`` people; extrapolated beyond those of the audit.

    Attributes:
        chance: what the same attack reaches with permuted identities.
    """

    gallery_size: int
    rate: float
    is_extrapolated: bool
    chance: float


def growth_figure(curves: Mapping[str, Sequence[GrowthPoint]]) -> bytes | None:
    """Rank-1 rate over the number of people in the gallery; extrapolations and chance are dashed.

    Args:
        curves: by anonymizer, sizes rising.

    Returns:
        SVG of ``WIDTH`` x ``DET_HEIGHT`` inches; None where no curve has two points.
    """
    drawn = {name: points for name, points in curves.items() if len(points) > 1}
    if not drawn:
        return None
    figure, axes = panel(DET_HEIGHT)
    handles: dict[str, Line2D] = {}
    for place, (name, points) in enumerate(drawn.items()):
        colour, dashes = line_style(place)
        measured = [(each.gallery_size, each.rate) for each in points if not each.is_extrapolated]
        beyond = [(each.gallery_size, each.rate) for each in points if each.is_extrapolated]
        (line,) = axes.plot(
            *zip(*measured, strict=True), color=colour, ls=dashes, lw=1.8, marker="o", ms=3.5
        )
        if beyond:
            axes.plot(*zip(measured[-1], *beyond, strict=True), color=colour, ls=DOTTED, lw=1.4)
        handles[name] = line
    for by_chance in dict.fromkeys(
        tuple((each.gallery_size, each.chance) for each in points) for points in drawn.values()
    ):
        (handles["chance"],) = axes.plot(
            *zip(*by_chance, strict=True), color=INK, ls=DASHED, lw=1.2
        )
    largest = max(point.gallery_size for points in drawn.values() for point in points)
    _count_axis(axes, largest, (1,) if largest > MANY else (1, 2, 5))
    axes.set_xlabel("people in the gallery")
    axes.set_ylim(-0.01, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=RULE)
    axes.set_ylabel("rank-1 identification rate")
    _legend_below(figure, handles)
    return svg(figure)


def learning_figure(curves: Sequence[LearningCurve]) -> bytes | None:
    """Validation rank-1 over training steps: a panel for each anonymizer, a line a training.

    Args:
        curves: in the order of the panels.

    Returns:
        SVG, taller with every row of panels; None where no curve has two rates.
    """
    panels: dict[str, list[LearningCurve]] = {}
    for curve in curves:
        if sum(rate is not None for rate in curve.validation_rank_1) > 1:
            panels.setdefault(curve.anonymizer, []).append(curve)
    if not panels:
        return None
    attackers = list(dict.fromkeys(c.attacker for drawn in panels.values() for c in drawn))
    n_rows = -(-len(panels) // PANELS_A_ROW)
    figure = canvas(LEARNING_HEIGHT * n_rows + 0.5)
    n_columns = min(PANELS_A_ROW, len(panels))
    all_axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    handles: dict[str, Line2D] = {}
    for axes, (anonymizer, drawn) in zip(all_axes, panels.items(), strict=False):
        style(axes)
        for curve in drawn:
            colour, dashes = line_style(attackers.index(curve.attacker))
            rates = [math.nan if rate is None else rate for rate in curve.validation_rank_1]
            (line,) = axes.plot(curve.steps, rates, color=colour, ls=dashes, lw=1.8)
            handles.setdefault(attacker_name(curve.attacker), line)
        axes.set_title(short(anonymizer), fontsize=10, color=INK, parse_math=False)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(color=RULE)
        axes.set_ylim(0, max(axes.get_ylim()[1], LOWEST_TOP))
        axes.set_xlabel("training steps")
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    _legend_below(figure, handles)
    return svg(figure)


def _legend(axes: Axes, handles: list[Line2D], labels: list[str], title: str) -> None:
    """A legend to the right of the axes."""
    legend = axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False,
        title=title, alignment="left", fontsize=9, labelcolor=INK,
    )  # fmt: skip
    legend.get_title().set_color(MUTED)
    as_written(legend.get_texts())


def _legend_below(figure: Figure, handles: Mapping[str, Line2D]) -> None:
    legend = figure.legend(
        handles.values(), [short(name) for name in handles], loc="outside lower center", ncols=3,
        frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    as_written(legend.get_texts())


def _count_axis(axes: Axes, last: int, digits: Sequence[int] = (1, 2, 5)) -> None:
    """A logarithmic axis of counts from 1 to ``last``, with ticks at these digits."""
    steps = [digit * 10**power for power in range(9) for digit in digits]
    axes.set_xscale("log")
    axes.set_xlim(0.95, max(last, 2) * 1.05)
    _ticks(axes.xaxis, [step for step in steps if step <= last], lambda count: f"{count:,.0f}")


def _log_axes(axes: Axes) -> None:
    """Logarithmic axes of error rates from 0.1 % to 100 %."""
    rates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    for axis, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        limits(LOWEST_RATE * 0.8, 1.25)
        _ticks(axis, rates, lambda rate: f"{100 * rate:g} %")
    axes.grid(color=RULE)


def _ticks(axis: Any, ticks: Iterable[float], text: Callable[[float], str]) -> None:
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
