"""The head as a loft of rings from the crown over the face and the neck to the shoulders.

A point of its surface has the angle of its ring (0 in the middle of the face) and a level. Levels
are the heights in cm at which the average face has its features (LEVELS); every person has own
heights for them, so that features can be placed on levels and move with the proportions.
"""

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.faces.synthetic.curves import Curves, Floats, bell, spline, step
from cldmray.faces.synthetic.identity import FULL_BEARD, GOATEE, Appearance

MOUTH, GAP = -7.1, 0.12
"""Level of the upper edge of the mouth's opening, and its height in levels."""
NOSE_BASE, CHIN, JAW, COLLAR = -5.0, -10.9, -12.4, -17.2
DROP = 1.9
"""Centimetres by which a fully open mouth lowers the jaw."""
CENTRE = -9.5
"""Depth of the middle of the skull."""

LEVELS = (
    -26.0, -22.0, -19.0, -17.0, -15.0, -14.0, -13.0, JAW, -11.9, CHIN, -9.2, -7.2, NOSE_BASE,
    -2.5, 0.0, 2.0, 4.0, 6.5, 8.5, 10.0, 10.9, 11.25,
)  # fmt: skip
HEIGHT = (
    -23.5, -20.5, -18.4, -16.5, -14.2, -13.2, -12.75, JAW, -11.9, CHIN, -9.2, -7.2, NOSE_BASE,
    -2.5, 0.0, 2.0, 4.0, 6.5, 8.5, 10.0, 10.9, 11.25,
)  # fmt: skip
FRONT = (
    1.0, -2.0, -4.2, -5.4, -5.3, -4.5, -3.0, -1.35, -0.65, -0.4, -0.55, -0.05, -0.1,
    -0.45, -0.55, -0.05, -0.15, -0.95, -2.6, -4.7, -7.4, CENTRE,
)  # fmt: skip
WIDTH = (
    20.0, 15.5, 8.2, 5.5, 5.0, 4.85, 4.75, 4.75, 4.85, 5.1, 5.45, 5.9, 6.4,
    6.95, 7.1, 7.3, 7.45, 7.15, 6.1, 4.5, 2.3, 0.05,
)  # fmt: skip
BACK = (
    -18.0, -17.0, -15.5, -15.0, -15.2, -15.5, -15.8, -16.0, -16.4, -17.0, -17.6, -18.0, -18.3,
    -18.6, -18.8, -18.8, -18.7, -18.0, -16.6, -14.5, -11.8, CENTRE,
)  # fmt: skip
RISE = (
    -3.5, -3.5, -1.6, -0.4, 0.9, 1.9, 2.9, 3.6, 3.5, 2.9, 2.1, 1.2, 0.5,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
)  # fmt: skip


def _rows() -> Floats:
    bands = (
        (11.25, 10.4, 8), (10.4, 7.0, 13), (7.0, 3.0, 14), (3.0, 1.0, 10), (1.0, -1.0, 13),
        (-1.0, -3.4, 12), (-3.4, -5.6, 16), (-5.6, MOUTH, 11), (MOUTH, MOUTH - GAP, 6),
        (MOUTH - GAP, -8.8, 13), (-8.8, -11.0, 11), (-11.0, -13.0, 13), (-13.0, -19.0, 12),
        (-19.0, -26.0, 10),
    )  # fmt: skip
    parts = [np.linspace(first, last, count, endpoint=False) for first, last, count in bands]
    return np.concatenate([*parts, [-26.0]]).astype(np.float32)


def _angles() -> Floats:
    half = np.concatenate([np.linspace(0, 1.25, 46), np.linspace(1.25, 2.5, 17)[1:]])
    return np.concatenate([-half[:0:-1], half]).astype(np.float32)


ROWS, ANGLES = _rows(), _angles()


class Head:
    """Surface of one person's head at rest and how expressions move it."""

    def __init__(self, looks: Appearance) -> None:
        self.looks = looks
        low = np.asarray(LEVELS)
        height = np.asarray(HEIGHT, np.float64).copy()
        height[low > 0] *= looks.head_height
        height[low < 0] *= looks.face_length
        base = 0.86 * NOSE_BASE * looks.face_length * looks.nose_length + 0.1 * NOSE_BASE
        height[low == NOSE_BASE] = base
        height[low == -2.5] = 0.5 * base
        height[low == -7.2] = base - 2.2 * looks.face_length - looks.mouth_drop
        height[(low >= CHIN) & (low <= -9.2)] -= 0.4 * looks.chin_length
        height[low <= -11.9] -= looks.chin_length
        height[low == 2.0] = looks.brow_height - 0.15
        self.height = np.sort(height)
        front = np.asarray(FRONT) - looks.forehead_slope * np.asarray(step(low, 1.5, 7.0))
        chin = np.asarray(bell(low, -11.4, 1.1)) * (low > JAW - 0.1)
        front = front + looks.chin_projection * chin
        self.front = front
        self.width = np.asarray(WIDTH) * np.where(
            low >= -2.5, looks.head_width, np.where(low >= JAW, 1.0, looks.neck_width)
        )
        jaw = np.clip((-2.5 - low) / 6.5, 0, 1)
        inside = (low < -2.5) & (low >= JAW)
        jaw_width = looks.head_width * (1 - jaw) + looks.jaw_width * looks.head_width * jaw
        self.width[inside] *= jaw_width[inside]
        columns = (self.height, self.front, BACK, self.width, RISE)
        self.rings = _softened(np.stack([np.asarray(column) for column in columns], axis=1))

    def ring(self, level: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Height, front, back, half width and rise of the sides of the rings at levels."""
        height, front, back, width, rise = self.rings(level)
        return height, front, back, width, rise

    def loft(self, level: Floats, angle: Floats) -> Floats:
        """Points (..., 3) of the plain head; level and angle broadcast against each other."""
        height, front, back, width, rise = self.ring(level)
        cos, sin = np.cos(angle), np.sin(angle)
        depth = np.where(cos > 0, front - CENTRE, CENTRE - back)
        square = 0.95 + 0.6 * (self.looks.jaw_square - 1)
        power = 1.6 + (square - 1.6) * step(level, -7.3, -11)
        x = width * sin
        y = height + rise * np.abs(1 - cos) ** power * np.where(cos < 0, 1 + 0.2 * cos, 1.0)
        z = CENTRE + depth * cos
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)

    def surface(self, level: Floats, angle: Floats) -> Floats:
        """Points (..., 3) of the face at rest."""
        looks = self.looks
        points = self.loft(level, angle)
        x, y = points[..., 0], level
        across = np.abs(x - looks.asymmetry * bell(y, -5, 3))
        facing = step(np.cos(angle), 0.05, 0.5)
        eye = looks.eye_spacing
        forward = (0.2 + looks.brow_ridge) * bell(across, 2.6, 1.8) * bell(y, 2.1, 0.65)
        forward += 0.5 * looks.brow_ridge * bell(across, 0, 1.0) * bell(y, 1.7, 0.7)
        socket = 0.75 + looks.eye_depth
        forward -= socket * bell(across, eye - 0.15, 1.15) * bell(y, 0.2, 0.85)
        forward -= 0.2 * bell(across, 1.5, 0.6) * bell(y, 0.3, 0.8)
        forward += 0.62 * bell(across, eye, 0.95) * bell(y, 0.0, 0.62)
        forward += 0.12 * bell(across, eye, 1.1) * bell(y, -1.25, 0.4) * (0.4 + looks.wrinkles)
        forward += (0.3 + looks.cheekbone) * bell(across, 4.9, 1.3) * bell(y, -1.9, 1.2)
        forward += (0.25 + looks.cheek_fullness) * bell(across, 4.2, 1.5) * bell(y, -5.6, 1.9)
        forward -= 0.3 * bell(across, 6.4, 1.0) * bell(y, 3.2, 1.6)
        chin = 1.25 * looks.chin_width
        forward += 0.55 * bell(across, 0.0, chin) * bell(y, -10.9, 0.85)
        forward += self._nose(across, y) + self._mouth(across, y)
        if looks.beard in (GOATEE, FULL_BEARD):
            forward += 0.5 * looks.beard_density * bell(y, -11.0, 1.2) * bell(across, 0, 2.5)
        points[..., 2] += forward * facing
        lean = looks.asymmetry * bell(y, -5, 3) * bell(x, 0, 3)
        points[..., 0] += lean * facing
        return points

    def _nose(self, across: Floats, y: Floats) -> Floats:
        looks = self.looks
        tip, bridge = looks.nose_projection, looks.nose_bridge
        turn = looks.nose_turn
        ridge = spline(
            y,
            (-5.7, -5.2, -4.8, -4.4, -3.8, -3.0, -1.7, -0.1, 1.1, 2.0),
            (
                0.0, 0.12, 0.32 * tip, 0.54 * tip, 0.68 * tip, 0.66 * tip,
                0.42 * tip + 0.4 * bridge + looks.nose_hump, bridge, 0.3 * bridge, 0.0,
            ),
        )  # fmt: skip
        wide = 1 + 0.4 * (looks.nose_width - 1)
        width = spline(
            y,
            (-5.4, -4.4, -3.4, -2.0, 0.0, 1.2),
            (0.9 * wide, 1.08 * wide, 1.1 * wide, 1.0 * wide, 0.85, 1.05),
        )
        shape = np.exp(-((across / width) ** 2))
        round_tip = 0.3 * tip * bell(across, 0.0, 0.55 * looks.nose_tip)
        ball = round_tip * bell(y, -3.95 + 0.6 * turn, 0.55)
        wing = 1.13 * looks.nose_width
        sides = 0.72 * bell(across, wing, 0.38) * bell(y, -4.35, 0.45)
        flank = 0.2 * bell(across, 1.3, 0.8) * bell(y, -3.6, 1.6)
        return np.asarray(ridge * shape + ball + sides + flank, np.float32)

    def _mouth(self, across: Floats, y: Floats) -> Floats:
        looks = self.looks
        within = np.sqrt(np.clip(1 - (across / (1.12 * looks.mouth_width)) ** 2, 0, 1))
        upper, lower = looks.upper_lip, looks.lower_lip
        muzzle = 0.3 * bell(across, 0, 2.2) * bell(y, -7.0, 1.5)
        lips = (0.28 + 0.22 * upper) * bell(y, MOUTH + 0.5 * upper, 0.55 * upper)
        lips += (0.24 + 0.26 * lower) * bell(y, MOUTH - GAP - 0.48 * lower, 0.5 * lower)
        crease = 0.3 * bell(y, MOUTH - 0.5 * GAP, 0.16)
        corner = 0.25 * bell(across, looks.mouth_width + 0.1, 0.35) * bell(y, MOUTH, 0.5)
        chin_crease = 0.32 * bell(across, 0, 1.9) * bell(y, MOUTH - GAP - lower - 0.75, 0.42)
        philtrum = 0.1 * bell(across, 0, 0.28) * bell(y, -6.1, 0.5)
        return np.asarray(
            muzzle + (lips - crease) * within - corner - chin_crease - philtrum, np.float32
        )

    def moves(self, points: Floats, level: Floats, angle: Floats) -> Floats:
        """Displacement of points for a full smile, an open mouth and raised brows.

        Returns:
            shape (3, ..., 3): expression, point, coordinate.
        """
        looks = self.looks
        x, y = points[..., 0], level
        across, side = np.abs(x), np.sign(x)
        facing = step(np.cos(angle), 0.0, 0.4)
        moves = np.zeros((3, *points.shape), np.float32)
        wide = looks.mouth_width
        corner = bell(across, wide + 0.25, 1.25) * bell(y, MOUTH - 0.1, 0.95)
        cheek = bell(across, 3.9, 1.3) * bell(y, -3.6, 1.3) * facing
        moves[0, ..., 0] = side * (0.62 * corner + 0.1 * cheek)
        moves[0, ..., 1] = (
            0.75 * corner
            + 0.35 * cheek
            + 0.16 * bell(across, looks.eye_spacing, 1.3) * bell(y, -0.9, 0.5)
        )
        moves[0, ..., 2] = 0.42 * cheek - 0.35 * corner
        moves[0, ..., 2] -= 0.22 * bell(across, wide + 0.75, 0.4) * bell(y, -6.4, 1.1)
        opening = np.clip((MOUTH - y) / GAP, 0, 1)
        lips = np.sqrt(np.clip(1 - (across / (1.02 * wide)) ** 2, 0, 1))
        below = step(y, MOUTH - 0.3, MOUTH - 3.2)
        jaw = (lips + (1 - lips) * below) * opening * step(y, -19.0, -13.0)
        moves[1, ..., 1] = -DROP * jaw * (0.25 + 0.75 * facing)
        moves[1, ..., 1] += 0.25 * lips * bell(y, MOUTH + 0.4, 0.7) * (1 - opening)
        moves[1, ..., 2] = -0.35 * jaw * facing
        inside = 4 * opening * (1 - opening)
        moves[1, ..., 2] -= 0.9 * inside * lips
        moves[1, ..., 0] = -0.12 * side * bell(across, wide, 1.0) * bell(y, MOUTH, 1.0)
        moves[2, ..., 1] = 0.55 * bell(across, 2.9, 1.8) * bell(y, 2.4, 1.0) * facing
        return moves


def _softened(columns: npt.NDArray[np.float64]) -> Curves:
    """Curves through values (levels, curves) without the bends at their knots below the crown."""
    dense = np.linspace(LEVELS[0], LEVELS[-1], 373)
    exact = Curves(LEVELS, columns)(dense).T
    kernel = np.asarray(bell(np.arange(-12, 13), 0.0, 4.5))[:, None]
    soft = cv2.filter2D(exact, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    share = step(dense, 3.5, 1.0)[:, None]
    return Curves(list(dense), exact + share * (soft - exact))


def follow() -> Floats:
    """Share in which each row turns with the head, shape (rows, 1)."""
    return step(ROWS, -22.0, -12.5)[:, None]
