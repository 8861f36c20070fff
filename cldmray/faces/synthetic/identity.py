"""Appearance of a synthetic person, the same in every image: numbers from seed and index."""

from dataclasses import dataclass

import numpy as np

from cldmray.faces.synthetic.curves import Floats, generator

SEXES = ("female", "male")
AGES = ("young", "middle", "old")
SKIN_TONES = ("I", "II", "III", "IV", "V", "VI")
CELLS = len(SEXES) * len(AGES) * len(SKIN_TONES)
"""Identities ``k * CELLS`` to ``(k + 1) * CELLS - 1`` hold each combination of groups once."""

YEARS = ((19.0, 33.0), (36.0, 54.0), (59.0, 80.0))
SKINS = (
    (243, 209, 190),
    (231, 190, 163),
    (211, 164, 131),
    (177, 127, 94),
    (141, 98, 72),
    (106, 73, 56),
)
HAIRS = (
    (24, 20, 20),
    (46, 32, 25),
    (82, 55, 37),
    (122, 84, 52),
    (176, 136, 86),
    (206, 174, 124),
    (136, 66, 36),
)
HAIR_SHARES = (
    (0.06, 0.16, 0.24, 0.2, 0.14, 0.12, 0.08),
    (0.1, 0.24, 0.28, 0.2, 0.1, 0.05, 0.03),
    (0.3, 0.4, 0.2, 0.08, 0.02, 0.0, 0.0),
    (0.55, 0.35, 0.1, 0.0, 0.0, 0.0, 0.0),
    (0.75, 0.22, 0.03, 0.0, 0.0, 0.0, 0.0),
    (0.85, 0.15, 0.0, 0.0, 0.0, 0.0, 0.0),
)
IRISES = ((58, 34, 22), (88, 56, 30), (112, 92, 52), (92, 116, 88), (86, 124, 152), (120, 136, 146))
IRIS_SHARES = (
    (0.08, 0.18, 0.14, 0.16, 0.28, 0.16),
    (0.16, 0.26, 0.18, 0.14, 0.16, 0.1),
    (0.42, 0.36, 0.12, 0.06, 0.03, 0.01),
    (0.66, 0.3, 0.04, 0.0, 0.0, 0.0),
    (0.8, 0.2, 0.0, 0.0, 0.0, 0.0),
    (0.9, 0.1, 0.0, 0.0, 0.0, 0.0),
)
BALD, RECEDING, SHORT, FULL, CURLY, BOB, LONG = range(7)
NO_BEARD, STUBBLE, MOUSTACHE, GOATEE, FULL_BEARD = range(5)
FRAMES = ((26, 24, 26), (70, 44, 28), (96, 96, 100), (40, 48, 84), (120, 36, 40))


@dataclass(frozen=True)
class Appearance:
    """The lasting looks of one person.

    Lengths are in cm and called so; "factor" multiplies the average person's measure, "share" is
    in 0..1; colours are RGB in 0..1, proportional to light. ``texture_seed`` places moles,
    freckles, strands and the like.
    """

    sex: int
    age: int
    tone: int
    years: float
    head_width: float  # factor
    head_height: float  # factor, above the eyes
    face_length: float  # factor, below the eyes
    jaw_width: float  # factor
    jaw_square: float  # 0.8 pointed to 1.5 square
    chin_length: float  # cm added
    chin_width: float  # factor
    chin_projection: float  # cm
    cheekbone: float  # cm
    cheek_fullness: float  # cm
    forehead_slope: float  # cm that the hairline lies behind the brows, added
    brow_ridge: float  # cm
    eye_spacing: float  # cm from the middle to a pupil
    eye_size: float  # cm, half the width
    eye_opening: float  # height over width
    eye_tilt: float  # slope, outer corner up
    eye_depth: float  # cm
    eyelid_fold: float  # share; 0 is a single eyelid
    iris: Floats
    brow_height: float  # cm above the pupil
    brow_thickness: float  # cm
    brow_arch: float  # cm
    brow_tilt: float  # slope
    brow_length: float  # cm
    brow_density: float  # share
    nose_length: float  # factor
    nose_width: float  # factor
    nose_bridge: float  # cm at the eyes
    nose_projection: float  # cm at the tip
    nose_hump: float  # cm
    nose_tip: float  # factor, roundness
    nose_turn: float  # cm that the tip is up
    mouth_width: float  # cm, half
    mouth_drop: float  # cm below the average
    upper_lip: float  # cm
    lower_lip: float  # cm
    lip_redness: float  # share
    ear_size: float  # factor
    ear_angle: float  # radians from the head
    neck_width: float  # factor
    asymmetry: float  # cm by which the features lean to one side
    skin: Floats
    ruddiness: float  # share
    gloss: float  # share
    freckles: int
    moles: int
    wrinkles: float  # share
    blotches: float  # share
    hair: int
    hair_colour: Floats
    hairline: float  # cm above the pupil
    hair_peak: float  # cm by which the temples recede
    hair_volume: float  # cm
    hair_length: float  # cm below the pupil
    hair_part: float  # angle, radians
    hair_wave: float  # share
    fringe: float  # cm above the pupil; 0 for none
    beard: int
    beard_density: float  # share
    makeup: float  # share
    wears_glasses: bool
    frame: Floats
    frame_width: float  # factor
    frame_height: float  # factor
    frame_square: float  # 2 round to 4 square
    frame_thickness: float  # cm
    texture_seed: int


def group_indices(seed: int, identity: int) -> tuple[int, int, int]:
    """Index of the person's sex, age and skin tone: a permuted cycle over all combinations."""
    cycle, place = divmod(identity, CELLS)
    cell = int(generator("synthetic groups", seed, cycle).permutation(CELLS)[place])
    rest, tone = divmod(cell, len(SKIN_TONES))
    age, sex = divmod(rest, len(SEXES))
    return sex, age, tone


def groups(seed: int, identity: int) -> dict[str, str]:
    """The groups of a person, for risk by group.

    Args:
        seed: of the population.
        identity: index, from 0 on.

    Returns:
        ``sex`` (female, male), ``age`` (young, middle, old) and ``skin_tone`` (I to VI, after
        Fitzpatrick's scale).

    Raises:
        ValueError: the index is negative.
    """
    if identity < 0:
        raise ValueError(f"identity: must be from 0 on, got {identity}")
    sex, age, tone = group_indices(seed, identity)
    return {"sex": SEXES[sex], "age": AGES[age], "skin_tone": SKIN_TONES[tone]}


def linear(colour: tuple[float, ...] | Floats) -> Floats:
    """An RGB colour of 0..255 as light of 0..1, with a gamma of 2."""
    return np.square(np.clip(np.asarray(colour, np.float32) / 255, 0, 1))


def appearance(seed: int, identity: int) -> Appearance:
    """The looks of the person with this index; the same for the same arguments, always."""
    sex, age, tone = group_indices(seed, identity)
    rng = generator("synthetic person", seed, identity)
    male, dark = float(sex), tone / 5.0
    years = rng.uniform(*YEARS[age])
    old = float(np.clip((years - 32) / 45, 0, 1))

    def around(mean: float, spread: float) -> float:
        return mean + spread * float(np.clip(rng.standard_normal(), -2.2, 2.2))

    def chance(share: float) -> bool:
        return bool(rng.uniform() < share)

    hair = _hair(rng, sex, old, tone)
    hairs = np.asarray(HAIRS, np.float32)
    colour = hairs[rng.choice(len(HAIRS), p=HAIR_SHARES[tone])] * rng.uniform(0.8, 1.2)
    grey = float(np.clip(rng.normal(1.25 * old**1.5, 0.18), 0, 1)) if old > 0.1 else 0.0
    grey *= 1.0 if male else 0.75
    colour = colour * (1 - grey) + grey * rng.uniform(135, 205) * np.array([1.0, 0.98, 0.96])
    beards = np.array([0.5, 0.18, 0.08, 0.09, 0.15]) if sex else np.array([1.0, 0, 0, 0, 0])
    iris = np.asarray(IRISES, np.float32)[rng.choice(len(IRISES), p=IRIS_SHARES[tone])]
    skin = np.asarray(SKINS, np.float32)[tone] * rng.uniform(0.92, 1.07)
    skin = skin + rng.normal(0, 1, 3) * (2.5, 2.0, 3.0)
    fringe = rng.uniform(1.9, 3.6) if hair in (BOB, LONG, FULL) and chance(0.38) else 0.0
    pale = tone <= 2
    return Appearance(
        sex=sex,
        age=age,
        tone=tone,
        years=years,
        head_width=around(0.985 + 0.03 * male, 0.045),
        head_height=around(1.0, 0.035),
        face_length=around(0.95 + 0.07 * male, 0.042),
        jaw_width=around(0.89 + 0.14 * male, 0.07),
        jaw_square=around(0.94 + 0.22 * male, 0.15),
        chin_length=around(-0.15 + 0.3 * male, 0.4),
        chin_width=around(0.86 + 0.26 * male, 0.17),
        chin_projection=around(0.1, 0.35),
        cheekbone=around(0.3 - 0.05 * male, 0.25),
        cheek_fullness=around(0.1 - 0.3 * old, 0.3),
        forehead_slope=around(0.25 * male, 0.35),
        brow_ridge=around(0.12 + 0.32 * male, 0.14),
        eye_spacing=around(3.12, 0.2),
        eye_size=around(1.61 - 0.07 * male, 0.095),
        eye_opening=around(0.375 - 0.04 * male - 0.04 * old, 0.045),
        eye_tilt=around(0.08 - 0.04 * old, 0.07),
        eye_depth=around(0.25 + 0.15 * old, 0.22),
        eyelid_fold=0.15 if chance(0.3 if tone in (1, 2, 3) else 0.05) else rng.uniform(0.6, 1),
        iris=linear(iris * rng.uniform(0.85, 1.15)),
        brow_height=around(2.35 - 0.3 * male, 0.28),
        brow_thickness=around(0.24 + 0.15 * male, 0.07),
        brow_arch=around(0.38 - 0.15 * male, 0.16),
        brow_tilt=around(0.04, 0.08),
        brow_length=around(2.15, 0.2),
        brow_density=float(np.clip(around(0.78 - 0.15 * old, 0.14), 0.35, 1.0)),
        nose_length=around(1.0 + 0.03 * old, 0.075),
        nose_width=around(0.86 + 0.13 * male + 0.22 * dark, 0.1),
        nose_bridge=around(0.7 - 0.4 * dark, 0.2),
        nose_projection=around(2.15 - 0.3 * dark + 0.28 * male, 0.25),
        nose_hump=around(0.05, 0.16),
        nose_tip=around(1.0 + 0.15 * dark, 0.16),
        nose_turn=around(0.05 - 0.1 * male - 0.1 * old, 0.17),
        mouth_width=around(2.45 + 0.12 * male, 0.21),
        mouth_drop=around(0.0, 0.2),
        upper_lip=max(0.35, around(0.74 - 0.12 * male + 0.22 * dark - 0.2 * old, 0.16)),
        lower_lip=max(0.5, around(0.98 - 0.12 * male + 0.22 * dark - 0.18 * old, 0.17)),
        lip_redness=float(np.clip(around(0.58 - 0.24 * male - 0.1 * old, 0.12), 0.1, 0.8)),
        ear_size=around(0.97 + 0.05 * male + 0.1 * old, 0.07),
        ear_angle=around(0.5, 0.17),
        neck_width=around(0.82 + 0.18 * male, 0.05),
        asymmetry=around(0.0, 0.1),
        skin=linear(skin),
        ruddiness=float(np.clip(around(0.35, 0.2), 0, 0.9)),
        gloss=float(np.clip(around(0.5, 0.2), 0.1, 1.0)),
        freckles=int(rng.integers(60, 160)) if pale and chance(0.2) else 0,
        moles=int(rng.poisson(2.2)),
        wrinkles=float(np.clip(around(1.3 * old, 0.12), 0, 1)),
        blotches=rng.uniform(0.2, 1.0),
        hair=hair,
        hair_colour=linear(colour),
        hairline=around(6.4 + 0.5 * old * male, 0.55),
        hair_peak=max(0.0, around(0.4 + 0.8 * male + 1.0 * old * male, 0.45)),
        hair_volume=rng.uniform(0.0, 1.0),
        hair_length=rng.uniform(6.5, 11.5) if hair == BOB else rng.uniform(16.0, 24.0),
        hair_part=around(0.0, 0.32),
        hair_wave=rng.uniform(0.0, 1.0),
        fringe=fringe,
        beard=int(rng.choice(5, p=beards)),
        beard_density=rng.uniform(0.55, 1.0),
        makeup=rng.uniform(0.1, 0.9) * (1 - male),
        wears_glasses=chance(0.1 + 0.22 * old),
        frame=linear(np.asarray(FRAMES, np.float32)[rng.integers(len(FRAMES))]),
        frame_width=rng.uniform(0.92, 1.08),
        frame_height=rng.uniform(0.85, 1.15),
        frame_square=rng.uniform(2.0, 4.0),
        frame_thickness=rng.uniform(0.1, 0.2),
        texture_seed=int(rng.integers(2**31)),
    )


def _hair(rng: np.random.Generator, sex: int, old: float, tone: int) -> int:
    if sex:
        shares = [0.08 + 0.12 * old, 0.08 + 0.25 * old, 0.5 - 0.2 * old, 0.2, 0.1, 0.0, 0.04]
    else:
        shares = [0.005, 0.0, 0.1 + 0.15 * old, 0.08, 0.12, 0.28 + 0.1 * old, 0.45 - 0.25 * old]
    if tone >= 4:
        shares[CURLY] += 0.3
        shares[SHORT] += 0.1
    weights = np.asarray(shares)
    return int(rng.choice(len(shares), p=weights / weights.sum()))
