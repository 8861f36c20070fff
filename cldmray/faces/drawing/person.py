"""What a drawn person looks like and how one photo of them is taken: numbers from hashes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cldmray.hashing import digest

Colour = npt.NDArray[np.floating]
"""RGB, shape (3,), values 0..255."""

SKINS = ((255, 224, 198), (240, 196, 160), (214, 160, 120), (172, 118, 82), (120, 78, 54))
HAIRS = (
    (32, 26, 24),
    (66, 44, 30),
    (112, 74, 44),
    (168, 126, 74),
    (214, 184, 126),
    (146, 66, 36),
    (150, 148, 148),
)
IRISES = ((70, 44, 28), (106, 74, 40), (84, 108, 72), (74, 112, 150), (110, 122, 130))

BALD, SHORT, FULL, CURLY, LONG = range(5)
HAIR_SHARES = (0.07, 0.33, 0.2, 0.13, 0.27)
NO_BEARD, MOUSTACHE, GOATEE, FULL_BEARD = range(4)
BEARD_SHARES = (0.82, 0.06, 0.05, 0.07)
NO_GLASSES, ROUND_GLASSES, SQUARE_GLASSES = range(3)
GLASSES_SHARES = (0.86, 0.07, 0.07)


@dataclass(frozen=True)
class Person:
    """The lasting looks of one person.

    Lengths are in half picture sides; ``eye_height`` and the like are measured from the head's
    centre, downwards; shares and factors have no unit; tilts are slopes.
    """

    width: float
    height: float
    jaw: float
    chin: float
    skin: Colour
    hair: int
    hair_colour: Colour
    hair_volume: float
    hair_length: float
    hairline: float
    hair_peak: float
    hair_sweep: float
    sideburn: float
    eye_spacing: float
    eye_height: float
    eye_width: float
    eye_opening: float
    eye_tilt: float
    iris: Colour
    brow_thickness: float
    brow_gap: float
    brow_arch: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    nose_bridge: float
    mouth_width: float
    mouth_height: float
    upper_lip: float
    lower_lip: float
    lip_redness: float
    ear: float
    ear_tilt: float
    beard: int
    glasses: int
    neck: float


@dataclass(frozen=True)
class Shot:
    """The circumstances of one photo.

    Angles are in radians, shifts in half picture sides, the light is a unit vector (right, down,
    towards the camera), noise is a standard deviation in grey levels.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    shift: tuple[float, float]
    light: tuple[float, float, float]
    ambient: float
    exposure: float
    warmth: float
    smile: float
    mouth_open: float
    eyes_open: float
    brow_raise: float
    background: tuple[Colour, Colour]
    background_turn: float
    clothes: Colour
    noise: float
    noise_seed: int


def person(seed: int, identity: int) -> Person:
    """The person with this number; the same for the same arguments, always."""
    rng = _generator("drawn person", seed, identity)
    between = rng.uniform
    hair = _pick(rng, HAIR_SHARES)
    return Person(
        width=between(0.42, 0.56),
        height=between(0.57, 0.7),
        jaw=between(0.62, 0.97),
        chin=between(0.22, 0.6),
        skin=_blend(SKINS, between()) + _jitter(rng, 8),
        hair=hair,
        hair_colour=_blend(HAIRS, between()) + _jitter(rng, 10),
        hair_volume=between(0.02, 0.12) + (0.06 if hair in (FULL, CURLY) else 0.0),
        hair_length=between(0.2, 1.0),
        hairline=between(-0.8, -0.5),
        hair_peak=between(-0.14, 0.14),
        hair_sweep=between(-0.28, 0.28),
        sideburn=between(-0.25, 0.25),
        eye_spacing=between(0.36, 0.52),
        eye_height=between(-0.14, 0.02),
        eye_width=between(0.085, 0.13),
        eye_opening=between(0.36, 0.68),
        eye_tilt=between(-0.2, 0.2),
        iris=_blend(IRISES, between()) + _jitter(rng, 8),
        brow_thickness=between(0.016, 0.048),
        brow_gap=between(0.1, 0.18),
        brow_arch=between(0.0, 0.07),
        brow_tilt=between(-0.25, 0.25),
        nose_length=between(0.2, 0.36),
        nose_width=between(0.07, 0.15),
        nose_bridge=between(0.2, 0.55),
        mouth_width=between(0.13, 0.25),
        mouth_height=between(0.5, 0.66),
        upper_lip=between(0.018, 0.05),
        lower_lip=between(0.025, 0.065),
        lip_redness=between(0.1, 0.65),
        ear=between(0.1, 0.18),
        ear_tilt=between(0.0, 0.35),
        beard=_pick(rng, BEARD_SHARES),
        glasses=_pick(rng, GLASSES_SHARES),
        neck=between(0.5, 0.75),
    )


def shot(seed: int, identity: int, photo: int) -> Shot:
    """The circumstances of this photo; the same for the same arguments, always."""
    rng = _generator("drawn photo", seed, identity, photo)
    between = rng.uniform
    azimuth, elevation = between(-1.2, 1.2), between(-0.2, 0.9)
    base = _grey_or_colour(rng)
    return Shot(
        yaw=between(-0.45, 0.45),
        pitch=between(-0.18, 0.18),
        roll=between(-0.14, 0.14),
        scale=between(1.03, 1.17),
        shift=(between(-0.05, 0.05), between(-0.02, 0.08)),
        light=(
            float(np.sin(azimuth) * np.cos(elevation)),
            float(-np.sin(elevation)),
            float(np.cos(azimuth) * np.cos(elevation)),
        ),
        ambient=between(0.55, 0.8),
        exposure=between(0.92, 1.15),
        warmth=between(-0.06, 0.06),
        smile=between(-0.35, 1.0),
        mouth_open=max(0.0, between(-1.2, 1.0)),
        eyes_open=between(0.75, 1.12),
        brow_raise=between(-0.012, 0.03),
        background=(base, base * between(0.55, 0.95)),
        background_turn=between(0.0, 2 * np.pi),
        clothes=_grey_or_colour(rng),
        noise=between(0.5, 3.5),
        noise_seed=int(rng.integers(2**31)),
    )


def _generator(*parts: object) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(digest(*parts)[:32], 16)))


def _pick(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    return int(np.searchsorted(np.cumsum(shares)[:-1], rng.uniform(), side="right"))


def _blend(palette: tuple[tuple[int, int, int], ...], place: float) -> Colour:
    """Colour at a place in 0..1 along the palette."""
    colours = np.asarray(palette, np.float32)
    position = place * (len(colours) - 1)
    first = min(int(position), len(colours) - 2)
    mixed = colours[first] + (position - first) * (colours[first + 1] - colours[first])
    return np.asarray(mixed, np.float32)


def _jitter(rng: np.random.Generator, most: float) -> Colour:
    return rng.uniform(-most, most, 3).astype(np.float32)


def _grey_or_colour(rng: np.random.Generator) -> Colour:
    grey = rng.uniform(50, 230)
    return np.clip(grey + rng.uniform(-45, 45, 3), 15, 245).astype(np.float32)
