"""One image of a synthetic person, with everything that is known about it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.faces.synthetic.circumstances import Circumstances, circumstances
from cldmray.faces.synthetic.curves import Floats, generator
from cldmray.faces.synthetic.geometry import ANGLES, JAW, ROWS, Head, follow
from cldmray.faces.synthetic.hair_and_accessories import (
    cap,
    covers_ears,
    ear,
    glasses,
    hair,
    lens,
    scalp,
)
from cldmray.faces.synthetic.identity import CURLY, Appearance, appearance
from cldmray.faces.synthetic.landmarks import places
from cldmray.faces.synthetic.shading import background, shade, shadows
from cldmray.faces.synthetic.skin import Skin, skin
from cldmray.faces.synthetic.splat import HEAD, Camera, Mesh, Seen, splat

HEAD_HEIGHT = 23.0
"""Centimetres in one unit of depth."""
PER_CM = 3.2 / 64
"""Image sides per cm in the plane of the eyes: pupils 20 pixels apart in 64."""
EYES = 28.0 / 64
"""Height of the eyes in the image, in sides from above."""
ANCHOR = np.array([0.0, -2.5, -3.0], np.float32)
"""Point around which the head turns, so that the face stays in the middle."""
MOST_TEXELS = 26.0
KNEE = 0.8
"""Brightness from which on the camera compresses the light, of 0..1."""


class SyntheticImage(NamedTuple):
    """An image and what is true of it.

    Attributes:
        image: RGB, uint8, (size, size, 3).
        depth: distance from the camera along the view axis in head heights (23 cm), float32,
            (size, size); inf where there is nobody.
        mask: skin of the face with eyes and mouth, without ears, neck, hair and glasses, bool,
            (size, size).
        foreground: everything of the person, clothes and accessories included, bool, (size, size).
        landmarks: pixel x and y in the order of iBUG's 68 points, float32, (68, 2); (0, 0) is the
            centre of the first pixel. Hidden points are given too.
        attributes: what does not belong to the identity: ``yaw``, ``pitch`` and ``roll`` in
            degrees (to the image's right, down, clockwise), ``smile``, ``mouth_open``,
            ``brow_raise`` and ``eyes_open`` about 0..1, ``gaze_x`` and ``gaze_y`` in degrees,
            ``glasses``, ``cap`` 0 or 1, ``light_x``, ``light_y``, ``light_z`` (unit vector to the
            light: right, up, to the camera), ``ambient``, ``brightness`` and ``scale``.
    """

    image: Images
    depth: Floats
    mask: npt.NDArray[np.bool_]
    foreground: npt.NDArray[np.bool_]
    landmarks: Floats
    attributes: dict[str, float]


@dataclass(frozen=True)
class Model:
    """Everything of a person that no image changes."""

    looks: Appearance
    head: Head
    rest: Floats
    moves: Floats
    surface: Floats
    hair: Mesh | None
    ears: tuple[Mesh, ...]
    skin: Skin


@lru_cache(maxsize=8)
def model(seed: int, identity: int, per_cm: float) -> Model:
    """The person's surfaces and textures."""
    looks = appearance(seed, identity)
    head = Head(looks)
    rest = head.surface(ROWS[:, None], ANGLES[None])
    moves = head.moves(rest, ROWS[:, None], ANGLES[None])
    places = (rest[..., 0], ROWS[:, None], ANGLES[None], scalp(looks, ROWS[:, None], ANGLES[None]))
    surface = np.stack(np.broadcast_arrays(*places), axis=-1).astype(np.float32)
    ears = () if covers_ears(looks) else tuple(ear(looks, head, s) for s in (-1.0, 1.0))
    return Model(looks, head, rest, moves, surface, hair(looks, head), ears, skin(looks, per_cm))


def render(seed: int, identity: int, index: int, size: int = 64) -> SyntheticImage:
    """Take one image of a person.

    Args:
        seed: of the population, any whole number.
        identity: index of the person, from 0 on.
        index: of the image, from 0 on.
        size: side of the image in pixels, 8..1024; another size shows the same scene, with
            other noise.

    Raises:
        ValueError: an index is negative or the size is not in its range.
    """
    scene = _Scene(seed, identity, index, size)
    return SyntheticImage(
        image=scene.rendered(),
        depth=scene.nearest() / np.float32(HEAD_HEIGHT),
        mask=scene.share(scene.face) >= 0.5,
        foreground=scene.share(np.isfinite(scene.depth)) >= 0.5,
        landmarks=scene.landmarks(),
        attributes=_attributes(scene.shot),
    )


def render_image(seed: int, identity: int, index: int, size: int = 64) -> Images:
    """The image of :func:`render` alone, uint8 (size, size, 3); it takes less time.

    Raises:
        ValueError: as :func:`render` says.
    """
    return _Scene(seed, identity, index, size).rendered()


def relative_depth(image: SyntheticImage) -> npt.NDArray[np.uint8]:
    """Depth as MiDaS-like detectors draw it: the nearest point is the brightest.

    Returns:
        uint8, (size, size): 0 where there is nobody; on the person 64 at the farthest visible
        point to 255 at the nearest, linear in depth between them.
    """
    there = image.foreground & np.isfinite(image.depth)
    levels = np.zeros(image.depth.shape, np.uint8)
    if there.any():
        depth = image.depth[there]
        near, far = float(depth.min()), float(depth.max())
        share = (far - depth) / max(far - near, 1e-6)
        levels[there] = np.rint(64 + 191 * share).astype(np.uint8)
    return levels


def _meshes(made: Model, shot: Circumstances) -> list[Mesh]:
    points = made.rest + np.einsum("e,erck->rck", _amounts(shot), made.moves)
    meshes = [Mesh(HEAD, points, (2, 2), made.surface, follows=follow())]
    meshes += made.ears
    if shot.cap:
        flat = hair(made.looks, made.head, 0.35)
        meshes += [] if flat is None else [flat]
        meshes.append(cap(made.head, 1.5 if made.looks.hair == CURLY else 1.1))
    elif made.hair is not None:
        meshes.append(made.hair)
    if shot.glasses:
        meshes.append(glasses(made.looks))
    return meshes


def _amounts(shot: Circumstances) -> Floats:
    return np.array([shot.smile, shot.mouth_open, shot.brow_raise], np.float32)


def _camera(shot: Circumstances, side: int) -> Camera:
    focal = PER_CM * side * shot.scale * shot.distance
    return Camera(shot.distance, focal, ((side - 1) / 2, EYES * side - 0.5))


def _pose(points: Floats, shot: Circumstances, follows: Floats | None) -> Floats:
    """Points in the camera's axes."""
    yaw, pitch, roll = shot.yaw, shot.pitch, shot.roll
    turn_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    turn_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    turn_z = [[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    turn = np.asarray(turn_z) @ np.asarray(turn_x) @ np.asarray(turn_y)
    offset = points - ANCHOR
    turned = (offset.reshape(-1, 3) @ turn.T.astype(np.float32)).reshape(offset.shape)
    if follows is not None:
        turned = offset + follows[..., None] * (turned - offset)
    return np.asarray(turned + (ANCHOR + np.array([*shot.shift, 0.0], np.float32)), np.float32)


def _is_face(part: Seen) -> Floats:
    level = part.mesh.surface[:, 0, 1]
    rows = np.clip(np.rint(part.row).astype(int), 0, len(level) - 1)
    columns = np.clip(np.rint(part.column).astype(int), 0, len(ANGLES) - 1)
    on_face = (level[rows] > JAW - 0.1) & (np.abs(ANGLES[columns]) < 1.55)
    return np.asarray(on_face, np.float32)


def _lenses(image: Floats, looks: Appearance, shot: Circumstances, camera: Camera) -> None:
    """Faint reflections of the surroundings in the lenses."""
    turn = np.linspace(0, 2 * np.pi, 40, dtype=np.float32)
    area = np.zeros(image.shape[:2], np.uint8)
    for side in (-1.0, 1.0):
        outline = camera.project(_pose(lens(looks, side, turn), shot, None))[:, :2]
        cv2.fillPoly(area, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    share = area.astype(np.float32)[..., None] / 255
    image *= 1 - 0.06 * share
    image += 0.02 * share * shot.ambient


def _attributes(shot: Circumstances) -> dict[str, float]:
    return {
        "yaw": float(np.degrees(shot.yaw)),
        "pitch": float(np.degrees(shot.pitch)),
        "roll": float(np.degrees(shot.roll)),
        "smile": shot.smile,
        "mouth_open": shot.mouth_open,
        "brow_raise": shot.brow_raise,
        "eyes_open": shot.eyes_open,
        "gaze_x": float(np.degrees(shot.gaze[0])),
        "gaze_y": float(np.degrees(shot.gaze[1])),
        "glasses": float(shot.glasses),
        "cap": float(shot.cap),
        "light_x": float(shot.light[0]),
        "light_y": float(shot.light[1]),
        "light_z": float(shot.light[2]),
        "ambient": float(shot.ambient.mean()),
        "brightness": shot.brightness,
        "scale": shot.scale,
    }


class _Scene:
    """An image before the camera's electronics: light, depth and face on a finer grid."""

    def __init__(self, seed: int, identity: int, index: int, size: int) -> None:
        for name, value in (("identity", identity), ("image", index)):
            if value < 0:
                raise ValueError(f"{name}: must be from 0 on, got {value}")
        if not 8 <= size <= LARGEST:
            raise ValueError(f"size: must be in 8..{LARGEST} pixels, got {size}")
        self.size, self.finer = size, 2 if 2 * size <= LARGEST else 1
        side = size * self.finer
        self.made = model(seed, identity, min(MOST_TEXELS, max(5.0, 7.0 * side / 128)))
        self.shot = shot = circumstances(seed, identity, index, self.made.looks)
        self.camera = _camera(shot, side)
        meshes = _meshes(self.made, shot)
        posed = [_pose(mesh.points, shot, mesh.follows) for mesh in meshes]
        seen, self.depth = splat(meshes, posed, self.camera, side)
        light = shadows(self.depth, shot, PER_CM * side * shot.scale)
        pixels = background(shot, side).reshape(-1, 3)
        face = np.zeros(side * side, np.float32)
        for part in seen:
            pixels[part.pixels] = shade(part, shot, self.made.looks, self.made.skin, light)
            if part.mesh.part == HEAD:
                face[part.pixels] = _is_face(part)
        self.face, self.image = face.reshape(side, side), pixels.reshape(side, side, 3)
        if shot.glasses:
            _lenses(self.image, self.made.looks, shot, self.camera)

    def share(self, fine: npt.NDArray[np.generic]) -> Floats:
        """Mean of the fine grid over each pixel."""
        shape = (self.size, self.size)
        averaged = cv2.resize(fine.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
        return np.asarray(averaged, np.float32)

    def nearest(self) -> Floats:
        """Smallest depth in each pixel, cm."""
        blocks = self.depth.reshape(self.size, self.finer, self.size, self.finer)
        return np.asarray(blocks.min(axis=(1, 3)), np.float32)

    def rendered(self) -> Images:
        """The camera's image: exposure, tone curve, blur, noise and JPEG."""
        shot = self.shot
        tone = np.sqrt(np.maximum(self.share(self.image) * np.float32(shot.brightness), 0))
        knee = np.float32(KNEE)
        tone = np.where(tone > knee, knee + (1 - knee) * np.tanh((tone - knee) / (1 - knee)), tone)
        tone = (tone - np.float32(0.45)) * np.float32(shot.contrast) + np.float32(0.45)
        tone = np.asarray(cv2.GaussianBlur(tone, (0, 0), shot.blur), np.float32)
        rng = generator("synthetic grain", shot.detail_seed, self.size)
        tone = tone * 255 + np.float32(shot.noise) * rng.standard_normal(tone.shape, np.float32)
        levels = np.clip(np.rint(tone), 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, shot.jpeg_quality]
        coded = cv2.imencode(".jpg", np.ascontiguousarray(levels[..., ::-1]), quality)[1]
        decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
        return np.ascontiguousarray(decoded[..., ::-1])

    def landmarks(self) -> Floats:
        """Pixel x and y of the landmarks."""
        made, shot = self.made, self.shot
        level, angle = places(made.looks, shot, made.head)
        points = made.head.surface(level, angle)
        moves = made.head.moves(points, level, angle)
        points = points + np.einsum("e,enk->nk", _amounts(shot), moves)
        pixels = self.camera.project(_pose(points, shot, None))[:, :2]
        return np.asarray((pixels + 0.5) / self.finer - 0.5, np.float32)


LARGEST = 1024
"""Largest side of an image in pixels."""
