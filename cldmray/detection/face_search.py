"""Finds the face of an image of any size: small or large, turned either way, one of several."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.arrays import Floats, Images
from cldmray.detection.alignment import TEMPLATE, framed_template, needed_part, similarity, warp
from cldmray.detection.yunet import Detection, FindFaces

SIDES = ((640, 320), (1280,), (2560,))
"""Longest sides in pixels that an image is reduced to, until a face is found. Detectors miss faces
that are much smaller or larger than those of their training: at 640 most are found, at 320 those
that fill the image, at 1280 and 2560 those of 20 pixels in a large one. All turns are tried at one
entry before the next."""
TURNS = (0, 1, 3, 2)
"""Quarter turns against the clock that are tried, the most frequent first."""
CERTAIN = 0.9
"""Score from which on a face is known to be upright. YuNet gives 0.93 to most upright faces of LFW,
and 0.82 to those upside down, whose landmarks it then takes for those of an upright face."""
SCORE_GAP = 0.2
"""Of several faces, those are left out whose score is lower than the best one's by more."""
TILT = 4.0
"""Degrees from which on a face is looked at once more. YuNet sees half of what a face is turned by
in the image's plane, so that each further look halves the error."""
LOOKS = 3
SEEN = 64
"""Pixels; a face that was seen smaller than that is looked at again in the image's own detail."""
CUT, MARGIN = 256, 0.6
"""Side in pixels of what is looked at again, and what it shows around ArcFace's square."""


class FoundFace(NamedTuple):
    """The face that was chosen in an image.

    Attributes:
        landmarks: (x, y) in pixels of the image: eyes, nose and corners of the mouth, left before
            right as seen when the face is upright. Shape (5, 2).
        side: of the face, the root of its box's area, in pixels of the image.
        score: of the detector, 0..1.
        n_faces: faces that were found.
        quarter_turns: against the clock, by which the image has to be turned to be upright, 0 to 3.
    """

    landmarks: Floats
    side: float
    score: float
    n_faces: int
    quarter_turns: int


def find_face(image: Images, find: FindFaces) -> FoundFace | None:
    """The largest and most central face of an image; None where there is none.

    Of several faces the one counts whose box has the largest area less twice the squared distance
    of its centre from the image's, as in InsightFace's tools.

    Args:
        image: RGB, uint8, shape (h, w, 3), of any size.
        find: what a detector opens into.
    """
    for turned, turns, scale in _views(image):
        faces = find(turned)
        if not faces:
            continue
        least = max(face.score for face in faces) - SCORE_GAP
        near_best = [face for face in faces if face.score >= least]
        height, width = turned.shape[:2]
        face = max(near_best, key=lambda each: prominence(each, height, width))
        upright = unturned(face.landmarks, turns, *_turned_back(height, width, turns))
        seen = math.sqrt(max(float(face.box[2] * face.box[3]), 1.0))
        rough = FoundFace(
            (upright + 0.5) / scale - 0.5, seen / scale, face.score, len(near_best), turns
        )
        is_detailed = seen >= SEEN or scale == 1.0
        certain = face.score >= CERTAIN and abs(angle(face.landmarks)) < TILT and is_detailed
        return rough if certain else _looked_at_again(image, rough, find)
    return None


def unturned(points: npt.ArrayLike, quarter_turns: int, height: int, width: int) -> Floats:
    """Points (x, y) of an image that was turned by ``numpy.rot90``, as points of the image.

    Args:
        points: pixel centres, shape (K, 2).
        quarter_turns: against the clock, 0 to 3.
        height, width: of the image before it was turned.

    >>> image = np.arange(6).reshape(2, 3)
    >>> int(np.rot90(image)[0, 1]), unturned([[1, 0]], 1, 2, 3).tolist()
    (5, [[2.0, 1.0]])
    """
    x, y = np.asarray(points, np.float64).T
    right, bottom = width - 1, height - 1
    places = [(x, y), (right - y, x), (right - x, bottom - y), (y, bottom - x)]
    return np.stack(places[quarter_turns], axis=1)


def prominence(face: Detection, height: int, width: int) -> float:
    """Area of a face less twice the squared distance of its centre from the image's, pixels."""
    left, top, across, down = (float(value) for value in face.box)
    off = (left + across / 2 - (width - 1) / 2, top + down / 2 - (height - 1) / 2)
    return across * down - 2 * (off[0] ** 2 + off[1] ** 2)


def _turned_back(height: int, width: int, quarter_turns: int) -> tuple[int, int]:
    return (width, height) if quarter_turns % 2 else (height, width)


def _views(image: Images) -> Iterator[tuple[Images, int, float]]:
    """The image as it is searched: reduced and turned, its quarter turns, and its scale."""
    longest = max(image.shape[:2])
    for place, sides in enumerate(SIDES):
        scales = [side / longest for side in sides if side < longest]
        if longest <= sides[0] and (place == 0 or longest > SIDES[place - 1][0]):
            scales.insert(0, 1.0)
        reduced = [(_resized(image, scale), scale) for scale in scales]
        for turns in TURNS:
            for seen, scale in reduced:
                yield np.ascontiguousarray(np.rot90(seen, turns)), turns, scale


def _resized(image: Images, scale: float) -> Images:
    if scale == 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class _Look(NamedTuple):
    """What is seen of a face in its aligned cut: landmarks in the image, score, tilt in degrees."""

    landmarks: Floats
    score: float
    tilt: float


def _looked_at_again(image: Images, rough: FoundFace, find: FindFaces) -> FoundFace:
    """The face with landmarks of its own aligned cut, whichever way up it is seen best."""
    best: _Look | None = None
    for turns in TURNS:
        look = _look(image, _turned(rough.landmarks, turns), find)
        if look is not None and (best is None or look.score > best.score):
            best = look
        if best is not None and best.score >= CERTAIN:
            break
    if best is None:
        return rough
    for _ in range(LOOKS - 1):
        look = _look(image, best.landmarks, find) if best.tilt >= TILT else None
        if look is None or look.score < best.score - SCORE_GAP:
            break
        best = look
    turns = round(angle(best.landmarks) / 90) % 4
    return rough._replace(landmarks=best.landmarks, score=best.score, quarter_turns=turns)


def _look(image: Images, landmarks: Floats, find: FindFaces) -> _Look | None:
    """What a detector sees where a face should be, brought upright by landmarks; None: nothing."""
    template = framed_template(MARGIN, CUT)
    matrix = similarity(landmarks, template)
    faces = find(warp(*needed_part(image, matrix, CUT), CUT))
    centre, reach = template.mean(0), CUT / 8
    near = [face for face in faces if np.abs(face.landmarks.mean(0) - centre).max() < reach]
    if not near:
        return None
    face = max(near, key=lambda each: each.score)
    points = np.linalg.solve(matrix[:, :2], (face.landmarks - matrix[:, 2]).T).T
    return _Look(np.asarray(points, np.float64), face.score, abs(angle(face.landmarks)))


def _turned(points: Floats, quarter_turns: int) -> Floats:
    """Points turned about their centre, so that what they bring upright is turned the other way."""
    centre = points.mean(0)
    x, y = (points - centre).T
    places = [(x, y), (-y, x), (-x, -y), (y, -x)]
    turned: Floats = np.stack(places[quarter_turns], axis=1) + centre
    return turned


def angle(landmarks: npt.ArrayLike) -> float:
    """Degrees, in -180..180, by which a face has to be turned against the clock to be upright.

    Args:
        landmarks: shape (5, 2), pixels, y downwards.
    """
    matrix = similarity(landmarks, TEMPLATE)
    return -math.degrees(math.atan2(float(matrix[1, 0]), float(matrix[0, 0])))
