"""Brings faces to the place in the image where a recognizer was trained to see them."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.errors import BadInputError

Matrix = npt.NDArray[np.float64]
"""Affine map of (x, y) pixel centres, shape (2, 3)."""

TEMPLATE_SIDE = 112
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Eyes, nose and corners of the mouth, left before right as seen, in an image of 112x112
pixels: the landmarks of ArcFace (Deng et al. 2019), to which SFace was trained too."""


def framed_template(margin: float, side: int) -> Matrix:
    """Where the five landmarks belong in an image that shows more than the tight crop.

    Args:
        margin: added to each side of ArcFace's square, in sides of it. 0.1 keeps the chin and the
            hairline, 0.3 the whole head.
        side: of the image in pixels.

    Returns:
        Points (x, y), shape (5, 2).

    >>> framed_template(0.0, 112).round(1).tolist()[0]
    [38.3, 51.7]
    """
    shares = ((TEMPLATE + 0.5) / TEMPLATE_SIDE + margin) / (1 + 2 * margin)
    return shares * side - 0.5


def tight_crop(margin: float) -> tuple[float, float, float, float]:
    """ArcFace's square within an image of :func:`framed_template`, as shares of its side.

    Returns:
        Left, top, right, bottom.
    """
    low, high = margin / (1 + 2 * margin), (1 + margin) / (1 + 2 * margin)
    return low, low, high, high


def similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> Matrix:
    """Rotation, scale and shift that take one set of points closest to another.

    The least-squares solution of Umeyama, "Least-Squares Estimation of Transformation Parameters
    Between Two Point Patterns", PAMI 1991; it never mirrors.

    Args:
        source, target: points (x, y), shape (K, 2), K >= 2, in the same order.

    Returns:
        The map from source to target, shape (2, 3).

    Raises:
        BadInputError: the shapes differ, or all source points are one.
    """
    given, wanted = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if given.shape != wanted.shape or given.ndim != 2 or given.shape[1] != 2 or len(given) < 2:
        raise BadInputError(f"points must share a shape (K, 2): {given.shape}, {wanted.shape}")
    centre, goal = given.mean(0), wanted.mean(0)
    spread = ((given - centre) ** 2).sum() / len(given)
    if not spread > 0:
        raise BadInputError("points that are all one have no orientation")
    covariance = (wanted - goal).T @ (given - centre) / len(given)
    left, singular, right = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0 if np.linalg.det(left @ right) >= 0 else -1.0])
    linear = (singular * signs).sum() / spread * (left * signs) @ right
    return np.column_stack([linear, goal - linear @ centre])


def crop_matrix(crop: tuple[float, float, float, float], side: int, output: int) -> Matrix:
    """Map from a square image to the image of its crop.

    Args:
        crop: left, top, right, bottom as shares of the image's side; they may lie outside of it.
        side: of the image in pixels.
        output: side of the result in pixels.
    """
    left, top, right, bottom = (share * side for share in crop)
    across, down = output / (right - left), output / (bottom - top)
    return np.array(
        [
            [across, 0.0, (0.5 - left) * across - 0.5],
            [0.0, down, (0.5 - top) * down - 0.5],
        ]
    )


def warp(image: Images, matrix: Matrix, side: int) -> Images:
    """The image under an affine map; what lies beyond its edge is its reflection.

    Enlarged with cubic interpolation; where the map shrinks, the image is averaged to about the
    output's scale first, so that nothing aliases.

    Args:
        image: RGB, uint8, shape (h, w, 3).
        matrix: from the image's pixels to the output's.
        side: of the output in pixels.

    Returns:
        uint8, shape (side, side, 3).
    """
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if scale < 1:
        height, width = (math.ceil(edge * scale) for edge in image.shape[:2])
        stretch = np.array([image.shape[1] / width, image.shape[0] / height])
        shrunk = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        image = np.asarray(shrunk, np.uint8)
        shift = matrix[:, :2] @ ((stretch - 1) / 2) + matrix[:, 2]
        matrix = np.column_stack([matrix[:, :2] * stretch, shift])
    warped = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(warped, np.uint8)


def needed_part(image: Images, matrix: Matrix, side: int) -> tuple[Images, Matrix]:
    """The part of a large image that :func:`warp` reads, and the map from it.

    What lies beyond an edge is mirrored in it, so as much is kept within the edge. Averaging
    begins at the part's corner, so that a warp of it may differ by a fraction of a pixel.

    Args:
        image, matrix, side: as of :func:`warp`.
    """
    height, width = image.shape[:2]
    corners = np.array([[-1.0, -1.0], [side, -1.0], [-1.0, side], [side, side]])
    points = np.linalg.solve(matrix[:, :2], (corners - matrix[:, 2]).T)
    spare = 4 / math.sqrt(abs(float(np.linalg.det(matrix[:, :2])))) + 4
    bounds = []
    for low, high, edge in zip(
        points.min(1) - spare, points.max(1) + spare, (width, height), strict=True
    ):
        first, last = min(low, edge - (high - edge)), max(high, -low)
        bounds.append((max(0, math.floor(first)), min(edge, math.ceil(last) + 1)))
    (left, right), (top, bottom) = bounds
    if left >= right or top >= bottom:
        return image, matrix
    shift = matrix[:, 2] + matrix[:, :2] @ np.array([left, top], np.float64)
    return image[top:bottom, left:right], np.column_stack([matrix[:, :2], shift])


def fitted(images: Images, height: int, width: int) -> Images:
    """Images (N, h, w, 3) at another size: cubic where they grow, averaged where they shrink."""
    if images.shape[1:3] == (height, width) or not len(images):
        return images
    grows = images.shape[1] < height or images.shape[2] < width
    how = cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    return np.stack([cv2.resize(p, (width, height), interpolation=how) for p in images])
