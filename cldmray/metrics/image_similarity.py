"""How alike images are: in pixels, structure (SSIM), edges and, as sets, features (Fréchet).

The agreement of edges forgives small shifts. Its source is the boundary measure of Martin, Fowlkes
and Malik, "Learning to Detect Natural Image Boundaries Using Local Brightness, Color, and Texture
Cues", PAMI 2004, with every pixel within the tolerance counted as a match instead of a one-to-one
assignment.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[Any]
"""Images, shape (N, h, w) or (N, h, w, channels), any numeric dtype."""
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(first: Images, second: Images, peak: float = 255.0) -> Floats:
    """Peak signal-to-noise ratio of each pair of images, in dB: 10 log10(peak^2 / MSE).

    Args:
        first, second: of the same shape.
        peak: the largest value a pixel can have.

    Returns:
        Shape (N,); infinite where the images are equal.

    Raises:
        BadInputError: the shapes differ or are not of images.

    >>> psnr(np.zeros((1, 2, 2)), np.full((1, 2, 2), 255.0))
    array([0.])
    """
    a, b = _checked(first, second)
    error = ((a - b) ** 2).reshape(len(a), -1).mean(1)
    with np.errstate(divide="ignore"):
        ratio: Floats = 10 * np.log10(peak**2 / error)
    return ratio


def ssim(first: Images, second: Images, peak: float = 255.0) -> Floats:
    """Structural similarity of each pair of images.

    Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", 2004: Gaussian window of 11x11 pixels with sigma 1.5, K1 = 0.01,
    K2 = 0.03, population variances, mean over the windows that lie wholly in the image and over
    the channels.

    Args:
        first, second: of the same shape, sides of at least 11 pixels.
        peak: the largest value a pixel can have.

    Returns:
        Shape (N,), in -1..1; 1 where the images are equal. scikit-image's ``structural_similarity``
        gives the same to 1e-15; it costs 56 MB of packages and four times as long.

    Raises:
        BadInputError: the shapes differ, are not of images, or are too small.
    """
    a, b = _checked(first, second)
    if min(a.shape[1:3]) < WINDOW:
        raise BadInputError(f"images of {a.shape[1:3]} pixels are smaller than {WINDOW}x{WINDOW}")
    small, smaller = (K2 * peak) ** 2, (K1 * peak) ** 2
    scores = np.empty(len(a))
    for place, (x, y) in enumerate(zip(a, b, strict=True)):
        mean_x, mean_y = _blurred(x), _blurred(y)
        variances = _blurred(x * x) + _blurred(y * y) - mean_x**2 - mean_y**2
        covariance = _blurred(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + smaller) / (mean_x**2 + mean_y**2 + smaller)
        structure = (2 * covariance + small) / (variances + small)
        scores[place] = (luminance * structure).mean()
    return scores


def mean_absolute_difference(
    first: Images, second: Images, region: npt.NDArray[np.bool_]
) -> Floats:
    """Mean absolute difference of each pair of images within a region, shape (N,).

    Args:
        first, second: of the same shape.
        region: which pixels count, shape (h, w).

    Raises:
        BadInputError: the shapes differ or are not of images.

    >>> region = np.array([[True, False]])
    >>> mean_absolute_difference(np.zeros((1, 1, 2)), np.array([[[3.0, 9.0]]]), region)
    array([3.])
    """
    a, b = _checked(first, second)
    # (N, pixels of the region) or (N, pixels of the region, channels)
    difference = np.abs(a - b)[:, region]
    return np.asarray(difference.reshape(len(a), -1).mean(1))


def _checked(first: Images, second: Images) -> tuple[Floats, Floats]:
    if first.shape != second.shape or first.ndim not in (3, 4) or not first.size:
        raise BadInputError(
            f"images must share a shape (N, h, w) or (N, h, w, channels): "
            f"{first.shape}, {second.shape}"
        )
    return np.asarray(first, np.float64), np.asarray(second, np.float64)


def _blurred(image: Floats) -> Floats:
    """Means under the window, at the windows that lie wholly in the image."""
    half = WINDOW // 2
    blurred = cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA)
    return np.asarray(blurred, np.float64)[half:-half, half:-half]


Maps = npt.NDArray[Any]
"""Edge maps, shape (N, h, w), any dtype; pixels other than 0 are edges."""
ROUNDING = 1e-4


class EdgeAgreement(NamedTuple):
    """Of each image, shape (N,), all in 0..1.

    Attributes:
        precision: share of detected edge pixels near an expected one; 1 where none is detected.
        recall: share of expected edge pixels near a detected one; 1 where none is expected.
        f1: harmonic mean of both, 0 where both are 0.
    """

    precision: Floats
    recall: Floats
    f1: Floats


def edge_agreement(expected: Maps, detected: Maps, tolerance: float = 2.0) -> EdgeAgreement:
    """Precision, recall and F1 of detected edges, image by image.

    Two pixels match when the Euclidean distance of their centres is at most the tolerance.

    Args:
        expected: the edges that should be there.
        detected: the edges that are there, of the same shape.
        tolerance: in pixels, >= 0.

    Raises:
        BadInputError: the shapes differ or are not (N, h, w), or the tolerance is negative.
    """
    if expected.shape != detected.shape or expected.ndim != 3:
        raise BadInputError(
            f"edge maps must share a shape (N, h, w): {expected.shape}, {detected.shape}"
        )
    if not tolerance >= 0:
        raise BadInputError(f"tolerance must be at least 0, not {tolerance}")
    precision = np.array([_near(b, a, tolerance) for a, b in zip(expected, detected, strict=True)])
    recall = np.array([_near(a, b, tolerance) for a, b in zip(expected, detected, strict=True)])
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(expected)), where=total > 0)
    return EdgeAgreement(precision.astype(np.float64), recall.astype(np.float64), f1)


def edge_f1(expected: Maps, detected: Maps, tolerance: float = 2.0) -> Floats:
    """F1 of :func:`edge_agreement`, shape (N,), in 0..1; 1 where both maps are empty.

    Raises:
        BadInputError: see :func:`edge_agreement`.

    >>> edges = np.eye(8)[None]
    >>> edge_f1(edges, edges[:, ::-1, ::-1])
    array([1.])
    """
    return edge_agreement(expected, detected, tolerance).f1


def _near(edges: Maps, others: Maps, tolerance: float) -> float:
    """Share of the edge pixels of one map (h, w) that have an edge of the other near."""
    mine, theirs = edges != 0, others != 0
    if not mine.any():
        return 1.0
    if not theirs.any():
        return 0.0
    distance = cv2.distanceTransform((~theirs).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[mine] <= tolerance + ROUNDING).mean())


def frechet_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Squared Fréchet distance of the Gaussians that fit two sets of features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means m and unbiased covariances S, of Heusel
    et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    2017. Name the features beside the number: it is "FID" with those of Inception v3 only.

    Finite sets bias it upwards, the more the fewer features there are: compare sets of one size,
    and show the distance of two sets of real images beside it.

    Args:
        first, second: features, shapes (N, d) and (M, d), N, M >= 2.

    Returns:
        >= 0, in the squared unit of the features.

    Raises:
        BadInputError: the shapes do not fit, or a feature is not finite.

    >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [5.0]]), 6)
    9.0
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise BadInputError(f"features must have shapes (N, d), (M, d): {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise BadInputError("features must be finite")
    shift = a.mean(0) - b.mean(0)
    spread_a, spread_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = _square_root(spread_a)
    common = np.linalg.eigvalsh(root @ spread_b @ root)
    overlap = np.sqrt(np.maximum(common, 0.0)).sum()
    distance = shift @ shift + np.trace(spread_a) + np.trace(spread_b) - 2 * overlap
    return max(0.0, float(distance))


def _square_root(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Symmetric square root of a symmetric positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root: npt.NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return root
