"""Edge agreement: hand-computed numbers and a loop twin."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.image_similarity import edge_agreement, edge_f1


def brute(expected_edges, detected, tolerance):
    """Precision, recall and F1 of one image over all pairs of pixels."""

    def share(mine, theirs):
        near = [
            any((y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for v, u in theirs) for y, x in mine
        ]
        return sum(near) / len(near) if near else 1.0

    a, b = np.argwhere(expected_edges).tolist(), np.argwhere(detected).tolist()
    precision, recall = share(b, a), share(a, b)
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def line(column, height=8, width=16):
    edges = np.zeros((1, height, width), np.uint8)
    edges[0, :, column] = 255
    return edges


@pytest.mark.parametrize(("shift", "f1"), [(0, 1.0), (2, 1.0), (3, 0.0)])
def test_a_line_may_shift_by_the_tolerance(shift, f1):
    assert edge_f1(line(5), line(5 + shift)).tolist() == [f1]


def test_a_spurious_line_halves_the_precision():
    agreement = edge_agreement(line(5), line(5) | line(12))
    assert agreement.precision.tolist() == [0.5]
    assert agreement.recall.tolist() == [1.0]
    assert agreement.f1.tolist() == pytest.approx([2 / 3])


def test_diagonal_neighbours_are_farther_than_straight_ones():
    single, other = np.zeros((2, 1, 5, 5), bool)
    single[0, 1, 1], other[0, 2, 2] = True, True
    assert edge_f1(single, other, 1.0).tolist() == [0.0]
    assert edge_f1(single, other, 2**0.5).tolist() == [1.0]


def test_empty_maps():
    empty = np.zeros((1, 8, 16), np.uint8)
    assert [part.tolist() for part in edge_agreement(empty, empty)] == [[1.0], [1.0], [1.0]]
    assert [part.tolist() for part in edge_agreement(empty, line(3))] == [[0.0], [1.0], [0.0]]
    assert [part.tolist() for part in edge_agreement(line(3), empty)] == [[1.0], [0.0], [0.0]]
    assert edge_f1(empty[:0], empty[:0]).shape == (0,)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.0, 3.0])
def test_it_is_what_a_loop_over_pixels_finds(tolerance):
    rng = np.random.default_rng(4)
    expected_edges, detected = rng.random((2, 6, 12, 15)) < 0.06
    agreement = edge_agreement(expected_edges, detected, tolerance)
    twins = [brute(a, b, tolerance) for a, b in zip(expected_edges, detected, strict=True)]
    np.testing.assert_allclose(np.stack(agreement, 1), twins)


def test_bad_input_is_refused():
    with pytest.raises(BadInputError, match="share a shape"):
        edge_f1(line(1), line(1)[:, :4])
    with pytest.raises(BadInputError, match="share a shape"):
        edge_f1(line(1)[0], line(1)[0])
    with pytest.raises(BadInputError, match="tolerance"):
        edge_f1(line(1), line(1), -1)
