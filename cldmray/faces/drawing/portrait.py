"""The portrait of a drawn person: a soft-shaded cartoon."""

import numpy as np

from cldmray.faces.drawing import features, hair
from cldmray.faces.drawing.person import BALD, LONG, NO_BEARD, NO_GLASSES, Person, Shot
from cldmray.faces.drawing.sitter import Sitter
from cldmray.faces.records import Pictures

SIDES = (-1.0, 1.0)


def portrait(person: Person, shot: Shot, size: int) -> Pictures:
    """The photo of a person under the circumstances, uint8, shape (size, size, 3)."""
    sitter = Sitter(person, shot, size)
    if person.hair == LONG:
        hair.behind(sitter)
    features.body(sitter)
    for side in SIDES:
        features.ear(sitter, side)
    features.head(sitter)
    if person.beard != NO_BEARD:
        hair.beard(sitter)
    features.nose(sitter)
    features.mouth(sitter)
    for side in SIDES:
        features.eye(sitter, side)
    if person.hair != BALD:
        hair.hair(sitter)
    if person.glasses != NO_GLASSES:
        hair.glasses(sitter)
    sitter.canvas.lit(sitter.light())
    gain = shot.exposure * np.array([1 + shot.warmth, 1.0, 1 - shot.warmth], np.float32)
    return sitter.canvas.picture(gain, shot.noise, shot.noise_seed)
