"""Masks that leave the face or its surroundings."""

import numpy as np
import pytest

from cldmray.faces.regions import FACE, GREY, REGIONS, ellipse, keep_region


def test_the_ellipse() -> None:
    assert ellipse(4, 4, 1.0).tolist() == [
        [False, True, True, False],
        [True, True, True, True],
        [True, True, True, True],
        [False, True, True, False],
    ]
    assert ellipse(200, 100, 0.5).mean() == pytest.approx(np.pi / 16, abs=2e-3)


def test_the_regions_share_the_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    face, around = (keep_region(images, region) for region in REGIONS)
    inside = ellipse(40, 30, FACE)
    assert (face[:, inside] == images[:, inside]).all() and (face[:, ~inside] == GREY).all()
    assert (around[:, ~inside] == images[:, ~inside]).all() and (around[:, inside] == GREY).all()
    assert face.dtype == np.uint8
    assert 0.4 < inside.mean() < 0.6


def test_a_smaller_face_leaves_more_surroundings() -> None:
    images = np.zeros((1, 40, 40, 3), np.uint8)
    shares = [(keep_region(images, "face", share) == 0).mean() for share in (0.3, 0.6, 1.0)]
    assert shares == sorted(shares) and len(set(shares)) == 3
