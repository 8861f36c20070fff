"""How one image of a synthetic person is taken: pose, expression, light, camera, background."""

from dataclasses import dataclass

import numpy as np

from cldmray.faces.synthetic.curves import Floats, generator
from cldmray.faces.synthetic.identity import Appearance, linear

SALT = "synthetic photo"  # a word that is not used otherwise any more
"""Enters the hash of every image's circumstances: another text makes other images."""


@dataclass(frozen=True)
class Circumstances:
    """What changes from image to image.

    Angles are in radians (yaw: the face turns to the image's right; pitch: it looks down; roll:
    clockwise), lengths in cm, shares in 0..1, light vectors point right, up and to the camera;
    colours are RGB in 0..1, proportional to light.
    """

    yaw: float
    pitch: float
    roll: float
    distance: float
    scale: float
    shift: tuple[float, float]
    smile: float
    mouth_open: float
    brow_raise: float
    eyes_open: float
    gaze: tuple[float, float]
    light: Floats
    light_colour: Floats
    ambient: Floats
    ground: Floats
    shadow: float
    brightness: float
    contrast: float
    glasses: bool
    cap: bool
    cap_colour: Floats
    clothes: Floats
    hair_messy: float
    stubble: float
    tan: float
    shine: float
    background: int
    blur: float
    noise: float
    jpeg_quality: int
    detail_seed: int


def circumstances(seed: int, identity: int, index: int, looks: Appearance) -> Circumstances:
    """The circumstances of this image; the same for the same arguments, always."""
    rng = generator(SALT, seed, identity, index)

    def around(mean: float, spread: float) -> float:
        return mean + spread * float(np.clip(rng.standard_normal(), -2.2, 2.2))

    azimuth, elevation = around(0.0, 0.75), rng.uniform(-0.15, 1.05)
    warmth = around(0.0, 0.09)
    tint = np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    sky = np.array([1 - 0.5 * warmth, 1.0, 1 + 0.5 * warmth], np.float32)
    ambient = rng.uniform(0.2, 0.46)
    key = rng.uniform(0.65, 1.0) * (1.15 - ambient)
    smiling = rng.uniform() < 0.55
    return Circumstances(
        yaw=around(0.0, 0.34),
        pitch=around(0.02, 0.125),
        roll=around(0.0, 0.065),
        distance=rng.uniform(70.0, 160.0),
        scale=around(1.0, 0.035),
        shift=(around(0.0, 0.3), around(0.0, 0.3)),
        smile=rng.uniform(0.35, 1.0) if smiling else around(-0.05, 0.12),
        mouth_open=max(0.0, rng.uniform(-1.0, 0.9)) * (0.6 if smiling else 1.0),
        brow_raise=around(0.05, 0.3),
        eyes_open=0.0 if rng.uniform() < 0.01 else float(np.clip(around(0.98, 0.1), 0.6, 1.2)),
        gaze=(around(0.0, 0.12), around(0.0, 0.06)),
        light=np.array(
            [
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation),
                np.cos(azimuth) * np.cos(elevation),
            ],
            np.float32,
        ),
        light_colour=np.asarray(key * tint, np.float32),
        ambient=np.asarray(ambient * sky, np.float32),
        ground=np.asarray(ambient * rng.uniform(0.35, 0.8) * tint, np.float32),
        shadow=rng.uniform(0.4, 0.92),
        brightness=around(1.1, 0.15) * (1.0 + 0.32 * looks.tone / 5),
        contrast=around(1.03, 0.07),
        glasses=bool(rng.uniform() < (0.85 if looks.wears_glasses else 0.03)),
        cap=bool(rng.uniform() < (0.07 if looks.sex else 0.025)),
        cap_colour=_cloth(rng),
        clothes=_cloth(rng),
        hair_messy=rng.uniform(0.0, 1.0),
        stubble=max(0.0, rng.uniform(-0.6, 0.8)),
        tan=around(1.0, 0.05),
        shine=rng.uniform(0.5, 1.3),
        background=int(rng.integers(3)),
        blur=rng.uniform(0.3, 0.75),
        noise=rng.uniform(1.0, 5.5),
        jpeg_quality=int(rng.integers(68, 96)),
        detail_seed=int(rng.integers(2**31)),
    )


def _cloth(rng: np.random.Generator) -> Floats:
    grey = rng.uniform(20, 220)
    return linear(np.clip(grey + rng.normal(0, 28, 3), 8, 245).astype(np.float32))
