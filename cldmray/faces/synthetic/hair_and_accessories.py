"""Hair: a shell over the skull that ends at the hairline or hangs down beside the face.

Ears, glasses and caps.
"""

import numpy as np

from cldmray.faces.synthetic.curves import Floats, bell, generator, noise, spline, step
from cldmray.faces.synthetic.geometry import CENTRE, Head
from cldmray.faces.synthetic.identity import BALD, BOB, CURLY, FULL, LONG, RECEDING, Appearance
from cldmray.faces.synthetic.splat import CAP, EAR, GLASSES, HAIR, Mesh

SIDES = (0.0, 0.35, 0.75, 1.02, 1.2, 1.33, 1.48, 1.62, 1.8, 2.2, 2.7, 3.15)
"""Angles between which the hair's end is given."""
CROWN = 11.25


def covers_ears(looks: Appearance) -> bool:
    """Whether the hair hangs over the ears."""
    return looks.hair in (BOB, LONG)


def hair(looks: Appearance, head: Head, flat: float = 1.0) -> Mesh | None:
    """The hair of a person; None for a bald one.

    Args:
        looks: of the person.
        head: surface of the head.
        flat: factor of the volume, below 1 under a cap.

    Returns:
        a mesh whose surface has the channels strand, clump, depth below the outer hair
        (all about 0, standard deviation 1, or 0..1) and keep (hair where above 0.5).
    """
    if looks.hair == BALD:
        return None
    rng = generator("synthetic hair", looks.texture_seed)
    hanging = covers_ears(looks)
    curly = looks.hair == CURLY
    rows, columns = (72, 150) if hanging else (60, 124)
    most = np.pi if hanging else 2.45
    angle = np.linspace(-most, most, columns, dtype=np.float32)[None]
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    strands = noise(rng, (5, 120), (rows, columns))
    tips = noise(rng, (3, columns), (rows, columns))
    clumps = noise(rng, (5, 34), (rows, columns))
    curls = noise(rng, (26, 56), (rows, columns))
    line = end(looks, angle)
    level = CROWN - (CROWN - float(line.min()) + 0.3) * t**1.3
    left = level - line
    thickness = flat * _thickness(looks, angle, level, left)
    wave = looks.hair_wave * hanging * np.sin(level * 0.9 + 2.0 * clumps) * step(level, 2, -6)
    thickness = thickness * (1 + 0.05 * strands + 0.09 * clumps + 0.16 * curly * curls)
    thickness = thickness + 0.35 * wave
    height, front, back, width, _ = head.ring(np.maximum(level, 0.0))
    below = np.minimum(level, 0.0)
    bottom = step(level, 0.0, -14.0)
    width = width * (1 + 0.05 * bottom * hanging)
    cos, sin = np.cos(angle), np.sin(angle)
    depth = np.where(cos > 0, front - CENTRE, CENTRE - back)
    crown = np.clip(height / CROWN, 0, 1) ** 3
    x = (width + thickness * (1 - 0.4 * crown)) * sin
    y = height + below + thickness * crown
    z = CENTRE + (depth + thickness * (1 - 0.3 * crown)) * cos
    if hanging:
        z = z + 1.6 * bottom * (cos > -0.3)
        x = x * (1 - 0.10 * bell(level, -6.0, 3.5) * (1 - looks.hair_volume))
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)
    rough = 0.5 * strands + 0.3 * curls + 0.6 * tips
    ragged = 0.14 + 0.2 * hanging
    thin = 0.5 * (looks.hair == RECEDING)
    keep = np.clip(0.5 + 0.9 * left + ragged * rough - thin, -0.5, 1.5)
    edge = step(left, 0.0, 2.5 if hanging else 1.6)
    part = bell(angle, looks.hair_part, 0.05) * step(left, 0.5, 2.0) * (level > 4) * (not curly)
    under = np.clip(0.35 * (1 - edge) + 0.6 * part, 0, 1)
    grain = strands if not curly else 0.4 * strands + 0.9 * curls
    surface = np.stack(np.broadcast_arrays(grain, clumps, under, keep), axis=-1)
    return Mesh(
        HAIR, points, (2, 3), surface.astype(np.float32), outside=1.0, both_sides=hanging or curly
    )


def end(looks: Appearance, angle: Floats) -> Floats:
    """Level at which the hair ends at each angle."""
    line, peak = looks.hairline, looks.hair_peak
    temple, corner = 4.2 + 0.4 * peak, line + 0.1 + peak
    if looks.hair == RECEDING:
        values = [9.6, 10.2, 9.8, 6.0, 2.2, -1.0, -1.2, 2.0, 1.2, -4.0, -6.0, -7.0]
    elif looks.hair == CURLY:
        low = -2.5 if not looks.sex else -0.5
        low -= 3.0 * looks.hair_wave * (1 - looks.sex)
        values = [line, line, line - 0.4, 3.6, 1.0, low, low, low, low, -4.0, -6.0, -7.0]
    elif covers_ears(looks):
        fall = -looks.hair_length
        inner = 2.6 - 3.0 * looks.hair_wave
        values = [line, line + 0.15, line - 0.3, inner, 0.75 * fall]
        values += [fall] * 7
    else:
        burn = -1.6 - 1.2 * looks.hair_wave * looks.sex
        ear = -1.0 if looks.hair == FULL else 1.8
        values = [line, line + 0.3 * peak, corner, temple, 1.2, burn, burn, ear, ear]
        values += [-4.0, -6.0, -7.0]
    if looks.fringe:
        sweep = 0.35 * np.sin(4.0 * looks.hair_part)
        values[:3] = [looks.fringe, looks.fringe + sweep, looks.fringe - 0.2]
        values[3] = min(values[3], looks.fringe - 0.6)
    return spline(np.abs(angle), SIDES, values)


def scalp(looks: Appearance, level: Floats, angle: Floats) -> Floats:
    """Share of hair's colour on the skin where the hair begins to grow, level by angle."""
    if looks.hair == BALD:
        return np.zeros_like(level * angle)
    line = end(looks, angle)
    weight = 0.45 if looks.hair == RECEDING else 0.8
    high = step(line, -2.5, -0.5)
    grown = step(level - line, -0.75 if not covers_ears(looks) else -0.4, 0.35)
    return np.asarray(weight * high * grown, np.float32)


def _thickness(looks: Appearance, angle: Floats, level: Floats, left: Floats) -> Floats:
    """Distance of the outer hair from the skull; ``left`` is the height above the hair's end."""
    volume = looks.hair_volume
    top = step(level, 3.5, 9.0)
    hanging = covers_ears(looks)
    if looks.hair == CURLY:
        full = (1.6 + 1.9 * volume) * np.ones_like(level)
    elif hanging:
        full = 0.85 + 0.55 * volume + 0.5 * top + 0.3 * step(level, 2.0, -5.0)
    elif looks.hair == FULL:
        full = 0.9 + 0.7 * volume + 1.0 * top
    elif looks.hair == RECEDING:
        full = 0.3 + 0.2 * volume + 0.0 * top
    else:
        full = 0.38 + 0.25 * volume + (0.5 + 1.0 * volume) * top
    ending = step(left, -0.6, 2.2 if not hanging else 1.6)
    if hanging:
        ending = np.maximum(ending, 0.25 * step(np.abs(angle), 0.95, 1.3))
    if looks.fringe:
        ending = np.maximum(ending, 0.4 * step(np.abs(angle), 1.15, 0.75))
    lift = 1 + 0.25 * np.sin(angle - looks.hair_part) * np.sign(looks.hair_part) * top
    return np.asarray(full * ending * lift + 0.05, np.float32)


def ear(looks: Appearance, head: Head, side: float) -> Mesh:
    """One ear; ``side`` is -1 at the image's left.

    The surface has one channel, the openness to light.
    """
    across = np.linspace(0, 1, 18, dtype=np.float32)[:, None]
    turn = np.linspace(0, 2 * np.pi, 40, dtype=np.float32)[None]
    lobe = 1 - 0.3 * bell(np.sin(turn), -1.0, 0.6)
    back = across * 1.75 * np.cos(turn) * lobe * looks.ear_size
    up = across * 3.1 * np.sin(turn) * looks.ear_size - 0.25 * back
    rim = 0.35 * bell(across, 0.86, 0.13) - 0.4 * bell(across, 0.35, 0.3)
    rim = rim + 0.22 * bell(across, 0.55, 0.1) * step(np.cos(turn), -0.2, 0.6)
    rim = rim - 0.5 * step(across, 0.9, 1.0)
    out = rim + (back + 1.6) * np.sin(looks.ear_angle) * 0.9
    _, _, _, width, _ = head.ring(np.asarray(-1.0, np.float32))
    x = side * (float(width) - 0.35 + out)
    y = -1.3 + up
    z = CENTRE + 1.2 - back * np.cos(looks.ear_angle) - 1.0 + 0.0 * across
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)
    open_to_light = 1 - 0.6 * bell(across, 0.3, 0.24) - 0.3 * bell(across, 0.7, 0.07)
    surface = np.broadcast_to(open_to_light[..., None], (*points.shape[:2], 1))
    return Mesh(EAR, points, (3, 3), surface.astype(np.float32), outside=side, both_sides=True)


def lens(looks: Appearance, side: float, turn: Floats) -> Floats:
    """Outline of a lens at angles, 0 outwards and pi / 2 up; points (N, 3)."""
    power = 2.0 / looks.frame_square
    cos, sin = np.cos(turn), np.sin(turn)
    wide, high = 2.55 * looks.frame_width, 1.95 * looks.frame_height
    x = wide * np.sign(cos) * np.abs(cos) ** power
    y = high * np.sign(sin) * np.abs(sin) ** power - 0.35
    from_middle = looks.eye_spacing + 0.1 + x
    z = 0.95 - 0.035 * from_middle**2
    return np.stack([side * from_middle, y, z], axis=-1).astype(np.float32)


def glasses(looks: Appearance) -> Mesh:
    """The frame as one tube: temple, lens, bridge, lens, temple; no surface channels."""
    line = _frame(looks)
    ahead = np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    first = np.cross(ahead, np.array([0.1, 0.2, 1.0]))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(ahead, first)
    turn = np.linspace(0, 2 * np.pi, 9)[:, None, None]
    tube = line[None] + looks.frame_thickness * (np.cos(turn) * first + np.sin(turn) * second)
    points = tube.astype(np.float32)
    return Mesh(GLASSES, points, (2, 4), points[..., :1], outside=-1.0)


def _frame(looks: Appearance) -> Floats:
    hinge = looks.eye_spacing + 0.1 + 2.55 * looks.frame_width
    left = lens(looks, -1.0, np.linspace(0.25, 2 * np.pi + 0.1, 110, dtype=np.float32))
    ear_x = 7.35 * looks.head_width
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
    top = lens(looks, -1.0, np.linspace(0.1, np.pi - 0.45, 30, dtype=np.float32))
    bridge_x = np.linspace(float(top[-1, 0]), -float(top[-1, 0]), 24, dtype=np.float32)
    bridge = np.stack(
        [bridge_x, np.full_like(bridge_x, top[-1, 1]), np.full_like(bridge_x, 1.15)], axis=1
    )
    other = lens(looks, 1.0, np.linspace(np.pi - 0.45, -2 * np.pi + 0.25, 150, dtype=np.float32))
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
