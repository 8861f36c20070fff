"""Hair: a shell over the skull that ends at the hairline or hangs down beside the face."""

import numpy as np

from cldmray.faces.synthetic.curves import Floats, bell, generator, noise, spline, step
from cldmray.faces.synthetic.geometry import CENTRE, Head
from cldmray.faces.synthetic.identity import BALD, BOB, CURLY, FULL, LONG, RECEDING, Person
from cldmray.faces.synthetic.mesh import HAIR, Mesh

SIDES = (0.0, 0.35, 0.75, 1.02, 1.2, 1.33, 1.48, 1.62, 1.8, 2.2, 2.7, 3.15)
"""Angles between which the hair's end is given."""
CROWN = 11.25


def covers_ears(who: Person) -> bool:
    """Whether the hair hangs over the ears."""
    return who.hair in (BOB, LONG)


def hair(who: Person, head: Head, flat: float = 1.0) -> Mesh | None:
    """The hair of a person; None for a bald one.

    Args:
        who: the person.
        head: surface of the head.
        flat: factor of the volume, below 1 under a cap.

    Returns:
        a mesh whose surface has the channels strand, clump, depth below the outer hair
        (all about 0, standard deviation 1, or 0..1) and keep (hair where above 0.5).
    """
    if who.hair == BALD:
        return None
    rng = generator("synthetic hair", who.texture_seed)
    hanging = covers_ears(who)
    curly = who.hair == CURLY
    rows, columns = (72, 150) if hanging else (60, 124)
    most = np.pi if hanging else 2.45
    angle = np.linspace(-most, most, columns, dtype=np.float32)[None]
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    strands = noise(rng, (5, 120), (rows, columns))
    tips = noise(rng, (3, columns), (rows, columns))
    clumps = noise(rng, (5, 34), (rows, columns))
    curls = noise(rng, (26, 56), (rows, columns))
    line = end(who, angle)
    level = CROWN - (CROWN - float(line.min()) + 0.3) * t**1.3
    left = level - line
    thickness = flat * _thickness(who, angle, level, left)
    wave = who.hair_wave * hanging * np.sin(level * 0.9 + 2.0 * clumps) * step(level, 2, -6)
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
        x = x * (1 - 0.10 * bell(level, -6.0, 3.5) * (1 - who.hair_volume))
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)
    rough = 0.5 * strands + 0.3 * curls + 0.6 * tips
    ragged = 0.14 + 0.2 * hanging
    thin = 0.5 * (who.hair == RECEDING)
    keep = np.clip(0.5 + 0.9 * left + ragged * rough - thin, -0.5, 1.5)
    edge = step(left, 0.0, 2.5 if hanging else 1.6)
    part = bell(angle, who.hair_part, 0.05) * step(left, 0.5, 2.0) * (level > 4) * (not curly)
    under = np.clip(0.35 * (1 - edge) + 0.6 * part, 0, 1)
    grain = strands if not curly else 0.4 * strands + 0.9 * curls
    surface = np.stack(np.broadcast_arrays(grain, clumps, under, keep), axis=-1)
    return Mesh(
        HAIR, points, (2, 3), surface.astype(np.float32), outside=1.0, both_sides=hanging or curly
    )


def end(who: Person, angle: Floats) -> Floats:
    """Level at which the hair ends at each angle."""
    line, peak = who.hairline, who.hair_peak
    temple, corner = 4.2 + 0.4 * peak, line + 0.1 + peak
    if who.hair == RECEDING:
        values = [9.6, 10.2, 9.8, 6.0, 2.2, -1.0, -1.2, 2.0, 1.2, -4.0, -6.0, -7.0]
    elif who.hair == CURLY:
        low = -2.5 if not who.sex else -0.5
        low -= 3.0 * who.hair_wave * (1 - who.sex)
        values = [line, line, line - 0.4, 3.6, 1.0, low, low, low, low, -4.0, -6.0, -7.0]
    elif covers_ears(who):
        fall = -who.hair_length
        inner = 2.6 - 3.0 * who.hair_wave
        values = [line, line + 0.15, line - 0.3, inner, 0.75 * fall]
        values += [fall] * 7
    else:
        burn = -1.6 - 1.2 * who.hair_wave * who.sex
        ear = -1.0 if who.hair == FULL else 1.8
        values = [line, line + 0.3 * peak, corner, temple, 1.2, burn, burn, ear, ear]
        values += [-4.0, -6.0, -7.0]
    if who.fringe:
        sweep = 0.35 * np.sin(4.0 * who.hair_part)
        values[:3] = [who.fringe, who.fringe + sweep, who.fringe - 0.2]
        values[3] = min(values[3], who.fringe - 0.6)
    return spline(np.abs(angle), SIDES, values)


def scalp(who: Person, level: Floats, angle: Floats) -> Floats:
    """Share of hair's colour on the skin where the hair begins to grow, level by angle."""
    if who.hair == BALD:
        return np.zeros_like(level * angle)
    line = end(who, angle)
    weight = 0.45 if who.hair == RECEDING else 0.8
    high = step(line, -2.5, -0.5)
    grown = step(level - line, -0.75 if not covers_ears(who) else -0.4, 0.35)
    return np.asarray(weight * high * grown, np.float32)


def _thickness(who: Person, angle: Floats, level: Floats, left: Floats) -> Floats:
    """Distance of the outer hair from the skull; ``left`` is the height above the hair's end."""
    volume = who.hair_volume
    top = step(level, 3.5, 9.0)
    hanging = covers_ears(who)
    if who.hair == CURLY:
        full = (1.6 + 1.9 * volume) * np.ones_like(level)
    elif hanging:
        full = 0.85 + 0.55 * volume + 0.5 * top + 0.3 * step(level, 2.0, -5.0)
    elif who.hair == FULL:
        full = 0.9 + 0.7 * volume + 1.0 * top
    elif who.hair == RECEDING:
        full = 0.3 + 0.2 * volume + 0.0 * top
    else:
        full = 0.38 + 0.25 * volume + (0.5 + 1.0 * volume) * top
    ending = step(left, -0.6, 2.2 if not hanging else 1.6)
    if hanging:
        ending = np.maximum(ending, 0.25 * step(np.abs(angle), 0.95, 1.3))
    if who.fringe:
        ending = np.maximum(ending, 0.4 * step(np.abs(angle), 1.15, 0.75))
    lift = 1 + 0.25 * np.sin(angle - who.hair_part) * np.sign(who.hair_part) * top
    return np.asarray(full * ending * lift + 0.05, np.float32)
