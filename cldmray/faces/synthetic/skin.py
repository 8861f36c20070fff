"""The skin of a face as textures over x and level: colour, shade, gloss and hairiness."""

from dataclasses import dataclass

import numpy as np

from cldmray.faces.synthetic.curves import Floats, bell, generator, noise, spline, step
from cldmray.faces.synthetic.geometry import CHIN, GAP, MOUTH
from cldmray.faces.synthetic.identity import FULL_BEARD, GOATEE, MOUSTACHE, STUBBLE, Appearance

LEFT, TOP, RIGHT, BOTTOM = -8.0, 9.0, 8.0, -14.0
"""Extent of the textures, in cm and levels."""


@dataclass(frozen=True)
class Skin:
    """Textures of one person.

    Attributes:
        per_cm: texels per cm.
        colour: light reflected, shape (rows, columns, 3), 0..1.
        quality: shade (1 where open to the light), gloss, stubble and brow, (rows, columns, 4).
    """

    per_cm: float
    colour: Floats
    quality: Floats

    def place(self, x: Floats, level: Floats) -> tuple[Floats, Floats]:
        """Row and column of a place on the face."""
        return (TOP - level) * self.per_cm - 0.5, (x - LEFT) * self.per_cm - 0.5


class _Canvas:
    """Places of the texels, of all levels or of a band of them."""

    def __init__(self, per_cm: float, top: float = TOP, bottom: float = BOTTOM) -> None:
        columns = round((RIGHT - LEFT) * per_cm)
        first, last = (round((TOP - level) * per_cm) for level in (top, bottom))
        self.per_cm, self.rows = per_cm, slice(first, last)
        self.x = LEFT + (np.arange(columns, dtype=np.float32) + 0.5) / per_cm
        self.y = TOP - (np.arange(first, last, dtype=np.float32) + 0.5) / per_cm
        self.across = np.abs(self.x)
        self.shape = (last - first, columns)

    def spot(self, x: float, y: float, wide: float, high: float) -> Floats:
        """A soft spot on either side."""
        return np.asarray(bell(self.y, y, high)[:, None] * bell(self.across, x, wide)[None])

    def line(
        self, middle: Floats, width: float, first: float, last: float, soft: float = 0.4
    ) -> Floats:
        """A soft line y = middle(across) between two distances from the middle."""
        run = step(self.across, first - soft, first + soft)
        run = run * step(self.across, last + soft, last - soft)
        return np.asarray(bell(self.y[:, None] - middle[None], 0.0, width) * run[None])

    def upright(self, x: Floats, width: float, top: float, bottom: float) -> Floats:
        """A soft line across = x(level) on either side, between two levels."""
        run = step(self.y, top + 0.4, top - 0.4) * step(self.y, bottom - 0.4, bottom + 0.4)
        return np.asarray(bell(self.across[None] - x[:, None], 0.0, width) * run[:, None])


def lip_edges(looks: Appearance, across: Floats) -> tuple[Floats, Floats, Floats]:
    """Levels of the upper lip's and the lower lip's edge, and how far the lips reach, 0..1."""
    q = np.clip(across / looks.mouth_width, 0, 1)
    reach = np.clip(1 - q**2.2, 0, 1)
    bow = 1 - 0.22 * bell(q, 0.0, 0.09) + 0.06 * bell(q, 0.2, 0.12)
    upper = MOUTH + looks.upper_lip * reach**0.85 * (1 - 0.22 * q) * bow
    lower = MOUTH - GAP - looks.lower_lip * reach**0.7
    return (
        np.asarray(upper, np.float32),
        np.asarray(lower, np.float32),
        np.asarray(step(reach, 0.0, 0.12), np.float32),
    )


def brow_line(looks: Appearance, across: Floats) -> tuple[Floats, Floats, tuple[float, float]]:
    """Level of the brow's middle, its half thickness, and its start and end across, in cm."""
    start = max(looks.eye_spacing - 2.05, 0.75)
    end = start + 2 * looks.brow_length
    t = np.clip((across - start) / (end - start), 0, 1)
    middle = 2.0 + looks.brow_arch * np.sin(0.9 * np.pi * t) - 0.3 * t**3
    middle = middle + looks.brow_tilt * (across - looks.eye_spacing)
    thick = looks.brow_thickness * (0.75 + 0.5 * bell(t, 0.3, 0.25) - 0.75 * t**2)
    return np.asarray(middle, np.float32), np.asarray(thick, np.float32), (start, end)


def skin(looks: Appearance, per_cm: float) -> Skin:
    """Textures of a person at a resolution."""
    rng = generator("synthetic skin", looks.texture_seed)
    canvas = _Canvas(per_cm)
    colour = np.broadcast_to(looks.skin, (*canvas.shape, 3)).astype(np.float32)
    _complexion(canvas, looks, rng, colour)
    quality = np.empty((*canvas.shape, 4), np.float32)
    shadows = _shadows(canvas, looks)
    shadows *= 1 - _wrinkles(canvas, looks)
    np.clip(shadows, 0.05, 1.0, out=quality[..., 0])
    quality[..., 1] = _gloss(canvas, looks)
    quality[..., 2:] = 0
    if looks.sex:
        low = _Canvas(per_cm, 0.0)
        quality[low.rows, :, 2] = _beard(low, looks, rng)
    brows = _Canvas(per_cm, 5.0, 0.0)
    quality[brows.rows, :, 3] = _brows(brows, looks, rng)
    mouth = _Canvas(per_cm, MOUTH + 2.0, MOUTH - 2.5)
    _lips(mouth, looks, rng, colour[mouth.rows], quality[mouth.rows])
    return Skin(per_cm, np.clip(colour, 0.004, 1.0), quality)


def _lips(
    canvas: _Canvas, looks: Appearance, rng: np.random.Generator, colour: Floats, quality: Floats
) -> None:
    upper, lower, reach = lip_edges(looks, canvas.across)
    y, soft = canvas.y[:, None], 0.07
    lips = step(y, upper[None] + soft, upper[None] - soft)
    lips = lips * step(y, lower[None] - soft, lower[None] + soft) * reach[None]
    stripes = noise(rng, (3, 90), canvas.shape)
    red = np.array([0.62, 0.16, 0.17], np.float32) * (0.35 + 0.65 * float(looks.skin.mean()) / 0.5)
    tint = looks.skin * np.array([0.72, 0.5, 0.5], np.float32)
    tone = tint + (red - tint) * (0.75 * looks.lip_redness + 0.25 * looks.makeup)
    shade = (1 + 0.06 * stripes) * np.where(y > MOUTH - 0.5 * GAP, 0.86, 1.06)
    colour += (tone * shade[..., None] - colour) * (0.9 * lips)[..., None]
    quality[..., 1] += 0.55 * lips * step(y, MOUTH, MOUTH - 0.4)
    quality[..., 2] *= 1 - lips


def _complexion(
    canvas: _Canvas, looks: Appearance, rng: np.random.Generator, colour: Floats
) -> None:
    cloudy = noise(rng, (12, 9), canvas.shape) * 0.025 + noise(rng, (46, 32), canvas.shape) * 0.02
    pores = noise(rng, (150, 110), canvas.shape) * (0.015 + 0.02 * looks.wrinkles)
    colour *= (1 + looks.blotches * (cloudy + pores))[..., None]
    red = 0.5 * canvas.spot(3.9, -3.4, 1.6, 1.5) + 0.5 * canvas.spot(0.4, -4.2, 0.9, 0.8)
    red += 0.25 * canvas.spot(0, CHIN, 1.6, 0.9) + 0.2 * canvas.spot(6.5, -2.0, 1.0, 3.0)
    red *= (0.35 + looks.ruddiness) * (1 + 0.3 * noise(rng, (14, 10), canvas.shape))
    colour *= 1 - np.clip(red, 0, 1)[..., None] * np.array([0.03, 0.26, 0.24], np.float32)
    eyes = _Canvas(canvas.per_cm, 3.0, -3.0)
    tired = (
        0.5 * eyes.spot(looks.eye_spacing - 0.3, -1.05, 1.0, 0.38) * (0.5 + 0.8 * looks.wrinkles)
    )
    socket = 0.35 * eyes.spot(looks.eye_spacing - 0.2, 0.75, 1.3, 0.5)
    colour[eyes.rows] *= 1 - (tired + socket)[..., None] * np.array([0.22, 0.3, 0.24], np.float32)
    for _ in range(looks.freckles):
        x, y = rng.normal(0, 3.0), rng.normal(-2.6, 2.0)
        _dot(canvas, colour, x, y, rng.uniform(0.05, 0.11), rng.uniform(0.1, 0.35))
    for _ in range(looks.moles):
        x, y = rng.uniform(-6, 6), rng.uniform(-10.5, 5.5)
        _dot(canvas, colour, x, y, rng.uniform(0.08, 0.18), rng.uniform(0.4, 0.8))
    for _ in range(int(10 * looks.wrinkles)):
        x, y = rng.uniform(-6.5, 6.5), rng.uniform(-8, 7)
        _dot(canvas, colour, x, y, rng.uniform(0.15, 0.4), rng.uniform(0.05, 0.2))


def _dot(
    canvas: _Canvas, colour: Floats, x: float, y: float, radius: float, strength: float
) -> None:
    reach = 2.6 * radius + 1 / canvas.per_cm
    wide = max(radius, 0.45 / canvas.per_cm)
    rows = slice(*np.searchsorted(-canvas.y, (-y - reach, -y + reach)))
    columns = slice(*np.searchsorted(canvas.x, (x - reach, x + reach)))
    spot = bell(canvas.y[rows], y, wide)[:, None] * bell(canvas.x[columns], x, wide)[None]
    spot *= strength * (radius / wide) ** 2
    colour[rows, columns] *= 1 - spot[..., None] * np.array([0.75, 0.95, 1.0], np.float32)


def _shadows(canvas: _Canvas, looks: Appearance) -> Floats:
    """Openness to light from everywhere, of the hollows that never see much of it."""
    y, spot = canvas.y[:, None], canvas.spot
    eye = looks.eye_spacing
    dark = 0.2 * spot(eye - 1.5, 0.4, 0.5, 0.6) + 0.2 * spot(eye, 0.8, 1.4, 0.35)
    wing = 1.13 * looks.nose_width
    dark += 0.42 * spot(wing + 0.5, -4.55, 0.22, 0.5) + 0.35 * spot(0.2, -5.35, 0.6, 0.25)
    hole = 0.56 * looks.nose_width
    dark += 0.95 * np.clip(1.35 * spot(hole, -4.9 + 0.15 * looks.nose_turn, 0.26, 0.15), 0, 1)
    lower = MOUTH - GAP - looks.lower_lip
    dark += 0.3 * spot(0, lower - 0.3, 1.0, 0.28) + 0.4 * spot(looks.mouth_width, MOUTH, 0.22, 0.2)
    dark += 0.1 * spot(0, -6.1, 0.2, 0.5)
    dark = dark + 0.7 * step(y, -12.1, -13.8)
    bow = -0.1 * bell(canvas.across, 0, 0.3) + 0.04 * bell(canvas.across, 0.6, 0.4)
    seam = canvas.line(
        np.asarray(MOUTH - 0.5 * GAP + bow, np.float32), 0.085, -1.0, looks.mouth_width + 0.1, 0.25
    )
    return np.asarray(1 - np.maximum(dark, 0.8 * seam), np.float32)


def _wrinkles(canvas: _Canvas, looks: Appearance) -> Floats:
    rng = generator("synthetic wrinkles", looks.texture_seed)
    across, old = canvas.across, looks.wrinkles
    nasolabial = spline(
        canvas.y, (-8.2, -7.0, -5.6, -4.2), (3.35, 3.1, 2.45, 1.65)
    ) * (0.92 + 0.08 * looks.mouth_width / 2.5)  # fmt: skip
    lines = (0.1 + 0.42 * old) * canvas.upright(nasolabial, 0.16, -4.4, -7.2 - 0.8 * old)
    if old < 0.06:
        return np.asarray(lines, np.float32)
    marionette = spline(canvas.y, (-10.0, -7.4), (3.0, looks.mouth_width + 0.15))
    lines += 0.24 * old * canvas.upright(marionette, 0.17, -7.6, -9.6)
    for height in (4.0, 4.9, 5.8)[: 1 + int(rng.integers(3))]:
        bend = 0.12 * np.cos(across * rng.uniform(0.6, 1.1))
        curve = np.asarray(height + rng.normal(0, 0.1) + bend, np.float32)
        lines += 0.32 * old * canvas.line(curve, 0.08, -1, rng.uniform(2.5, 4.2), 1.0)
    for slope in (0.35, 0.0, -0.4):
        curve = 0.1 + slope * (across - looks.eye_spacing - 1.5)
        start = looks.eye_spacing + looks.eye_size + 0.35
        lines += 0.2 * old * canvas.line(curve, 0.06, start, start + 0.9, 0.2)
    bag = -1.35 + 0.16 * (across - looks.eye_spacing) ** 2
    lines += 0.4 * old * canvas.line(bag, 0.11, looks.eye_spacing - 1.3, looks.eye_spacing + 1.1)
    frown = np.full(canvas.shape[0], 0.45, np.float32)
    lines += 0.22 * old * rng.uniform(0, 1) * canvas.upright(frown, 0.09, 2.7, 1.4)
    return np.asarray(np.clip(lines, 0, 0.75), np.float32)


def _gloss(canvas: _Canvas, looks: Appearance) -> Floats:
    spot = canvas.spot
    shine = 0.25 + 0.5 * spot(0, -3.9, 0.5, 0.6) + 0.2 * spot(0, -1.5, 0.5, 1.6)
    shine += 0.5 * spot(0, 4.3, 2.8, 1.2) + 0.45 * spot(4.4, -2.1, 1.1, 0.8)
    shine += 0.35 * spot(0, CHIN + 0.2, 0.8, 0.5)
    return np.asarray(shine * looks.gloss, np.float32)


def _beard(canvas: _Canvas, looks: Appearance, rng: np.random.Generator) -> Floats:
    y, across = canvas.y[:, None], canvas.across[None]
    grain = noise(rng, (200, 150), canvas.shape) * 0.12 + noise(rng, (40, 30), canvas.shape) * 0.07
    edge = spline(canvas.across, (0.0, 2.6, 4.6, 6.0, 7.5), (-5.4, -5.7, -6.6, -4.6, -1.5))[None]
    full = step(y, edge + 0.7, edge - 0.9) * step(y, -14.0, -12.6)
    full = full * (1 - 0.75 * bell(across, 0, 0.35) * bell(y, -5.6, 0.4))
    round_chin = np.sqrt(across**2 + (0.72 * (y + 9.0)) ** 2)
    chin = step(round_chin, 3.2, 2.4) * step(y, -5.3, -6.0)
    lip = step(across, 3.3, 2.5) * bell(y, -6.1 - 0.09 * across**2, 0.45)
    bare = 0.8 * bell(across, 1.4, 0.7) * bell(y, -9.0, 0.35)
    share = {STUBBLE: 0.42 * full, MOUSTACHE: 1.15 * lip, GOATEE: chin - bare * chin}.get(
        looks.beard, full if looks.beard == FULL_BEARD else 0.0 * full
    )
    shadow = 0.12 * full * looks.sex
    grown = np.clip(share * (0.85 + grain), 0, 1) * (0.55 + 0.45 * looks.beard_density)
    return np.asarray(np.maximum(grown, shadow), np.float32)


def _brows(canvas: _Canvas, looks: Appearance, rng: np.random.Generator) -> Floats:
    across, y = canvas.across, canvas.y[:, None]
    middle, thick, (start, end) = brow_line(looks, across)
    run = step(across, start - 0.22, start + 0.3) * step(across, end + 0.1, end - 0.5)
    strands = noise(rng, (60, 110), canvas.shape)
    offset = np.abs(y - middle[None]) / np.maximum(thick, 0.04)[None]
    brow = step(offset + 0.16 * strands, 1.25, 0.5) * run[None]
    return np.asarray(brow * looks.brow_density * (0.94 + 0.1 * strands), np.float32)
