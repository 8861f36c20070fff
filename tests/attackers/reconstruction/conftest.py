"""Drawn faces of a few people, and a recognizer that needs no weights."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from cldmray.arrays import Images
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.recognizers.base import Recognizer


@dataclass(frozen=True)
class Quadrants(Recognizer):
    """Embeds an image as the mean colours of its quarters, less their mean."""

    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    name = "quadrants"
    dimension = 12
    side = 16

    def version(self) -> str:
        return ""

    def check(self) -> None:
        return None

    def embed_aligned(self, faces: Images) -> np.ndarray:
        means = faces.reshape(len(faces), 2, 8, 2, 8, 3).mean((2, 4)).reshape(len(faces), -1)
        return means - means.mean(1, keepdims=True) + 1e-3


def drawn_faces(identities: int, originals: int, side: int = 32, seed: int = 0) -> tuple:
    """Hard-edged faces, uint8 (people * images, side, side, 3), and their person codes."""
    random = np.random.default_rng(seed)
    results = []
    for _ in range(identities):
        skin, hair, back = random.integers(0, 256, (3, 3))
        apart, width, lower = random.uniform(0.12, 0.22), random.uniform(0.1, 0.2), 0.68
        size = random.uniform(0.28, 0.4)
        for _ in range(originals):
            x, y = 0.5 + random.uniform(-0.05, 0.05, 2)
            big = np.full((side * 4, side * 4, 3), back, np.uint8)

            def spot(a, b, wide, high, colour, big=big):
                centre, axes = (int(a * side * 4), int(b * side * 4)), (wide, high)
                axes = tuple(int(axis * side * 4) for axis in axes)
                cv2.ellipse(big, centre, axes, 0, 0, 360, [int(c) for c in colour], -1)

            spot(x, y - 0.1, size * 1.1, size * 1.1, hair)
            spot(x, y, size * 0.8, size, skin)
            for eye in (x - apart, x + apart):
                spot(eye, y - 0.08, 0.05, 0.04, (20, 20, 20))
            spot(x, lower, width, 0.03, (160, 30, 40))
            results.append(cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA))
    return np.stack(results), np.repeat(np.arange(identities), originals)


def blurred(images: Images, sigma: float = 1.5) -> Images:
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])


def drawn_pairs(
    identities: int = 6, originals: int = 2, side: int = 32, seed: int = 0
) -> ReconstructionPairs:
    images, codes = drawn_faces(identities, originals, side, seed)
    return ReconstructionPairs(blurred(images), codes, np.arange(len(codes)), images, codes)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def pairs() -> ReconstructionPairs:
    return drawn_pairs()


@pytest.fixture
def others() -> ReconstructionPairs:
    """Pairs of people who are not among those of ``pairs``."""
    return drawn_pairs(seed=1)


@pytest.fixture
def quadrants() -> Recognizer:
    return Quadrants()


@pytest.fixture
def many_pairs() -> ReconstructionPairs:
    return drawn_pairs(identities=60, seed=2)
