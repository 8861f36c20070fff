"""Perceptual hash of face images, and how alike two are in their detail: arrays in, arrays out.

A near-duplicate is the same image again: recompressed, resized, mirrored, brighter or darker.
Another image of the same person is none. Two steps tell them apart:

1. The hash holds the signs of the low frequencies of a small grey image. Copies differ in few of
   its bits, so that candidates among many images are found quickly. Mirroring an image flips the
   signs of the odd horizontal frequencies and of no other.
2. :func:`likeness` of a candidate is the correlation of the fine detail of both small images.
   Aligned faces share their coarse light and shade, but not their detail.

``benchmarks/near_duplicates.py`` measures both errors. It finds every copy that is recompressed
(JPEG quality 30), halved in size, mirrored, brighter, of another gamma, noisy or blurred, and 42 %
of those that are shifted by one pixel. Of 719,400 pairs of different synthetic images it finds
none. Among 10,475 images of LFW it finds 13 pairs, 8 of which the surroundings of the faces
confirm, 4 of these under two names.

Source of the hash: C. Zauner, "Implementation and benchmarking of perceptual image hash functions",
2010, with signs in place of a threshold at the median.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from cldmray.arrays import Floats, Images

SIDE = 32
"""Pixels of the small grey image a side."""
FREQUENCIES = 16
"""Lowest frequencies of the cosine transform that are hashed, a side."""
HASH_BYTES = FREQUENCIES**2 // 8
DETAIL_SIGMA = 3.0
"""Standard deviation, in pixels of the small image, of the blur that detail is left over from."""
MAX_DISTANCE = 48
"""Bits of the hash, of 255 that count, in which near-duplicates differ at most."""
MIN_LIKENESS = 0.9
"""Of near-duplicates."""

Bytes = npt.NDArray[np.uint8]


class Fingerprints(NamedTuple):
    """What is kept of N images.

    Attributes:
        hashes: shape (N, ``HASH_BYTES``), uint8.
        thumbnails: small grey images, shape (N, ``SIDE``, ``SIDE``), uint8.
    """

    hashes: Bytes
    thumbnails: Bytes


def fingerprint(images: Images) -> Fingerprints:
    """Perceptual hashes and thumbnails of images of shape (N, h, w, 3).

    >>> noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    >>> first, brighter = fingerprint(noise).hashes, fingerprint(noise // 2 + 64).hashes
    >>> int(np.bitwise_count(first ^ brighter).sum()) < MAX_DISTANCE
    True
    """
    thumbnails = np.zeros((len(images), SIDE, SIDE), np.uint8)
    for row, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        thumbnails[row] = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    # (N, 16, 16) coefficients; that of the mean brightness says nothing of the content.
    spectrum = dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho")
    signs = spectrum[:, :FREQUENCIES, :FREQUENCIES] > 0
    signs[:, 0, 0] = False
    return Fingerprints(np.packbits(signs.reshape(-1, FREQUENCIES**2), axis=1), thumbnails)


def mirrored(hashes: Bytes) -> Bytes:
    """Hashes of the images as a mirror shows them, shape (N, ``HASH_BYTES``)."""
    odd = np.zeros((FREQUENCIES, FREQUENCIES), bool)
    odd[:, 1::2] = True
    return hashes ^ np.packbits(odd.reshape(-1))


def likeness(thumbnails: Bytes, others: Bytes) -> Floats:
    """Correlation of the fine detail of pairs of thumbnails, shape (N,), in -1..1.

    Args:
        thumbnails, others: both of shape (N, ``SIDE``, ``SIDE``). Equal ones have 1; one without
            any detail has 0 with all others.

    >>> corner = np.zeros((1, 32, 32), np.uint8)
    >>> corner[:, 4:8, 4:8] = 200
    >>> likeness(corner, corner // 2).round(2).tolist(), likeness(corner, corner[:, ::-1]) < 0.1
    ([1.0], array([ True]))
    """
    products = np.sum(_detail(thumbnails) * _detail(others), axis=1)
    equal = (thumbnails == others).all(axis=(1, 2))
    return np.where(equal, 1.0, products)


def _detail(thumbnails: Bytes) -> Floats:
    """What a blur takes away, with mean 0 and norm 1, shape (N, SIDE * SIDE)."""
    detail = np.zeros((len(thumbnails), SIDE * SIDE))
    for row, grey in enumerate(thumbnails.astype(np.float64)):
        detail[row] = (grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA)).ravel()
    detail -= detail.mean(axis=1, keepdims=True)
    detail /= np.maximum(np.linalg.norm(detail, axis=1, keepdims=True), 1e-9)
    return detail
