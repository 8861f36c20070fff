"""Where things are on a sitter's head, and how the camera sees them."""

import math

import numpy as np
import numpy.typing as npt

from cldmray.faces.drawing.canvas import SUPERSAMPLING, Canvas, Points, smooth
from cldmray.faces.drawing.person import Person, Shot


class Sitter:
    """One person in front of the camera: coordinates are the upright, frontal head's.

    The head turns like an ellipsoid whose half axes are the head's width and height.
    """

    def __init__(self, person: Person, shot: Shot, size: int) -> None:
        self.person, self.shot = person, shot
        axis = np.linspace(-1, 1, size * SUPERSAMPLING, dtype=np.float32)
        self.x, self.y = axis[None, :], axis[:, None]
        right, down = 0.35 * math.cos(shot.background_turn), 0.35 * math.sin(shot.background_turn)
        ramp = (0.5 + self.x * right + self.y * down)[..., None]
        first, second = (colour.astype(np.float32) for colour in shot.background)
        self.canvas = Canvas(size, first + (second - first) * ramp)
        self.depth = 0.9 * person.width

    def face(self, points: npt.ArrayLike, lift: float = 0.0) -> Points:
        """Points on the front of the head, ``lift`` above its surface, as the camera sees them."""
        flat = np.asarray(points, np.float32)
        x, y = flat[:, 0], flat[:, 1]
        inside = 1 - (x / self.person.width) ** 2 - (y / self.person.height) ** 2
        z = self.depth * np.sqrt(np.clip(inside, 0, None)) + lift
        shot = self.shot
        return self.place(
            np.stack(
                [
                    x * np.cos(shot.yaw) + z * np.sin(shot.yaw),
                    y * np.cos(shot.pitch) + z * np.sin(shot.pitch),
                ],
                axis=1,
            )
        )

    def place(self, points: npt.ArrayLike) -> Points:
        """Points of the picture plane, tilted, scaled and shifted as the whole head is."""
        flat = np.asarray(points, np.float32)
        shot = self.shot
        cos, sin = np.cos(shot.roll), np.sin(shot.roll)
        turned = flat @ np.array([[cos, sin], [-sin, cos]], np.float32)
        moved = turned * np.float32(shot.scale) + np.array(shot.shift, np.float32)
        return np.asarray(moved, np.float32)

    def outline(self, wider: float = 0.0) -> Points:
        """The head's silhouette; its chin stands in front and so moves with the head."""
        person, shot = self.person, self.shot
        w, h = person.width + wider, person.height + wider
        cheek, jaw, chin = w * 0.99, w * person.jaw, w * person.chin
        right = [
            (0.0, -h),
            (0.56 * w, -0.83 * h),
            (0.9 * w, -0.48 * h),
            (w, -0.08 * h),
            (cheek * (0.55 + 0.45 * person.jaw), 0.3 * h),
            (jaw * 0.9, 0.62 * h),
            (chin * 0.95, 0.93 * h),
        ]
        left = [(-x, y) for x, y in reversed(right[1:])]
        outline = smooth([*right, (0.0, h), *left])
        low = np.clip(outline[:, 1] / h + 0.1, 0, 1) ** 2
        outline[:, 0] += np.sin(shot.yaw) * 0.2 * low
        outline[:, 1] += np.sin(shot.pitch) * 0.2 * low
        return self.place(outline)

    def light(self) -> npt.NDArray[np.float32]:
        """Light map of the picture, shape (side, side): ambient and diffuse light on the head."""
        person, shot = self.person, self.shot
        nx = (self.x - shot.shift[0]) / (1.15 * person.width * shot.scale)
        ny = (self.y - shot.shift[1]) / (1.15 * person.height * shot.scale)
        square = nx**2 + ny**2
        norm = np.sqrt(np.maximum(square, 1.0))
        nz = np.sqrt(np.clip(1 - square, 0, None))
        right, down, front = shot.light
        diffuse = np.clip((nx * right + ny * down) / norm + nz * front, 0, None)
        return np.asarray(shot.ambient + 1.25 * (1 - shot.ambient) * diffuse, np.float32)
