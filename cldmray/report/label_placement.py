"""Places the names of points in a figure so that none covers another, a point or a line."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

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
