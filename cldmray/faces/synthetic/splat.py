"""Surfaces as grids of points.

Which point of which surface each pixel of the camera sees: a z-buffer of dense points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.faces.synthetic.curves import Floats, generator

HEAD, EAR, HAIR, CAP, GLASSES = range(5)
"""Parts of a person, each drawn in its own way."""


@dataclass(frozen=True)
class Mesh:
    """One surface of a person, in the head's coordinates.

    The origin lies between the pupils; x to the image's right, y up, z to the camera; cm.

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


NOTHING = -1
NEAREST, FARTHEST = 40.0, 240.0
"""Range of depths in cm."""
LEVELS = 65535
NUMBER_BITS = 32
BASE_SIDE = 128
LEAK = 0.9
"""A pixel that lies this much, in cm, behind its surroundings is a gap between points."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along -z from (0, 0, distance).

    ``focal`` is in pixels; a point at the origin is seen at ``middle`` (x, y).
    """

    distance: float
    focal: float
    middle: tuple[float, float]

    def project(self, points: Floats) -> Floats:
        """Pixel x, pixel y (0 is the centre of the first pixel) and depth of points (..., 3)."""
        depth = self.distance - points[..., 2]
        factor = self.focal / depth
        x = self.middle[0] + points[..., 0] * factor
        y = self.middle[1] - points[..., 1] * factor
        return np.stack([x, y, depth], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """What the camera sees of one mesh: N pixels.

    Attributes:
        mesh: the mesh.
        pixels: flat index of each pixel, shape (N,).
        row, column: fractional place in the mesh's grid, shape (N,).
        normals: of the mesh, in the camera's axes, shape (rows, columns, 3).
        points: of the mesh, in the camera's axes, shape (rows, columns, 3).
    """

    mesh: Mesh
    pixels: npt.NDArray[np.int64]
    row: Floats
    column: Floats
    normals: Floats
    points: Floats


def splat(
    meshes: Sequence[Mesh], posed: Sequence[Floats], camera: Camera, side: int
) -> tuple[list[Seen], Floats]:
    """Project surfaces into a square grid of pixels.

    Args:
        meshes: the surfaces.
        posed: their points in the camera's axes, shape (rows, columns, 3) each.
        camera: the camera.
        side: pixels.

    Returns:
        what is seen of each mesh that is seen at all, and the depth of each pixel in cm,
        (side, side), inf for nothing.
    """
    flats, depths, owners, shapes, turned = [], [], [], [], []
    for mesh, points in zip(meshes, posed, strict=True):
        normal = normals(points, mesh.outside)
        turned.append(normal)
        towards = np.array([0, 0, camera.distance], np.float32) - points
        facing = np.einsum("rck,rck->rc", normal, towards)
        visible = np.ones_like(facing) if mesh.both_sides else np.where(facing > -1.0, 1.0, 0.0)
        if mesh.part == HAIR:
            visible = visible * mesh.surface[..., 3]
        x, y, away = np.moveaxis(camera.project(points), -1, 0)
        x, y, away, weight = (
            _refine(part, mesh, side) for part in (x + 0.5, y + 0.5, away, visible)
        )
        shapes.append(weight.shape)
        there = weight > (_strands(weight.shape) if mesh.part == HAIR else 0.5)
        places = np.flatnonzero(there & (x >= 0) & (x < side) & (y >= 0) & (y < side))
        x, y = (axis.ravel()[places].astype(np.int32) for axis in (x, y))
        flats.append(y * side + x)
        depths.append(away.ravel()[places])
        owners.append(places)
    flat, depth, owner = np.concatenate(flats), np.concatenate(depths), np.concatenate(owners)
    scale = LEVELS / (FARTHEST - NEAREST)
    key = ((FARTHEST - np.clip(depth, NEAREST, FARTHEST)) * scale).astype(np.int64)
    # The nearest point of each pixel, of equally near ones the last: its number fills the low bits.
    nearest = np.full(side * side, NOTHING, np.int64)
    np.maximum.at(nearest, flat, key << NUMBER_BITS | np.arange(len(key)))
    buffer = np.where(nearest == NOTHING, NOTHING, nearest & (1 << NUMBER_BITS) - 1)
    seen_depth = np.full(side * side, np.inf, np.float32)
    _assign(seen_depth, buffer, depth)
    _close(buffer, seen_depth, side)
    starts = np.cumsum([0, *(len(part) for part in owners)])
    parts_seen = []
    for i, mesh in enumerate(meshes):
        pixels = np.flatnonzero((buffer >= starts[i]) & (buffer < starts[i + 1]))
        if not len(pixels):
            continue
        place = owner[buffer[pixels]]
        row, column = np.divmod(place, shapes[i][1])
        parts_seen.append(
            Seen(
                mesh,
                pixels,
                _coarse(row, shapes[i][0], mesh.points.shape[0]),
                _coarse(column, shapes[i][1], mesh.points.shape[1]),
                turned[i],
                posed[i],
            )
        )
    return parts_seen, seen_depth.reshape(side, side)


def _refine(grid: Floats, mesh: Mesh, side: int) -> Floats:
    """The grid with so many points that hardly a pixel falls between them."""
    denser = side / BASE_SIDE * (1.0 if side <= BASE_SIDE else 1.4)
    rows, columns = (
        round(n * max(1.0, factor * denser))
        for n, factor in zip(grid.shape, mesh.finer, strict=True)
    )
    contiguous = np.ascontiguousarray(grid, np.float32)
    fine = cv2.resize(contiguous, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine, np.float32)


@lru_cache(maxsize=8)
def _strands(shape: tuple[int, int]) -> Floats:
    """Where the hair's edge falls between single strands: thresholds around 0.5."""
    rng = generator("synthetic strands", shape[1])
    streaks = rng.random((9, shape[1]), np.float32)
    fine = cv2.resize(streaks, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(0.5 + 0.85 * (np.asarray(fine, np.float32) - 0.5), np.float32)


def _coarse(fine: npt.NDArray[np.int64], count: int, coarse: int) -> Floats:
    place = (fine + 0.5) * (coarse / count) - 0.5
    return np.asarray(np.clip(place, 0, coarse - 1), np.float32)


def _assign(seen: Floats, buffer: npt.NDArray[np.int64], depth: Floats) -> None:
    filled = buffer != NOTHING
    seen[filled] = depth[buffer[filled]]


def _close(buffer: npt.NDArray[np.int64], seen: Floats, side: int) -> None:
    """Give gaps between points the point of a neighbour that lies on the surface around."""
    grid = np.minimum(seen, FARTHEST).reshape(side, side)
    around = cv2.medianBlur(grid, 5)
    gaps = np.flatnonzero((grid - around > LEAK) & (around < FARTHEST - 1))
    level = around.ravel()[gaps]
    for move in (1, -1, side, -side, side + 1, -side - 1, side - 1, 1 - side):
        near = np.clip(gaps + move, 0, side * side - 1)
        fits = np.abs(grid.ravel()[near] - level) < LEAK
        buffer[gaps[fits]] = buffer[near[fits]]
        seen[gaps[fits]] = seen[near[fits]]
        gaps, level = gaps[~fits], level[~fits]
