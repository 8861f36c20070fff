"""Alignment: transforms computed by hand, and images warped by known maps."""

import numpy as np
import pytest

from cldmray.detection.alignment import TEMPLATE, crop_matrix, similarity, warp
from cldmray.errors import BadInputError

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def applied(matrix, points):
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


def test_a_quarter_turn_that_doubles_and_shifts():
    turned = np.array([[5.0, 7.0], [5.0, 9.0], [3.0, 9.0], [3.0, 7.0]])
    expected = [[0.0, -2.0, 5.0], [2.0, 0.0, 7.0]]
    np.testing.assert_allclose(similarity(SQUARE, turned), expected, atol=1e-12)


def test_the_template_is_left_where_it_is():
    np.testing.assert_allclose(similarity(TEMPLATE, TEMPLATE), np.eye(2, 3), atol=1e-9)


def test_it_never_mirrors():
    mirrored = SQUARE * [-1, 1]
    assert np.linalg.det(similarity(SQUARE, mirrored)[:, :2]) >= -1e-12


def test_noise_is_met_by_least_squares():
    rng = np.random.default_rng(0)
    target = TEMPLATE + rng.normal(0, 2, TEMPLATE.shape)
    matrix = similarity(TEMPLATE, target)

    def error(change):
        return ((applied(matrix + change, TEMPLATE) - target) ** 2).sum()

    def similar(a, b, x, y):
        return np.array([[a, -b, x], [b, a, y]])

    for change in np.eye(4) * 1e-3:
        assert error(similar(*change)) > error(0)
        assert error(-similar(*change)) > error(0)


@pytest.mark.parametrize(
    ("source", "target"),
    [(SQUARE, SQUARE[:3]), (SQUARE[:1], SQUARE[:1]), (SQUARE[0], SQUARE[0])],
)
def test_points_that_do_not_pair_are_refused(source, target):
    with pytest.raises(BadInputError, match="share a shape"):
        similarity(source, target)


def test_one_point_over_and_over_is_refused():
    with pytest.raises(BadInputError, match="all one"):
        similarity(np.ones((5, 2)), TEMPLATE)


def test_a_crop_by_whole_pixels_is_a_slice():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    matrix = crop_matrix((2 / 16, 4 / 16, 10 / 16, 12 / 16), 16, 8)
    np.testing.assert_array_equal(warp(image, matrix, 8), image[4:12, 2:10])


def test_beyond_the_edge_is_the_reflection():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    result = warp(image, crop_matrix((0.5, 0.5, 1.25, 1.25), 16, 12), 12)
    np.testing.assert_array_equal(result[8:, :8], image[15:11:-1, 8:])


def test_halving_averages_instead_of_skipping():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 200
    result = warp(stripes, crop_matrix((0.0, 0.0, 1.0, 1.0), 16, 8), 8)
    np.testing.assert_array_equal(result, np.full((8, 8, 3), 100))


@pytest.mark.parametrize("output", [20, 40, 100])
def test_a_ramp_keeps_its_place_at_every_scale(output):
    ramp = np.repeat(np.arange(40.0)[None, :, None], 40, 0).repeat(3, 2).astype(np.uint8) * 5
    result = warp(ramp, crop_matrix((0.25, 0.25, 0.75, 0.75), 40, output), output)
    place = 10 + (np.arange(output) + 0.5) * 20 / output - 0.5
    np.testing.assert_allclose(result[output // 2, :, 0], place * 5, atol=1.5)
