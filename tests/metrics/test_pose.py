"""Yaw, roll and their classes against landmarks placed by hand."""

import math

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.pose import TURNED, majority_share, yaw_and_roll, yaw_classes

MOUTH = [[12.0, 30.0], [18.0, 30.0]]


def landmarks(left, right, nose):
    return np.array([left, right, nose, *MOUTH])


def test_a_nose_in_the_middle_is_frontal():
    assert yaw_and_roll(landmarks((10, 10), (20, 10), (15, 18))) == (0.0, 0.0)


def test_the_nose_moves_to_the_side_to_which_the_face_looks():
    yaw, _ = yaw_and_roll(landmarks((10, 10), (20, 10), (18, 18)))
    assert yaw == pytest.approx(0.3)
    yaw, _ = yaw_and_roll(landmarks((10, 10), (20, 10), (13, 18)))
    assert yaw == pytest.approx(-0.2)


def test_a_tilted_head_has_the_same_yaw():
    angle = math.radians(30)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright = landmarks((10, 10), (20, 10), (18, 18))
    yaw, roll = yaw_and_roll(upright @ turn.T)
    assert yaw == pytest.approx(0.3)
    assert roll == pytest.approx(30)


def test_eyes_in_one_point_have_no_direction():
    assert all(math.isnan(value) for value in yaw_and_roll(np.zeros((5, 2))))


def test_other_shapes_are_refused():
    with pytest.raises(BadInputError, match=r"\(5, 2\)"):
        yaw_and_roll(np.zeros((2, 5)))


def test_classes_part_at_the_threshold():
    yaw = [-0.5, -TURNED, 0.0, TURNED, TURNED + 1e-9, 0.4]
    assert yaw_classes(yaw).tolist() == [-1, 0, 0, 0, 1, 1]


def test_majority_share():
    assert majority_share(["a", "b", "a", "a"]) == 0.75
    assert majority_share([1]) == 1.0
    with pytest.raises(BadInputError, match="label"):
        majority_share([])
