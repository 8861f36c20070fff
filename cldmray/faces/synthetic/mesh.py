"""Surfaces as grids of points."""

from dataclasses import dataclass

import numpy as np

from cldmray.faces.synthetic.curves import Floats

HEAD, EAR, HAIR, CAP, GLASSES = range(5)
"""Parts of a person, each drawn in its own way."""


@dataclass(frozen=True)
class Mesh:
    """One surface of a person, in the head's coordinates.

    The origin lies between the pupils; x to the picture's right, y up, z to the camera; cm.

    Attributes:
        part: HEAD, EAR, HAIR, CAP or GLASSES.
        points: shape (rows, columns, 3).
        finer: how many times rows and columns are refined for a grid of 128 pixels.
        surface: what the drawing of the part needs of each point, (rows, columns, channels).
        outside: +1 where rows times columns turn outwards, -1 otherwise.
        both_sides: whether the back of the surface can be seen.
        follows: shape (rows, 1), share in which a row turns with the head; None for all.
    """

    part: int
    points: Floats
    finer: tuple[int, int]
    surface: Floats
    outside: float = 1.0
    both_sides: bool = False
    follows: Floats | None = None


def normals(points: Floats, outside: float) -> Floats:
    """Unit normals of a grid (rows, columns, 3), by central differences."""
    down, across = np.empty_like(points), np.empty_like(points)
    down[1:-1] = points[2:] - points[:-2]
    down[0], down[-1] = points[1] - points[0], points[-1] - points[-2]
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    across[:, 0], across[:, -1] = points[:, 1] - points[:, 0], points[:, -1] - points[:, -2]
    normal = np.empty_like(points)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        normal[..., axis] = down[..., i] * across[..., j] - down[..., j] * across[..., i]
    length = np.sqrt(np.einsum("rck,rck->rc", normal, normal))[..., None]
    return np.asarray(normal * (outside / np.maximum(length, 1e-9)), np.float32)
