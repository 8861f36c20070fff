"""Eyes and the inside of the mouth, which change with every image."""

import numpy as np
import numpy.typing as npt

from cldmray.faces.synthetic.circumstances import Circumstances
from cldmray.faces.synthetic.curves import Floats, bell, generator, step
from cldmray.faces.synthetic.geometry import DROP, GAP, MOUTH
from cldmray.faces.synthetic.identity import Appearance

IRIS_RADIUS, EYE_RADIUS = 0.6, 1.2


def lid_edges(looks: Appearance, shot: Circumstances, place: Floats) -> tuple[Floats, Floats]:
    """Upper and lower edge of an eye's opening, in half eye widths above its axis.

    Args:
        looks: of the person.
        shot: the image.
        place: -1 at the inner corner, +1 at the outer one.
    """
    opening = 2 * looks.eye_opening * shot.eyes_open * (1 - 0.16 * max(shot.smile, 0.0))
    opening += 0.06 * shot.brow_raise
    e = np.clip(place, -1, 1)
    upper = 0.6 * opening * np.clip(1 - np.abs(e) ** 2.5, 0, 1) ** 0.72 * (1 - 0.12 * e)
    lower = -0.4 * opening * np.clip(1 - np.abs(e) ** 2.3, 0, 1) ** 0.8 * (1 + 0.14 * e)
    return np.asarray(upper, np.float32), np.asarray(lower, np.float32)


def paint_eyes(
    looks: Appearance, shot: Circumstances, x: Floats, level: Floats, colour: Floats, glint: Floats
) -> Floats:
    """Paint both eyes over the skin.

    Args:
        looks: of the person.
        shot: the image.
        x, level: place of each pixel on the face, shape (N,).
        colour: light reflected, shape (N, 3); changed in place.
        glint: light added, shape (N,); changed in place.

    Returns:
        share in which each pixel belongs to an eyeball, shape (N,).
    """
    ball = np.zeros(len(x), np.float32)
    around = np.abs(np.abs(x) - looks.eye_spacing)
    for side in (-1.0, 1.0):
        near = np.flatnonzero((x * side > 0.2) & (around < 2.3) & (np.abs(level) < 1.7))
        if len(near):
            _eye(looks, shot, side, x[near] * side, level[near], near, colour, glint, ball)
    return ball


def _eye(
    looks: Appearance,
    shot: Circumstances,
    side: float,
    across: Floats,
    level: Floats,
    near: npt.NDArray[np.intp],
    colour: Floats,
    glint: Floats,
    ball: Floats,
) -> None:
    half = looks.eye_size
    e = (across - looks.eye_spacing) / half
    h = (level - looks.eye_tilt * (across - looks.eye_spacing)) / half
    upper, lower = lid_edges(looks, shot, e)
    within = step(np.abs(e), 1.02, 0.96)
    inside = step(h, upper + 0.03, upper - 0.05) * step(h, lower - 0.04, lower + 0.04) * within
    inside = inside * step(upper - lower, 0.02, 0.12)
    lit = 1 - 0.3 * np.abs(e) ** 3 - 0.5 * step(h, upper - 0.32, upper + 0.02)
    white = np.array([0.6, 0.56, 0.53], np.float32) * (1 - 0.08 * looks.wrinkles)
    white = white * (0.72 + 0.28 * np.sqrt(float(looks.skin.mean()) / 0.5))
    eye = white * lit[:, None]
    pink = bell(e, -0.98, 0.16)[:, None]
    eye = eye * (1 - pink) + pink * np.array([0.5, 0.22, 0.2], np.float32)
    reach = EYE_RADIUS / half
    gaze_x = reach * np.sin(shot.gaze[0] - 0.45 * shot.yaw) * side
    gaze_y = reach * np.sin(shot.gaze[1] + 0.45 * shot.pitch) + 0.03
    radius = IRIS_RADIUS / half
    dx, dy = e - gaze_x, h - gaze_y
    d = np.sqrt(dx**2 + dy**2) / radius
    rays = 1 + 0.12 * np.sin(9 * np.arctan2(dy, dx) + looks.texture_seed % 7)
    tone = (0.75 + 0.65 * bell(d, 0.55, 0.2)) * rays * (1 - 0.7 * step(d, 0.72, 1.0))
    tone = tone * (1 - 0.45 * step(h, upper - 0.3, upper))
    iris = looks.iris * tone[:, None]
    iris = iris * (1 - 0.97 * step(d, 0.46, 0.36)[:, None])
    share = step(d, 1.06, 0.94)[:, None]
    eye = eye * (1 - share) + iris * share
    skin = colour[near]
    lashes = 0.06 + 0.035 * looks.makeup
    dark = (0.82 + 0.16 * looks.makeup) * bell(h - upper, 0.03, lashes)
    dark = dark * step(np.abs(e + 0.02), 1.2, 0.96)
    dark = dark + 0.3 * (0.6 + looks.makeup) * bell(h - lower, -0.03, 0.045) * step(e, -1.0, 0.2)
    wing = (0.3 + 0.4 * looks.makeup) * bell(h, 0.05 + 0.25 * (e - 1), 0.06) * bell(e, 1.06, 0.1)
    fold_height = 0.28 - 0.1 * shot.eyes_open + 0.12 * looks.eyelid_fold
    crease = (
        0.5 * looks.eyelid_fold * bell(h - upper, fold_height, 0.055) * step(np.abs(e), 1.2, 0.8)
    )
    lid = step(h, upper, upper + 0.03) * step(h, upper + fold_height + 0.1, upper + fold_height)
    shade = 0.16 * lid * step(np.abs(e), 1.2, 0.9) * (0.5 + looks.makeup)
    skin = skin * (1 - np.clip(crease + shade, 0, 0.8))[:, None]
    eye = skin + (eye - skin) * inside[:, None]
    eye *= 1 - np.clip(np.maximum(dark, wing), 0, 0.97)[:, None]
    colour[near] = eye
    spot_x, spot_y = 0.3 * shot.light[0], 0.12 + 0.25 * shot.light[1]
    catch = bell(dx * side, radius * spot_x * 1.3, 0.085) * bell(dy, radius * spot_y * 1.6, 0.085)
    glint[near] += 0.85 * catch * inside
    ball[near] = inside


def opening(looks: Appearance, shot: Circumstances, x: Floats) -> Floats:
    """Height in cm by which the lips are apart."""
    lips = np.sqrt(np.clip(1 - (x / (1.02 * looks.mouth_width)) ** 2, 0, 1))
    return np.asarray(DROP * shot.mouth_open * lips, np.float32)


def paint_mouth(
    looks: Appearance, shot: Circumstances, x: Floats, level: Floats, gap: Floats, colour: Floats
) -> None:
    """Paint teeth and the dark inside where the lips are apart.

    Args:
        looks: of the person.
        shot: the image.
        x, level: place of each pixel on the face, shape (N,).
        gap: full height of the opening in cm at each pixel, shape (N,).
        colour: light reflected, shape (N, 3); changed in place.
    """
    inside = np.flatnonzero((level < MOUTH) & (level > MOUTH - GAP) & (gap > 0.08))
    if not len(inside):
        return
    across, wide = x[inside], 0.8 * looks.mouth_width
    down = (MOUTH - level[inside]) / GAP * gap[inside]
    size = generator("synthetic teeth", looks.texture_seed).uniform(0.75, 0.95)
    tooth = np.mod(across + 0.425, 0.85) - 0.425
    between = 1 - 0.25 * bell(np.abs(tooth), 0.425, 0.05)
    row = step(down, size + 0.06, size - 0.08) * step(np.abs(across), wide + 0.1, wide - 0.2)
    ivory = np.array([0.72, 0.68, 0.58], np.float32) * (1 - 0.2 * looks.wrinkles)
    depth = 1 - 0.65 * (across / (wide + 0.3)) ** 2 - 0.35 * step(down, 0.15, -0.02)
    teeth = ivory * (between * np.clip(depth, 0.1, 1))[:, None]
    tongue = bell(down, 1.9, 0.5)[:, None] * np.array([0.22, 0.05, 0.05], np.float32)
    cavity = np.array([0.035, 0.012, 0.012], np.float32) + tongue
    painted = cavity + (teeth - cavity) * row[:, None]
    share = step(gap[inside], 0.08, 0.3)[:, None]
    colour[inside] += (painted - colour[inside]) * share
