"""The privacy-utility frontier: how useful each anonymizer's images are, and how risky."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cldmray.metrics.pareto import pareto_front
from cldmray.report.figures.style import (
    DASHED,
    DPI,
    FINDING_COLOURS,
    INK,
    MUTED,
    PAPER,
    RULE,
    as_written,
    canvas,
    short,
    style,
    svg,
)
from cldmray.report.utility import heading, is_rate
from cldmray.results.audit import AnonymizerRisk, UtilityRow

HEIGHT = 4.8
PANELS = 2
PREFERRED = ("ssim", "pose_consistency", "face_detection_rate", "edge_f1")
"""Likeness to the original is what blurring keeps and a generated face loses; the pose of the head,
which takes a face that is detected, is what a generated face keeps and blurring loses: together
they say the most. The others stand in for what was not measured."""
FONT = 7.5
DOT = 5.5
POINTS_PER_INCH = 72
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class FrontierPoint(NamedTuple):
    """One anonymizer in a panel: its risk over one measure of utility."""

    risk: AnonymizerRisk
    utility: UtilityRow


def panels(
    risks: Sequence[AnonymizerRisk], utility: Sequence[UtilityRow]
) -> list[list[FrontierPoint]]:
    """The anonymizers of each panel: at most ``PANELS`` measures, preferred ones first."""
    by_key = {(row.measure, row.anonymizer): row for row in utility}
    measured = {row.measure for row in utility if row.higher_is_better}
    order = [name for name in PREFERRED if name in measured]
    order += sorted(measured - set(order))
    return [
        [
            FrontierPoint(r, by_key[name, r.anonymizer])
            for r in risks
            if (name, r.anonymizer) in by_key
        ]
        for name in order[:PANELS]
    ]


def optimal(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Those that no other one beats, from the least to the most useful (Pareto's optimum)."""
    front = pareto_front(
        [point.risk.risk for point in points], [point.utility.value for point in points]
    )
    undominated = [point for point, optimal in zip(points, front, strict=True) if optimal]
    return sorted(undominated, key=lambda point: (point.utility.value, point.risk.risk))


def frontier_figure(risks: Sequence[AnonymizerRisk], utility: Sequence[UtilityRow]) -> bytes | None:
    """Risk over usefulness, a dot for each anonymizer, the optimal ones filled and joined.

    Bars are confidence intervals; the dashed line is chance, unless that is 0, the dotted one what
    no look at the original reaches. The axis is logarithmic: risks below :func:`_floor` are drawn
    there.

    Args:
        risks: the strongest attack on each anonymizer.
        utility: rows of the same anonymizers.

    Returns:
        SVG of ``WIDTH`` x ``HEIGHT`` inches; None where there is nothing to draw.
    """
    drawn = [points for points in panels(risks, utility) if points]
    if not drawn:
        return None
    figure = canvas(HEIGHT)
    floor = _floor(risks)
    all_axes: list[Any] = list(figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0])
    for axes, points in zip(all_axes, drawn, strict=True):
        _draw(axes, points, floor)
    all_axes[0].set_ylabel("rank-1 rate of the strongest attack")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, points in zip(all_axes, drawn, strict=True):
        _name(axes, points, floor)
    return svg(figure)


def _floor(risks: Sequence[AnonymizerRisk]) -> float:
    """A third of the lowest chance; of 1/N where every measured chance is 0."""
    chances = [risk.chance for risk in risks if risk.chance > 0]
    return min(chances or [1 / max(risk.gallery_size for risk in risks)]) / 3


def _draw(axes: Axes, points: list[FrontierPoint], floor: float) -> None:
    style(axes)
    best = optimal(points)
    axes.set_yscale("log")
    axes.set_ylim(floor * 0.85, 1.25)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if tick >= floor]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.grid(color=RULE)
    for chance in {point.risk.chance for point in points if point.risk.chance > 0}:
        axes.axhline(chance, color=INK, ls=DASHED, lw=1.0)
    for reference in {point.utility.chance for point in points if point.utility.chance is not None}:
        axes.axvline(reference, color=MUTED, ls=(0, (1, 2)), lw=1.0)
    line = [(point.utility.value, max(point.risk.risk, floor)) for point in best]
    axes.plot(*zip(*line, strict=True), color=MUTED, lw=1.0, zorder=2)
    for point in points:
        colour = FINDING_COLOURS[point.risk.finding]
        x, y = point.utility.value, max(point.risk.risk, floor)
        bars: dict[str, Any] = {"color": colour, "lw": 1.2, "alpha": 0.55, "zorder": 3}
        axes.plot([x, x], [max(point.risk.low, floor), max(point.risk.high, floor)], **bars)
        axes.plot([point.utility.low, point.utility.high], [y, y], **bars)
        fill = colour if point in best else PAPER
        axes.plot(x, y, "o", ms=DOT, mec=colour, mfc=fill, mew=1.3, zorder=4)
    measure = points[0].utility.measure
    if is_rate(measure):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.set_xlabel(f"{heading(measure)} →")
    axes.margins(x=0.12)


def _name(axes: Axes, points: list[FrontierPoint], floor: float) -> None:
    """Write each anonymizer's name beside its dot, with a line to it where it is not next to it."""
    scale = POINTS_PER_INCH / DPI

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, max(y, floor)))
        return across * scale, up * scale

    texts = [
        axes.text(0, 0, short(point.risk.anonymizer), fontsize=FONT, color=INK) for point in points
    ]
    as_written(texts)
    extents = [text.get_window_extent() for text in texts]
    sizes = [(extent.width * scale, extent.height * scale) for extent in extents]
    dots = [place(point.utility.value, point.risk.risk) for point in points]
    obstacles = []
    for point, (x, y) in zip(points, dots, strict=True):
        obstacles.append(Box(x, y, x, y).grown(DOT / 2 + 0.5))
        low, high = (
            place(point.utility.value, point.risk.low),
            place(point.utility.value, point.risk.high),
        )
        obstacles.append(Box(x, low[1], x, high[1]).grown(0.5))
        left, right = (
            place(point.utility.low, point.risk.risk),
            place(point.utility.high, point.risk.risk),
        )
        obstacles.append(Box(left[0], y, right[0], y).grown(0.5))
    inside = axes.get_window_extent()
    frame = Box(*(edge * scale for edge in inside.extents))
    best = optimal(points)
    corners = [place(point.utility.value, point.risk.risk) for point in best]
    lines = list(itertools.pairwise(corners))
    chances = {point.risk.chance for point in points if point.risk.chance > 0}
    for height in {place(0.0, chance)[1] for chance in chances}:
        lines.append(((frame.left, height), (frame.right, height)))
    for across in {place(c, 1.0)[0] for p in points if (c := p.utility.chance) is not None}:
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


Point = tuple[float, float]
Line = tuple[Point, Point]

REACHES = (7.0, 12.0, 18.0, 26.0, 36.0, 48.0, 62.0, 78.0, 96.0, 116.0, 140.0, 170.0)
"""From a point to the nearest spot of its name, tried in turn."""
DIRECTIONS = 24
FAR = 40.0
"""A name this far from its point is as bad as one that covers something."""
MARGIN = 2.0
"""Kept free around a name."""
BAR_COST, LINE_COST, NAME_COST, OUTSIDE_COST = 0.25, 3.0, 30.0, 100.0


class Box(NamedTuple):
    """A rectangle, ``left <= right`` and ``bottom <= top``."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def within(self, other: "Box") -> bool:
        """Whether the box lies wholly in the other."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top

    def nearest(self, point: Point) -> Point:
        """The box's spot that is nearest to a point."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    def grown(self, margin: float) -> "Box":
        """The box, larger by a margin on every side."""
        return Box(self.left - margin, self.bottom - margin, self.right + margin, self.top + margin)


def place_labels(
    points: Sequence[Point],
    sizes: Sequence[Point],
    obstacles: Sequence[Box],
    drawn: Sequence[Line],
    frame: Box,
) -> list[Box]:
    """Where to write the name of each point.

    Names are placed one after the other, those with the most neighbours first, each at the nearest
    spot around its point where it lies in the frame and covers neither an obstacle nor a name, and
    where the line to its point crosses none of them. Where there is no such spot, it takes the one
    that covers least.

    Args:
        points: their places, in any unit of length that all arguments share; a typographic point
            suits ``REACHES``.
        sizes: width and height of each name.
        obstacles: what no name should cover, such as markers and bars.
        drawn: lines that should run through no name.
        frame: what no name should leave.
    """

    def crowd(place: int) -> int:
        return -sum(math.dist(points[place], other) < REACHES[5] for other in points)

    placed: dict[int, Box] = {}
    lines = list(drawn)
    for place in sorted(range(len(points)), key=lambda place: (crowd(place), place)):
        cost = partial(_cost, points[place], obstacles, list(placed.values()), lines, frame)
        placed[place], _ = min(_spots(points[place], sizes[place]), key=cost)
        lines.append((points[place], placed[place].nearest(points[place])))
    return [placed[place] for place in range(len(points))]


def _cost(
    point: Point,
    obstacles: Sequence[Box],
    names: Sequence[Box],
    lines: Sequence[Line],
    frame: Box,
    spot: tuple[Box, float],
) -> float:
    """How bad a spot is for a point's name: by its distance and by what it covers."""
    box, reach = spot
    line, here, wide = (point, box.nearest(point)), Box(*point, *point), box.grown(MARGIN)
    covered: float = sum(wide.overlaps(other) for other in obstacles)
    covered += NAME_COST * sum(wide.overlaps(other) for other in names)
    over = sum(_crosses(*line, other) for other in obstacles if not here.within(other))
    crossed = sum(_crosses(*line, other) for other in names)
    crossed += sum(_crosses(*other, box.grown(MARGIN / 2)) for other in lines)
    outside = 0.0 if box.within(frame) else OUTSIDE_COST
    return reach / FAR + covered + BAR_COST * over + LINE_COST * crossed + outside


def _spots(point: Point, size: Point) -> list[tuple[Box, float]]:
    """Boxes around a point, nearest first, with their reach."""
    spots = []
    for reach in REACHES:
        for step in range(DIRECTIONS):
            angle = 2 * math.pi * step / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            left = point[0] + reach * across - size[0] * (1 - across) / 2
            bottom = point[1] + reach * up - size[1] * (1 - up) / 2
            spots.append((Box(left, bottom, left + size[0], bottom + size[1]), reach))
    return spots


def _crosses(start: Point, end: Point, box: Box) -> bool:
    """Whether a line comes through the box (Liang and Barsky's clipping, 1984)."""
    first, last = 0.0, 1.0
    for axis in (0, 1):
        step = end[axis] - start[axis]
        low, high = box[axis] - start[axis], box[axis + 2] - start[axis]
        if step == 0:
            if low >= 0 or high <= 0:
                return False
            continue
        enter, leave = sorted((low / step, high / step))
        first, last = max(first, enter), min(last, leave)
    return first < last
