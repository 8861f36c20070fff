"""The privacy-utility frontier: what each setting costs in usefulness, and which risk it leaves."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cldmray.report.figures import (
    DPI,
    FINDING_COLOURS,
    INK,
    MUTED,
    RULE,
    canvas,
    plain,
    png,
    short,
    style,
)
from cldmray.report.label_placement import Box, place_labels
from cldmray.report.utility import heading, is_rate
from cldmray.results.audit import AnonymizerRisk, UtilityRow

HEIGHT = 4.8
PANELS = 2
PREFERRED = ("ssim", "pose_consistency", "face_detection_rate", "edge_f1")
"""Likeness to the original is what blurring keeps and an anonymized face loses; the pose of the head,
which takes a face that is found, is what an anonymized face keeps and blurring loses: together they
tell the most. The others stand in for what was not measured."""
FONT = 7.5
DOT = 5.5
POINTS_PER_INCH = 72
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class AnonymizerBase(NamedTuple):
    """One anonymizer in a panel."""

    risk: AnonymizerRisk
    utility: UtilityRow


def panels(
    risks: Sequence[AnonymizerRisk], utility: Sequence[UtilityRow]
) -> list[list[AnonymizerBase]]:
    """The settings of each panel: at most ``PANELS`` measures, preferred ones first."""
    by_key = {(row.measure, row.anonymizer): row for row in utility}
    measured = {row.measure for row in utility if row.higher_is_better}
    order = [name for name in PREFERRED if name in measured]
    order += sorted(measured - set(order))
    return [
        [
            AnonymizerBase(r, by_key[name, r.anonymizer])
            for r in risks
            if (name, r.anonymizer) in by_key
        ]
        for name in order[:PANELS]
    ]


def optimal(settings: Sequence[AnonymizerBase]) -> list[AnonymizerBase]:
    """Those that no other one beats, from the least to the most useful (Pareto's optimum).

    A setting beats another if it is at least as useful and at most as risky, and not equal in both.
    """

    def beaten(one: AnonymizerBase) -> bool:
        here = one.utility.value, -one.risk.risk
        others = ((other.utility.value, -other.risk.risk) for other in settings)
        return any(o[0] >= here[0] and o[1] >= here[1] and o != here for o in others)

    kept = [one for one in settings if not beaten(one)]
    return sorted(kept, key=lambda one: (one.utility.value, one.risk.risk))


def frontier_figure(risks: Sequence[AnonymizerRisk], utility: Sequence[UtilityRow]) -> bytes | None:
    """Risk over usefulness, a dot for each anonymizer, the optimal ones filled and joined.

    Bars are confidence intervals; the dashed line is chance, the dotted one what no look at the
    original reaches. Risks below a third of chance are drawn there: the axis is logarithmic.

    Args:
        risks: the strongest attack on each anonymizer.
        utility: rows of the same anonymizers.

    Returns:
        PNG of ``WIDTH`` x ``HEIGHT`` inches at ``DPI``; None where there is nothing to draw.
    """
    drawn = [settings for settings in panels(risks, utility) if settings]
    if not drawn:
        return None
    figure = canvas(HEIGHT)
    floor = min(risk.chance for risk in risks) / 3
    every: list[Any] = list(figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0])
    for axes, settings in zip(every, drawn, strict=True):
        _draw(axes, settings, floor)
    every[0].set_ylabel("images whose person the strongest attack names")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, settings in zip(every, drawn, strict=True):
        _name(axes, settings, floor)
    return png(figure)


def _draw(axes: Axes, settings: list[AnonymizerBase], floor: float) -> None:
    style(axes)
    best = optimal(settings)
    axes.set_yscale("log")
    axes.set_ylim(floor * 0.85, 1.25)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if tick >= floor]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.grid(color=RULE)
    for chance in {one.risk.chance for one in settings}:
        axes.axhline(chance, color=INK, ls=(0, (4, 3)), lw=1.0)
    for reference in {one.utility.chance for one in settings if one.utility.chance is not None}:
        axes.axvline(reference, color=MUTED, ls=(0, (1, 2)), lw=1.0)
    line = [(one.utility.value, max(one.risk.risk, floor)) for one in best]
    axes.plot(*zip(*line, strict=True), color=MUTED, lw=1.0, zorder=2)
    for one in settings:
        colour = FINDING_COLOURS[one.risk.finding]
        x, y = one.utility.value, max(one.risk.risk, floor)
        bars: dict[str, Any] = {"color": colour, "lw": 1.2, "alpha": 0.55, "zorder": 3}
        axes.plot([x, x], [max(one.risk.low, floor), max(one.risk.high, floor)], **bars)
        axes.plot([one.utility.low, one.utility.high], [y, y], **bars)
        fill = colour if one in best else "white"
        axes.plot(x, y, "o", ms=DOT, mec=colour, mfc=fill, mew=1.3, zorder=4)
    measure = settings[0].utility.measure
    if is_rate(measure):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.set_xlabel(f"{heading(measure)} →")
    axes.margins(x=0.12)


def _name(axes: Axes, settings: list[AnonymizerBase], floor: float) -> None:
    """Write each setting's name beside its dot, with a line to it where it is not next to it."""
    scale = POINTS_PER_INCH / DPI

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, max(y, floor)))
        return across * scale, up * scale

    texts = [axes.text(0, 0, short(s.risk.anonymizer), fontsize=FONT, color=INK) for s in settings]
    plain(texts)
    extents = [text.get_window_extent() for text in texts]
    sizes = [(extent.width * scale, extent.height * scale) for extent in extents]
    dots = [place(one.utility.value, one.risk.risk) for one in settings]
    obstacles = []
    for one, (x, y) in zip(settings, dots, strict=True):
        obstacles.append(Box(x, y, x, y).grown(DOT / 2 + 0.5))
        low, high = place(one.utility.value, one.risk.low), place(one.utility.value, one.risk.high)
        obstacles.append(Box(x, low[1], x, high[1]).grown(0.5))
        left, right = place(one.utility.low, one.risk.risk), place(one.utility.high, one.risk.risk)
        obstacles.append(Box(left[0], y, right[0], y).grown(0.5))
    inside = axes.get_window_extent()
    frame = Box(*(edge * scale for edge in inside.extents))
    best = optimal(settings)
    corners = [place(one.utility.value, one.risk.risk) for one in best]
    lines = list(itertools.pairwise(corners))
    for height in {place(0.0, one.risk.chance)[1] for one in settings}:
        lines.append(((frame.left, height), (frame.right, height)))
    for across in {place(c, 1.0)[0] for o in settings if (c := o.utility.chance) is not None}:
        lines.append(((across, frame.bottom), (across, frame.top)))
    back = axes.transData.inverted()
    boxes = place_labels(dots, sizes, obstacles, lines, frame)
    for text, box, dot in zip(texts, boxes, dots, strict=True):
        left, bottom = back.transform((box.left / scale, box.bottom / scale))
        text.set_position((float(left), float(bottom)))
        text.set_verticalalignment("bottom")
        near = box.nearest(dot)
        ends = [back.transform((x / scale, y / scale)) for x, y in (dot, near)]
        axes.plot(*zip(*ends, strict=True), color=MUTED, lw=0.5, zorder=1)
