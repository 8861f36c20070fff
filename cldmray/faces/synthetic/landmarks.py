"""The 68 landmarks of iBUG as places on the head."""

import numpy as np

from cldmray.faces.synthetic.circumstances import Circumstances
from cldmray.faces.synthetic.curves import Floats
from cldmray.faces.synthetic.eyes import lid_edges
from cldmray.faces.synthetic.geometry import GAP, JAW, MOUTH, Head
from cldmray.faces.synthetic.identity import Appearance
from cldmray.faces.synthetic.skin import brow_line, lip_edges

CONTOUR = (
    (-88, -0.3), (-88, -2.5), (-87, -5.0), (-84, -8.0), (-78, -10.8), (-60, -11.8), (-42, -12.15),
    (-22, -12.3), (0, JAW), (22, -12.3), (42, -12.15), (60, -11.8), (78, -10.8), (84, -8.0),
    (87, -5.0), (88, -2.5), (88, -0.3),
)  # fmt: skip
"""Angle in degrees and level of the points along the jaw."""


def places(looks: Appearance, shot: Circumstances, head: Head) -> tuple[Floats, Floats]:
    """Level and angle of each landmark, shape (68,)."""
    contour = np.asarray(CONTOUR, np.float32)
    jaw_angle, jaw_level = np.radians(contour[:, 0]), contour[:, 1]
    x, level = (np.concatenate(part) for part in zip(*_features(looks, shot), strict=True))
    width = head.ring(level)[3]
    angle = np.arcsin(np.clip(x / width, -1, 1))
    return (
        np.concatenate([jaw_level, level]).astype(np.float32),
        np.concatenate([jaw_angle, angle]).astype(np.float32),
    )


def _features(looks: Appearance, shot: Circumstances) -> list[tuple[Floats, Floats]]:
    start, end = brow_line(looks, np.zeros(1, np.float32))[2]
    brow = np.linspace(end - 0.2, start + 0.1, 5, dtype=np.float32)
    brow_level = brow_line(looks, brow)[0]
    wide = looks.nose_width
    nose_x = np.array([0, 0, 0, 0, -1.2 * wide, -0.6 * wide, 0, 0.6 * wide, 1.2 * wide])
    nose_y = np.array([0.1, -1.3, -2.6, -3.95, -4.8, -5.05, -5.25, -5.05, -4.8])
    eye_x, eye_y = _eye(looks, shot)
    mouth_x, mouth_y = _mouth(looks)
    order = [3, 2, 1, 0, 5, 4]
    return [
        (-brow, brow_level),
        (brow[::-1], brow_level[::-1]),
        (nose_x.astype(np.float32), nose_y.astype(np.float32)),
        (-eye_x, eye_y),
        (eye_x[order], eye_y[order]),
        (mouth_x, mouth_y),
    ]


def _eye(looks: Appearance, shot: Circumstances) -> tuple[Floats, Floats]:
    """Outer corner, upper lid outer and inner, inner corner, lower lid inner and outer."""
    place = np.array([1.0, 0.35, -0.35, -1.0, -0.35, 0.35], np.float32)
    upper, lower = lid_edges(looks, shot, place)
    high = np.where(np.arange(6) < 3, upper, lower) * looks.eye_size
    across = place * looks.eye_size
    return across + np.float32(looks.eye_spacing), (high + looks.eye_tilt * across).astype(
        np.float32
    )


def _mouth(looks: Appearance) -> tuple[Floats, Floats]:
    wide = looks.mouth_width
    outer = np.array([-1, -0.6, -0.2, 0, 0.2, 0.6, 1, 0.6, 0.28, 0, -0.28, -0.6], np.float32)
    upper, lower, _ = lip_edges(looks, np.abs(outer * np.float32(wide)))
    level = np.where(np.arange(12) < 7, upper, lower)
    level[[0, 6]] = MOUTH - 0.5 * GAP
    inner = np.array([-0.9, -0.4, 0, 0.4, 0.9, 0.4, 0, -0.4], np.float32)
    inner_level = np.where(np.arange(8) < 5, MOUTH, MOUTH - GAP)
    return (
        (np.concatenate([outer, inner]) * wide).astype(np.float32),
        np.concatenate([level, inner_level]).astype(np.float32),
    )
