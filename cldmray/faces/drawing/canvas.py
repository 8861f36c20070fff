"""A supersampled canvas with soft shapes, for drawn faces."""

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.faces.drawing.person import Colour
from cldmray.faces.records import Pictures

Points = npt.NDArray[np.float32]
"""Points in the plane, shape (N, 2): x to the right, y down, 1 is half a picture side."""

SUPERSAMPLING = 3
SUBPIXEL_BITS = 4


class Canvas:
    """Draws in half picture sides from the centre; the drawing is ``SUPERSAMPLING`` times finer.

    Attributes:
        image: float32, shape (side, side, 3), RGB 0..255.
        covered: float32, shape (side, side), 1 where the person is.
    """

    def __init__(self, size: int, background: npt.NDArray[np.float32]) -> None:
        self.size = size
        self.side = size * SUPERSAMPLING
        self.image = np.ascontiguousarray(background, np.float32)
        self.covered = np.zeros((self.side, self.side), np.float32)

    def paint(
        self, outline: Points, colour: Colour, opacity: float = 1.0, soft: float = 0.0
    ) -> None:
        """Fill a closed outline; ``soft`` is the standard deviation of its blurred edge."""
        self._blend(*self._mask(outline, soft, None), colour, opacity)

    def stroke(
        self,
        line: Points,
        thickness: float,
        colour: Colour,
        opacity: float = 1.0,
        soft: float = 0.0,
    ) -> None:
        """Draw an open line of a thickness."""
        self._blend(*self._mask(line, soft, thickness), colour, opacity)

    def lit(self, light: npt.NDArray[np.float32]) -> None:
        """Multiply the person by a light map of shape (side, side)."""
        self.image *= (1.0 + self.covered * (light - 1.0))[..., None]

    def picture(self, gain: Colour, noise: float, noise_seed: int) -> Pictures:
        """The finished picture (size, size, 3), with the camera's gain per channel and noise."""
        small = cv2.resize(self.image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), 0.45)
        grain = np.random.Generator(np.random.PCG64(noise_seed)).random((4, *small.shape))
        grain = (grain.sum(axis=0) - 2.0) * np.sqrt(3.0) * noise
        levels: npt.NDArray[np.floating] = np.clip(np.rint(small * gain + grain), 0, 255)
        return levels.astype(np.uint8)

    def _mask(
        self, points: Points, soft: float, thickness: float | None
    ) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]]:
        half = self.side / 2
        pixels = points * half + (half - 0.5)
        sigma = soft * half
        width = 1 if thickness is None else max(1, round(thickness * half))
        reach = int(3 * sigma) + (0 if thickness is None else width) + 2
        left, top = np.clip(np.floor(pixels.min(axis=0)).astype(int) - reach, 0, self.side - 1)
        right, bottom = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + reach, 1, self.side)
        region = np.zeros((max(bottom - top, 1), max(right - left, 1)), np.uint8)
        moved = (pixels - (left, top)) * (1 << SUBPIXEL_BITS)
        polygon = np.rint(moved).astype(np.int32)[None]
        if thickness is None:
            cv2.fillPoly(region, polygon, 255, cv2.LINE_AA, SUBPIXEL_BITS)
        else:
            cv2.polylines(region, polygon, False, 255, width, cv2.LINE_AA, SUBPIXEL_BITS)
        if sigma > 0.3:
            region = cv2.GaussianBlur(region, (0, 0), sigma)
        alpha = region.astype(np.float32) / np.float32(255.0)
        rows, columns = region.shape
        return (slice(top, top + rows), slice(left, left + columns)), alpha

    def _blend(
        self,
        window: tuple[slice, slice],
        alpha: npt.NDArray[np.float32],
        colour: Colour,
        opacity: float,
    ) -> None:
        alpha = alpha * np.float32(opacity)
        area = self.image[window]
        area += (colour.astype(np.float32) - area) * alpha[..., None]
        np.maximum(self.covered[window], alpha, out=self.covered[window])


def smooth(points: npt.ArrayLike, closed: bool = True, steps: int = 6) -> Points:
    """A Catmull-Rom curve through points (N, 2)."""
    knots = np.asarray(points, np.float32)
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    padded = np.concatenate([ends[0], knots, ends[1]])
    before, start, stop, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[:, None, None]
    curve = 0.5 * (
        2 * start
        + (stop - before) * t
        + (2 * before - 5 * start + 4 * stop - after) * t**2
        + (3 * start - before - 3 * stop + after) * t**3
    )
    line = curve.transpose(1, 0, 2).reshape(-1, 2)
    return np.asarray(line if closed else np.concatenate([line, knots[-1:]]), np.float32)


def ellipse(
    x: float, y: float, width: float, height: float, tilt: float = 0.0, points: int = 28
) -> Points:
    """Outline of an ellipse with half axes; ``tilt`` in radians, clockwise on the screen."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    across, down = width * np.cos(angle), height * np.sin(angle)
    cos, sin = np.cos(tilt), np.sin(tilt)
    outline = np.stack([x + across * cos - down * sin, y + across * sin + down * cos], axis=1)
    return outline.astype(np.float32)
