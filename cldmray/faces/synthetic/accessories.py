"""Ears, glasses and caps."""

import numpy as np

from cldmray.faces.synthetic.curves import Floats, bell, step
from cldmray.faces.synthetic.geometry import CENTRE, Head
from cldmray.faces.synthetic.identity import Person
from cldmray.faces.synthetic.mesh import CAP, EAR, GLASSES, Mesh


def ear(who: Person, head: Head, side: float) -> Mesh:
    """One ear; ``side`` is -1 at the picture's left.

    The surface has one channel, the openness to light.
    """
    across = np.linspace(0, 1, 18, dtype=np.float32)[:, None]
    turn = np.linspace(0, 2 * np.pi, 40, dtype=np.float32)[None]
    lobe = 1 - 0.3 * bell(np.sin(turn), -1.0, 0.6)
    back = across * 1.75 * np.cos(turn) * lobe * who.ear_size
    up = across * 3.1 * np.sin(turn) * who.ear_size - 0.25 * back
    rim = 0.35 * bell(across, 0.86, 0.13) - 0.4 * bell(across, 0.35, 0.3)
    rim = rim + 0.22 * bell(across, 0.55, 0.1) * step(np.cos(turn), -0.2, 0.6)
    rim = rim - 0.5 * step(across, 0.9, 1.0)
    out = rim + (back + 1.6) * np.sin(who.ear_angle) * 0.9
    _, _, _, width, _ = head.ring(np.asarray(-1.0, np.float32))
    x = side * (float(width) - 0.35 + out)
    y = -1.3 + up
    z = CENTRE + 1.2 - back * np.cos(who.ear_angle) - 1.0 + 0.0 * across
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)
    open_to_light = 1 - 0.6 * bell(across, 0.3, 0.24) - 0.3 * bell(across, 0.7, 0.07)
    surface = np.broadcast_to(open_to_light[..., None], (*points.shape[:2], 1))
    return Mesh(EAR, points, (3, 3), surface.astype(np.float32), outside=side, both_sides=True)


def lens(who: Person, side: float, turn: Floats) -> Floats:
    """Outline of a lens at angles, 0 outwards and pi / 2 up; points (N, 3)."""
    power = 2.0 / who.frame_square
    cos, sin = np.cos(turn), np.sin(turn)
    wide, high = 2.55 * who.frame_width, 1.95 * who.frame_height
    x = wide * np.sign(cos) * np.abs(cos) ** power
    y = high * np.sign(sin) * np.abs(sin) ** power - 0.35
    from_middle = who.eye_spacing + 0.1 + x
    z = 0.95 - 0.035 * from_middle**2
    return np.stack([side * from_middle, y, z], axis=-1).astype(np.float32)


def glasses(who: Person) -> Mesh:
    """The frame as one tube: temple, lens, bridge, lens, temple; no surface channels."""
    line = _frame(who)
    ahead = np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    first = np.cross(ahead, np.array([0.1, 0.2, 1.0]))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(ahead, first)
    turn = np.linspace(0, 2 * np.pi, 9)[:, None, None]
    tube = line[None] + who.frame_thickness * (np.cos(turn) * first + np.sin(turn) * second)
    points = tube.astype(np.float32)
    return Mesh(GLASSES, points, (2, 4), points[..., :1], outside=-1.0)


def _frame(who: Person) -> Floats:
    hinge = who.eye_spacing + 0.1 + 2.55 * who.frame_width
    left = lens(who, -1.0, np.linspace(0.25, 2 * np.pi + 0.1, 110, dtype=np.float32))
    ear_x = 7.35 * who.head_width
    reach = np.linspace(1, 0, 26, dtype=np.float32)
    start = float(left[0, 2])
    temple = np.stack(
        [
            -(hinge + (ear_x - hinge) * np.minimum(1, 2.2 * reach) ** 0.8),
            np.full_like(reach, 0.35),
            start + (-9.0 - start) * reach,
        ],
        axis=1,
    )
    top = lens(who, -1.0, np.linspace(0.1, np.pi - 0.45, 30, dtype=np.float32))
    bridge_x = np.linspace(float(top[-1, 0]), -float(top[-1, 0]), 24, dtype=np.float32)
    bridge = np.stack(
        [bridge_x, np.full_like(bridge_x, top[-1, 1]), np.full_like(bridge_x, 1.15)], axis=1
    )
    other = lens(who, 1.0, np.linspace(np.pi - 0.45, -2 * np.pi + 0.25, 150, dtype=np.float32))
    mirrored = temple[::-1] * np.array([-1, 1, 1], np.float32)
    return np.concatenate([temple, left, top, bridge, other, mirrored]).astype(np.float32)


def cap(head: Head, lift: float) -> Mesh:
    """A cap with a visor; the surface has the channel shade of the panels.

    Args:
        head: surface of the head.
        lift: distance from the skull in cm.
    """
    angle = np.linspace(-2.45, 2.45, 110, dtype=np.float32)[None]
    t = np.linspace(0, 1, 46, dtype=np.float32)[:, None]
    dome = np.clip(t / 0.72, 0, 1)
    rim = 5.0 - 0.7 * (np.abs(angle) / 2.45)
    level = 11.25 - (11.25 - rim) * dome**1.45
    height, front, back, width, _ = head.ring(level)
    cos, sin = np.cos(angle), np.sin(angle)
    depth = np.where(cos > 0, front - CENTRE, CENTRE - back)
    visor = np.clip((t - 0.72) / 0.28, 0, 1) * step(np.abs(angle), 1.35, 0.75)
    crown = np.clip(height / 11.25, 0, 1) ** 3
    x = (width + lift + 0.4 * visor) * sin
    y = height + lift * crown + 0.2 - 1.5 * visor * (0.5 + 0.5 * np.abs(sin) ** 2)
    z = CENTRE + (depth + lift) * cos + 6.0 * visor
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)
    seams = 1 - 0.35 * bell(np.abs(np.mod(angle + 0.6, 1.2) - 0.6), 0.0, 0.03) * (dome < 1)
    shade = seams * (1 - 0.35 * bell(t, 0.72, 0.02))
    return Mesh(
        CAP, points, (3, 3), np.broadcast_to(shade, points.shape[:2])[..., None].astype(np.float32),
        both_sides=True,
    )  # fmt: skip
