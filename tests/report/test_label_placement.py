"""Names of points find free places."""

import itertools

import pytest

from cldmray.report.figures.frontier import Box, _crosses, place_labels

FRAME = Box(0, 0, 300, 200)


def test_boxes():
    box = Box(0, 0, 10, 5)
    assert box.overlaps(Box(9, 4, 20, 20)) and not box.overlaps(Box(10, 0, 20, 5))
    assert Box(1, 1, 2, 2).within(box) and not box.within(Box(1, 1, 2, 2))
    assert box.nearest((20, 3)) == (10, 3) and box.nearest((4, 2)) == (4, 2)
    assert box.grown(1) == (-1, -1, 11, 6)


@pytest.mark.parametrize(
    ("start", "end", "hit"),
    [
        ((-5, 2), (15, 2), True),
        ((-5, 6), (15, 6), False),
        ((5, -5), (5, 20), True),
        ((11, -5), (11, 20), False),
        ((-5, 0), (5, 10), False),
        ((-1, 5), (3, 7), False),
        ((-1, 3), (3, 6), True),
        ((4, 2), (5, 3), True),
        ((-9, 2), (-2, 2), False),
    ],
)
def test_lines_through_a_box(start, end, hit):
    assert _crosses(start, end, Box(0, 0, 10, 5)) == hit


def test_a_lone_name_stands_beside_its_point():
    (box,) = place_labels([(100, 100)], [(40, 8)], [], [], FRAME)
    assert box == pytest.approx((107, 96, 147, 104))


def test_a_name_avoids_the_edge_the_lines_and_the_obstacles():
    obstacles, line = [Box(60, 60, 240, 140)], ((0, 150), (300, 150))
    (box,) = place_labels([(290, 130)], [(40, 8)], obstacles, [line], FRAME)
    assert box.within(FRAME)
    assert not box.overlaps(obstacles[0]) and not _crosses(*line, box)


def test_a_crowd_does_not_overlap():
    points = [(150 + 5 * (i % 4), 90 + 5 * (i // 4)) for i in range(12)]
    dots = [Box(x, y, x, y).grown(3) for x, y in points]
    boxes = place_labels(points, [(60, 8)] * 12, dots, [], FRAME)
    assert all(box.within(FRAME) for box in boxes)
    assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))
    assert not any(box.overlaps(dot) for box in boxes for dot in dots)
