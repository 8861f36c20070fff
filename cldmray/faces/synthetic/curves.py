"""Smooth building blocks of shapes and textures."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.hashing import digest

Floats = npt.NDArray[np.float32]
"""Any array of float32."""


def generator(*parts: object) -> np.random.Generator:
    """Random numbers that depend on the parts alone."""
    return np.random.Generator(np.random.PCG64(int(digest(*parts)[:32], 16)))


def step(values: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Floats:
    """Smooth step from 0 at ``low`` to 1 at ``high``; ``high`` may be the smaller one."""
    start = np.asarray(low, np.float32)
    t = (np.asarray(values, np.float32) - start) / (np.asarray(high, np.float32) - start)
    t = np.minimum(np.maximum(t, np.float32(0)), np.float32(1))
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def bell(values: npt.ArrayLike, centre: npt.ArrayLike, width: float) -> Floats:
    """Gaussian of height 1; ``width`` is its standard deviation."""
    offset = np.asarray(values, np.float32) - np.asarray(centre, np.float32)
    return np.asarray(np.exp(offset * offset * np.float32(-0.5 / width**2)), np.float32)


class Curves:
    """Cubic Hermite curves through common knots, constant beyond their ends.

    The slopes are those of PCHIP (Fritsch and Butland), so that no curve overshoots.
    """

    def __init__(self, knots: Sequence[float], values: npt.ArrayLike) -> None:
        """
        Args:
            knots: n rising numbers.
            values: shape (n,) or (n, curves).
        """
        self.knots = np.asarray(knots, np.float64)
        y = np.asarray(values, np.float64)
        width = np.diff(self.knots).reshape(-1, *[1] * (y.ndim - 1))
        slope = np.diff(y, axis=0) / width
        before, after = slope[:-1], slope[1:]
        same = before * after > 0
        first, second = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
        mean = first / np.where(same, before, 1.0) + second / np.where(same, after, 1.0)
        inner = np.where(same, (first + second) / mean, 0.0)
        tangent = np.concatenate([slope[:1], inner, slope[-1:]])
        rise, start, end = slope * width, tangent[:-1] * width, tangent[1:] * width
        self.terms = np.stack([y[:-1], start, 3 * rise - 2 * start - end, start + end - 2 * rise])

    def __call__(self, at: npt.ArrayLike) -> Floats:
        """Values, shape of ``at``, or (curves, ...) of it."""
        x = self.knots
        place = np.clip(np.asarray(at, np.float64), x[0], x[-1])
        i = np.clip(np.searchsorted(x, place, side="right") - 1, 0, len(x) - 2)
        t = (place - x[i]) / (x[i + 1] - x[i])
        terms = self.terms[:, i]
        if self.terms.ndim == 3:
            terms = np.moveaxis(terms, -1, 1)
        constant, linear, square, cube = terms
        return np.asarray(constant + t * (linear + t * (square + t * cube)), np.float32)


def spline(at: npt.ArrayLike, knots: Sequence[float], values: Sequence[float]) -> Floats:
    """One of :class:`Curves`, evaluated at any shape."""
    return Curves(knots, values)(at)


def noise(
    rng: np.random.Generator, cells: tuple[int, int], shape: tuple[int, int], channels: int = 1
) -> Floats:
    """Smooth noise of unit variance on its lattice, the same for every ``shape``.

    Args:
        rng: source of the lattice.
        cells: rows and columns of the lattice.
        shape: rows and columns of the result.
        channels: independent fields.

    Returns:
        shape (rows, columns) for one channel, otherwise (rows, columns, channels).
    """
    lattice = rng.standard_normal((*cells, channels), np.float32)
    rows, columns = shape
    return np.asarray(
        cv2.resize(lattice, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32
    )


def sample(grid: Floats, row: Floats, column: Floats) -> Floats:
    """Bilinear values of a grid (rows, columns, channels) at fractional places.

    Returns:
        shape (N, channels); places beyond the edge take the edge's value.
    """
    count, wide = len(row), 64
    short = -count % wide
    maps = [np.pad(axis, (0, short)).reshape(-1, wide) for axis in (column, row)]
    parts = []
    for first in range(0, grid.shape[2], 4):
        part = np.ascontiguousarray(grid[..., first : first + 4], np.float32)
        taken = cv2.remap(
            part,
            maps[0].astype(np.float32),
            maps[1].astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        parts.append(taken.reshape(len(maps[0]) * wide, -1)[:count])
    return np.asarray(np.concatenate(parts, axis=1), np.float32)
