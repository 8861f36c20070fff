"""Light: what each visible pixel of a person looks like."""

from dataclasses import dataclass

import cv2
import numpy as np

from cldmray.faces.synthetic.circumstances import Circumstances
from cldmray.faces.synthetic.curves import Floats, generator, noise, sample, step
from cldmray.faces.synthetic.eyes import opening, paint_eyes, paint_mouth
from cldmray.faces.synthetic.geometry import COLLAR, GAP, MOUTH
from cldmray.faces.synthetic.identity import Appearance
from cldmray.faces.synthetic.skin import Skin
from cldmray.faces.synthetic.splat import EAR, GLASSES, HAIR, HEAD, Seen

REACHES = (0.4, 0.8, 1.3, 2.0, 2.9, 4.0, 5.5)
"""Distances in cm at which something may stand in the light."""
WRAP = np.array([0.36, 0.2, 0.15], np.float32)
"""How far light reaches around into the shade under skin: red the farthest."""


@dataclass(frozen=True)
class Lit:
    """Light of an image at N pixels.

    Attributes:
        shadow: direct light that arrives, shape (N,), 0..1.
        normal: unit normals, shape (N, 3).
    """

    shot: Circumstances
    shadow: Floats
    normal: Floats

    def diffuse(self, wrap: Floats | float, shade: Floats) -> Floats:
        """Light that matt material sends to the camera, shape (N, 3)."""
        shot = self.shot
        facing = (self.normal @ shot.light)[:, None]
        direct = np.clip((facing + wrap) / (1 + np.asarray(wrap)), 0, None)
        direct = direct * (self.shadow * (0.45 + 0.55 * shade))[:, None]
        up = (0.5 + 0.5 * self.normal[:, 1])[:, None]
        around = (shot.ground + (shot.ambient - shot.ground) * up) * shade[:, None]
        return np.asarray(direct * shot.light_colour + around, np.float32)

    def gloss(self, power: float) -> Floats:
        """Mirrored light, shape (N,)."""
        half = self.shot.light + np.array([0, 0, 1], np.float32)
        half /= max(float(np.linalg.norm(half)), 1e-6)
        facing = np.clip(self.normal @ half, 0, 1)
        return np.asarray(facing**power * self.shadow, np.float32)


def shadows(depth: Floats, shot: Circumstances, per_cm: float) -> Floats:
    """Share of direct light that reaches each pixel, from the depths seen by the camera.

    Args:
        depth: (side, side) in cm, inf for nothing.
        shot: the image.
        per_cm: pixels per cm.

    Returns:
        shape (side, side), 0..1.
    """
    side = len(depth)
    far = np.minimum(depth, 1e4)
    blocked = np.zeros_like(far)
    margin = int(max(REACHES) * per_cm) + 2
    padded = cv2.copyMakeBorder(far, *(margin,) * 4, cv2.BORDER_CONSTANT, value=1e4)
    for reach in REACHES:
        right = round(float(shot.light[0]) * reach * per_cm)
        up = round(float(shot.light[1]) * reach * per_cm)
        there = padded[margin - up : margin - up + side, margin + right : margin + right + side]
        above = far - float(shot.light[2]) * reach - there
        blocked = np.maximum(
            blocked, step(above, 0.12 + 0.08 * reach, 0.5 + 0.2 * reach) * (above < 7)
        )
    soft = cv2.GaussianBlur(blocked, (0, 0), 0.35 * per_cm)
    return np.asarray(1 - shot.shadow * soft, np.float32)


def shade(seen: Seen, shot: Circumstances, looks: Appearance, skin: Skin, shadow: Floats) -> Floats:
    """Colours of the pixels in which a mesh is seen.

    Args:
        seen: the pixels.
        shot: the image.
        looks: of the person.
        skin: textures of the face.
        shadow: as :func:`shadows` gives it.

    Returns:
        light, shape (N, 3).
    """
    mesh = seen.mesh
    grid = np.concatenate([seen.normals, mesh.surface], axis=2)
    values = sample(grid, seen.row, seen.column)
    normal = values[:, :3]
    if mesh.both_sides:
        normal = normal * np.where(normal[:, 2:] < 0, -1, 1).astype(np.float32)
    normal = normal / np.maximum(np.sqrt(np.einsum("nk,nk->n", normal, normal)), 1e-6)[:, None]
    light = Lit(shot, shadow.ravel()[seen.pixels], normal)
    surface = values[:, 3:]
    if mesh.part == HEAD:
        return _face(surface, light, shot, looks, skin)
    if mesh.part == EAR:
        base = looks.skin * shot.tan * np.array([1.0, 0.86, 0.84], np.float32)
        return np.asarray(base * light.diffuse(WRAP, surface[:, 0]), np.float32)
    if mesh.part == HAIR:
        return _hair(seen, surface, light, looks)
    if mesh.part == GLASSES:
        gloss = light.gloss(30.0)[:, None]
        return np.asarray(
            looks.frame * light.diffuse(0.2, np.ones(len(normal), np.float32)) + 0.3 * gloss
        )
    return np.asarray(shot.cap_colour * light.diffuse(0.2, surface[:, 0]), np.float32)


def _face(
    surface: Floats, light: Lit, shot: Circumstances, looks: Appearance, skin: Skin
) -> Floats:
    x, level, angle, roots = (np.ascontiguousarray(surface[:, i]) for i in range(4))
    row, column = skin.place(x, level)
    colour = sample(skin.colour, row, column) * shot.tan
    quality = sample(skin.quality, row, column)
    hairs = looks.hair_colour
    gap = opening(looks, shot, x)
    grown = np.clip(quality[:, 2] * (1 + 0.8 * shot.stubble), 0, 0.95)[:, None]
    grown = np.maximum(grown, roots[:, None])
    beard = hairs * 0.75 + 0.1 * looks.skin * (1 - hairs)
    colour = colour + (beard - colour) * grown
    brow = np.clip(quality[:, 3], 0, 0.96)[:, None]
    brow_colour = np.minimum(hairs * 0.55, looks.skin * 0.45)
    colour = colour + (brow_colour - colour) * brow
    glint = np.zeros(len(x), np.float32)
    ball = paint_eyes(looks, shot, x, level, colour, glint)
    paint_mouth(looks, shot, x, level, gap, colour)
    normal = light.normal * (1 - 0.5 * ball)[:, None]
    normal[:, 2] += 0.5 * ball
    light = Lit(shot, light.shadow, normal)
    inside = (level < MOUTH) & (level > MOUTH - GAP) & (gap > 0.1)
    open_to_light = np.where(inside, 0.85, quality[:, 0])
    open_to_light = open_to_light + ball * (0.9 - open_to_light)
    lit = colour * light.diffuse(WRAP, open_to_light)
    bare = (1 - ball) * (1 - 0.8 * grown[:, 0]) * (1 - 0.8 * brow[:, 0])
    shine = quality[:, 1] * shot.shine * bare
    mirrored = 0.13 * shine * light.gloss(14.0) + 0.03 * light.gloss(4.0) * (1 - ball)
    mirrored = mirrored * open_to_light
    lit += mirrored[:, None] * shot.light_colour + (glint * float(shot.light_colour[1]))[:, None]
    cloth = step(level, COLLAR + 0.05, COLLAR - 0.15)[:, None]
    folds = np.asarray(0.8 + 0.2 * np.cos(3 * angle), np.float32)
    weave = shot.clothes * light.diffuse(0.15, folds)
    return np.asarray(lit + (weave - lit) * cloth, np.float32)


def _hair(seen: Seen, surface: Floats, light: Lit, looks: Appearance) -> Floats:
    down = np.empty_like(seen.points)
    down[1:-1] = seen.points[2:] - seen.points[:-2]
    down[0], down[-1] = down[1], down[-2]
    tangent = sample(down, seen.row, seen.column)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    strand, clump, under = surface[:, 0], surface[:, 1], surface[:, 2]
    half = light.shot.light + np.array([0, 0, 1], np.float32)
    half /= max(float(np.linalg.norm(half)), 1e-6)
    along = tangent @ half + 0.08 * strand
    band = np.clip(1 - along**2, 0, 1) ** 20 * light.shadow
    tone = np.clip(1 + 0.16 * strand + 0.14 * clump, 0.35, 1.8) * (1 - 0.45 * np.clip(under, 0, 1))
    diffuse = light.diffuse(0.25, np.clip(1 - 0.4 * under, 0.2, 1))
    colour = looks.hair_colour * tone[:, None] * diffuse
    glow = (0.035 + 0.3 * looks.hair_colour) * (band * (0.7 + 0.3 * strand))[:, None]
    return np.asarray(np.clip(colour + glow * light.shot.light_colour, 0, None), np.float32)


def background(shot: Circumstances, side: int) -> Floats:
    """Light of what is behind the person, shape (side, side, 3): plain, ramp or blurred things."""
    rng = generator("synthetic background", shot.detail_seed)
    base = rng.uniform(0.15, 0.85, 3) * 0.3 + rng.uniform(0.1, 0.85) * 0.7
    other = np.clip(base + rng.normal(0, 0.16) + rng.normal(0, 0.07, 3), 0.03, 0.97)
    down, across = np.mgrid[0:16, 0:16].astype(np.float32) / 15 - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + across * np.cos(turn) + down * np.sin(turn), 0, 1)[..., None]
    coarse = base + (other - base) * ramp * (0.35 if shot.background == 0 else 1.0)
    if shot.background == 2:
        cells = int(rng.integers(3, 9))
        light_and_dark = noise(rng, (cells, cells), (16, 16))[..., None]
        coarse = coarse + 0.15 * light_and_dark + 0.06 * noise(rng, (cells, cells), (16, 16), 3)
    enlarged = cv2.resize(
        np.clip(coarse, 0.02, 0.98).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(np.clip(enlarged, 0, 1) ** 2, np.float32)
