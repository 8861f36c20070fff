"""PSNR and SSIM: hand-computed numbers and a loop twin."""

import math

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.image_similarity import psnr, ssim


def brute_ssim(x, y, peak=255.0):
    """Windows one by one, with the formulas of the paper as they stand there."""
    offsets = range(-5, 6)
    weights = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in offsets] for i in offsets])
    weights /= weights.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (part[top : top + 11, left : left + 11].astype(float) for part in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * both + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


def test_psnr_of_known_errors():
    black = np.zeros((3, 4, 5, 3), np.uint8)
    other = black.copy()
    other[1] = 255
    other[2, 0, 0, 0] = 60
    decibels = psnr(black, other)
    assert decibels[0] == math.inf
    assert decibels[1] == pytest.approx(0.0)
    assert decibels[2] == pytest.approx(10 * math.log10(255**2 / (3600 / 60)))
    assert psnr(black / 255, other / 255, peak=1.0)[1:] == pytest.approx(decibels[1:])


def test_unsigned_pixels_do_not_wrap():
    low, high = np.full((1, 2, 2), 10, np.uint8), np.full((1, 2, 2), 20, np.uint8)
    assert psnr(low, high) == pytest.approx(psnr(high, low))


def test_ssim_of_flat_images_is_their_luminance_term():
    dark, light = np.full((1, 16, 16), 100.0), np.full((1, 16, 16), 150.0)
    c1 = 2.55**2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(dark, light) == pytest.approx([expected])


def test_ssim_is_what_a_loop_over_windows_finds():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 14, 17), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 40, a.shape), 0, 255).astype(np.uint8)
    twins = [brute_ssim(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(a, b), twins)


def test_ssim_of_colours_is_the_mean_over_channels():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 1, 12, 12, 3))
    channels = [ssim(a[..., channel], b[..., channel])[0] for channel in range(3)]
    assert ssim(a, b) == pytest.approx([np.mean(channels)])
    assert ssim(a, a) == pytest.approx([1.0])
    assert ssim(a, 255 - a)[0] < 0


def test_bad_input_is_refused():
    image = np.zeros((1, 12, 12))
    for measure in (psnr, ssim):
        with pytest.raises(BadInputError, match="share a shape"):
            measure(image, image[:, :11])
        with pytest.raises(BadInputError, match="share a shape"):
            measure(image[0], image[0])
    with pytest.raises(BadInputError, match="smaller than 11x11"):
        ssim(image[:, :10], image[:, :10])
