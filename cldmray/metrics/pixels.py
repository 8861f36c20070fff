"""How alike two pictures are, pixel by pixel and in structure."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[Any]
"""Pictures, shape (N, h, w) or (N, h, w, channels), any numeric dtype."""

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(first: Images, second: Images, peak: float = 255.0) -> Floats:
    """Peak signal-to-noise ratio of each pair of pictures, in dB: 10 log10(peak^2 / MSE).

    Args:
        first, second: of the same shape.
        peak: the largest value a pixel can have.

    Returns:
        Shape (N,); infinite where the pictures are equal.

    Raises:
        BadInputError: the shapes differ or are not of pictures.
    """
    a, b = _checked(first, second)
    error = ((a - b) ** 2).reshape(len(a), -1).mean(1)
    with np.errstate(divide="ignore"):
        ratio: Floats = 10 * np.log10(peak**2 / error)
    return ratio


def ssim(first: Images, second: Images, peak: float = 255.0) -> Floats:
    """Structural similarity of each pair of pictures.

    Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", 2004: Gaussian window of 11x11 pixels with sigma 1.5, K1 = 0.01,
    K2 = 0.03, population variances, mean over the windows that lie wholly in the picture and over
    the channels.

    Args:
        first, second: of the same shape, sides of at least 11 pixels.
        peak: the largest value a pixel can have.

    Returns:
        Shape (N,), in -1..1; 1 where the pictures are equal.

    Raises:
        BadInputError: the shapes differ, are not of pictures, or are too small.
    """
    a, b = _checked(first, second)
    if min(a.shape[1:3]) < WINDOW:
        raise BadInputError(f"pictures of {a.shape[1:3]} pixels are smaller than {WINDOW}x{WINDOW}")
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


def _checked(first: Images, second: Images) -> tuple[Floats, Floats]:
    if first.shape != second.shape or first.ndim not in (3, 4) or not first.size:
        raise BadInputError(
            f"pictures must share a shape (N, h, w) or (N, h, w, channels): "
            f"{first.shape}, {second.shape}"
        )
    return np.asarray(first, np.float64), np.asarray(second, np.float64)


def _blurred(picture: Floats) -> Floats:
    """Means under the window, at the windows that lie wholly in the picture."""
    half = WINDOW // 2
    blurred = cv2.GaussianBlur(picture, (WINDOW, WINDOW), SIGMA)
    return np.asarray(blurred, np.float64)[half:-half, half:-half]
