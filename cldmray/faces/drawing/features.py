"""The face of a sitter: head, ears, eyes, brows, nose and mouth."""

import numpy as np
import numpy.typing as npt

from cldmray.faces.drawing.canvas import Points, ellipse, smooth
from cldmray.faces.drawing.sitter import Sitter

WHITE = np.array([246, 243, 240], np.float32)
DARK = np.array([30, 20, 18], np.float32)
RED = np.array([176, 62, 66], np.float32)


def body(sitter: Sitter) -> None:
    """Neck and shoulders."""
    person, shot = sitter.person, sitter.shot
    neck, h = person.neck * person.width, person.height
    shade = person.skin * 0.72
    collar = h + 0.22
    sitter.canvas.paint(
        sitter.place([(-neck, 0.3 * h), (neck, 0.3 * h), (neck * 1.05, 1.6), (-neck * 1.05, 1.6)]),
        shade,
    )
    shoulders = [
        (-1.5, 1.9),
        (-1.15, collar + 0.16),
        (-neck * 1.15, collar),
        (0.0, collar + 0.16),
        (neck * 1.15, collar),
        (1.15, collar + 0.16),
        (1.5, 1.9),
    ]
    sitter.canvas.paint(sitter.place(smooth(shoulders)), shot.clothes)


def ear(sitter: Sitter, side: float) -> None:
    """One ear; ``side`` is -1 on the left, 1 on the right of the picture."""
    person, shot = sitter.person, sitter.shot
    reach = 1.0 - 0.6 * side * np.sin(shot.yaw)
    x = side * person.width * (0.96 + 0.06 * reach) - 0.1 * np.sin(shot.yaw)
    y = 0.06 * person.height - 0.25 * np.sin(shot.pitch)
    size = person.ear * (0.75 + 0.25 * reach)
    tilt = side * person.ear_tilt
    sitter.canvas.paint(sitter.place(ellipse(x, y, 0.52 * size, size, tilt)), person.skin * 0.93)
    inner = sitter.place(ellipse(x, y, 0.26 * size, 0.6 * size, tilt))
    sitter.canvas.paint(inner, person.skin * 0.68, soft=0.012)


def head(sitter: Sitter) -> None:
    """The head with its shadow on the neck, and the cheeks."""
    person, canvas = sitter.person, sitter.canvas
    outline = sitter.outline()
    canvas.paint(outline + np.array([0.0, 0.05], np.float32), person.skin * 0.5, 0.5, 0.03)
    canvas.paint(outline, person.skin)
    for side in (-1.0, 1.0):
        cheek = sitter.face(ellipse(side * 0.55 * person.width, 0.3 * person.height, 0.12, 0.1))
        canvas.paint(cheek, person.skin * 0.8 + RED * 0.2, 0.5, soft=0.05)


def eye(sitter: Sitter, side: float) -> None:
    """One eye and its brow; ``side`` as in :func:`ear`."""
    person, shot, canvas = sitter.person, sitter.shot, sitter.canvas
    x, y = side * person.eye_spacing * person.width, person.eye_height * person.height
    half = person.eye_width
    high = half * person.eye_opening * shot.eyes_open
    slope = -side * person.eye_tilt

    def at(points: npt.ArrayLike) -> Points:
        near = np.asarray(points, np.float32)
        return sitter.face(near * half + (x, y) + np.outer(near[:, 0] * half, (0.0, slope)))

    lift = high / half
    upper = [(-1.0, 0.1), (-0.55, -0.75 * lift), (0.1, -lift), (0.65, -0.65 * lift), (1.0, 0.0)]
    lower = [(0.6, 0.55 * lift), (0.0, 0.8 * lift), (-0.6, 0.55 * lift)]
    if side < 0:
        upper = [(-px, py) for px, py in reversed(upper)]
    canvas.paint(at(ellipse(0, -0.2, 1.35, 1.0)), person.skin * 0.62, 0.45, soft=0.04)
    shape = at(smooth([*upper, *lower]))
    canvas.paint(shape, WHITE)
    iris = min(0.62 * half, 1.05 * high + 0.012) / half
    canvas.paint(at(ellipse(0, -0.05 * lift, iris, iris)), person.iris)
    canvas.paint(at(ellipse(0, -0.05 * lift, 0.5 * iris, 0.5 * iris)), DARK)
    canvas.paint(at(ellipse(0.25, -0.35 * lift, 0.14, 0.14)), WHITE)
    lid = at(smooth(upper, closed=False))
    canvas.stroke(lid, 0.024, person.skin * 0.25, 0.9)
    canvas.stroke(lid - np.array([0.0, 0.04], np.float32), 0.014, person.skin * 0.6, 0.7)
    canvas.stroke(at(smooth(lower, closed=False)), 0.012, person.skin * 0.55, 0.7)
    brow(sitter, side, x, y - person.brow_gap - shot.brow_raise)


def brow(sitter: Sitter, side: float, x: float, y: float) -> None:
    """One brow over the point (x, y); ``side`` as in :func:`ear`."""
    person = sitter.person
    half, thick = 1.3 * person.eye_width, person.brow_thickness
    across = np.linspace(-1, 1, 7)
    taper = np.clip(1.15 - 0.85 * (across + 1) / 2, 0.2, 1)
    middle = -person.brow_arch * (1 - (across - 0.25) ** 2) + person.brow_tilt * half * across
    top = np.stack([side * across * half + x, y + middle - thick * taper], axis=1)
    bottom = np.stack([side * across * half + x, y + middle + thick * taper], axis=1)
    brow = sitter.face(smooth(np.concatenate([top, bottom[::-1]])))
    sitter.canvas.paint(brow, person.hair_colour * 0.7, 0.92, soft=0.006)


def nose(sitter: Sitter) -> None:
    """The nose, shaded away from the light."""
    person, canvas = sitter.person, sitter.canvas
    top = person.eye_height * person.height
    tip = top + person.nose_length * 1.15
    wide, bridge = person.nose_width, person.nose_width * person.nose_bridge
    shade = person.skin * 0.66
    away = -1.0 if sitter.shot.light[0] > 0 else 1.0
    flank = [(0.2 * away * bridge, top), (away * bridge, tip - 0.1), (away * wide, tip)]
    flank += [(away * 0.3 * wide, tip - 0.02), (0.0, tip - 0.12)]
    canvas.paint(sitter.face(smooth(flank), 0.05), shade, 0.75, soft=0.015)
    for side in (-1.0, 1.0):
        wing = [(side * bridge, tip - 0.09), (side * wide, tip - 0.045)]
        wing += [(side * wide * 0.95, tip + 0.01), (side * wide * 0.6, tip + 0.02)]
        canvas.stroke(sitter.face(smooth(wing, False), 0.06), 0.016, person.skin * 0.48, 0.8)
        nostril = ellipse(side * 0.45 * wide, tip + 0.015, 0.28 * wide, 0.018)
        canvas.paint(sitter.face(nostril, 0.08), person.skin * 0.3, 0.85, soft=0.005)
    base = [(-0.8 * wide, tip + 0.03), (0.0, tip + 0.055), (0.8 * wide, tip + 0.03)]
    canvas.stroke(sitter.face(smooth(base, False), 0.06), 0.03, shade, 0.6, soft=0.012)
    gleam = sitter.face(ellipse(0, tip - 0.05, 0.35 * wide, 0.04), 0.12)
    canvas.paint(gleam, WHITE, 0.3, soft=0.02)


def mouth(sitter: Sitter) -> None:
    """The mouth: smiling or not, open or closed."""
    person, shot, canvas = sitter.person, sitter.shot, sitter.canvas
    half = person.mouth_width * (1 + 0.18 * max(shot.smile, 0))
    y = person.mouth_height * person.height
    corner = y - 0.05 * shot.smile
    gap = 0.07 * shot.mouth_open
    lips = (1 - person.lip_redness) * person.skin * 0.8 + person.lip_redness * RED
    line = y + 0.012 * shot.smile
    upper = [(-half, corner), (-0.45 * half, y - 0.8 * person.upper_lip)]
    upper += [(-0.14 * half, y - person.upper_lip), (0.0, y - 0.78 * person.upper_lip)]
    upper += [(0.14 * half, y - person.upper_lip), (0.45 * half, y - 0.8 * person.upper_lip)]
    upper += [(half, corner), (0.0, line)]
    lower = [(-half, corner), (0.0, line + gap), (half, corner)]
    lower += [(0.5 * half, line + gap + 0.8 * person.lower_lip)]
    lower += [
        (0.0, line + gap + person.lower_lip),
        (-0.5 * half, line + gap + 0.8 * person.lower_lip),
    ]
    if gap > 0:
        opening = [(-0.9 * half, corner), (0.0, line - 0.01), (0.9 * half, corner)]
        opening += [(0.5 * half, line + gap), (0.0, line + 1.2 * gap), (-0.5 * half, line + gap)]
        canvas.paint(sitter.face(smooth(opening)), DARK * 1.4)
        teeth = [(-0.6 * half, line - 0.012), (0.6 * half, line - 0.012)]
        teeth += [(0.5 * half, line + 0.45 * gap), (-0.5 * half, line + 0.45 * gap)]
        canvas.paint(sitter.face(smooth(teeth)), WHITE, 0.9)
    canvas.paint(sitter.face(smooth(upper), 0.03), lips * 0.88)
    canvas.paint(sitter.face(smooth(lower), 0.03), lips)
    if gap == 0:
        seam = smooth(
            [(-half, corner), (-0.4 * half, line), (0.4 * half, line), (half, corner)], False
        )
        canvas.stroke(sitter.face(seam, 0.03), 0.016, lips * 0.4, 0.85)
    shade = ellipse(0, y + gap + person.lower_lip + 0.035, 0.5 * half, 0.014)
    canvas.paint(sitter.face(shade, 0.03), person.skin * 0.6, 0.6, soft=0.014)
