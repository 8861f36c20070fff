"""An attacker without training steps: ridge regression to a recognizer's embeddings."""

import functools
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.attackers.base import Embed
from cldmray.recognizers.base import Embeddings, Recognizer
from cldmray.recognizers.sface import landmark_sface

Floats = npt.NDArray[np.float32]
FLOOR = 5.0
"""Grey levels a pixel: strength of edges below which a cell counts as empty."""


@dataclass(frozen=True)
class Regression:
    """Gradient histograms of an anonymized image (Dalal and Triggs 2005), mapped linearly.

    Attributes:
        ridge: weight of the squared coefficients, in mean variances of a feature.
        side: cells of a row and of a column.
        bins: orientations of a cell.
        sigma: standard deviation of the blur over cells, in cells.
        teacher: whose embeddings are predicted.
    """

    ridge: float = 10.0
    side: int = 12
    bins: int = 9
    sigma: float = 0.4
    teacher: Recognizer = field(default_factory=landmark_sface)

    probe_condition = None
    max_steps = 0

    def with_seed(self, training: int) -> "Regression":
        """Itself: nothing in it is random."""
        return self

    def embedder(self, learnt: dict[str, Floats]) -> Embed:
        """The function that embeds images by what :meth:`fit` has left."""
        return functools.partial(self.embed, learnt=learnt)

    def features(self, images: Images) -> Floats:
        """Features of images, shape (N, side * side * bins)."""
        rows = [self._histograms(image) for image in images]
        return np.stack(rows).reshape(len(images), -1)

    def _histograms(self, image: Images) -> Floats:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        down, across = np.gradient(cv2.GaussianBlur(grey, (0, 0), 0.7))
        place = (np.arctan2(down, across) % np.pi) / np.pi * self.bins
        low = np.floor(place).astype(np.int64) % self.bins
        share = (place - np.floor(place))[..., None]
        strength = np.hypot(across, down)[..., None]
        # (h, w, bins): each pixel's strength, divided between its two orientations.
        eye = np.eye(self.bins, dtype=np.float32)
        maps = strength * ((1 - share) * eye[low] + share * eye[(low + 1) % self.bins])
        blurred = cv2.GaussianBlur(maps, (0, 0), self.sigma * len(grey) / self.side)
        pool = area_means(len(grey), self.side)
        cells = np.einsum("ih,hwb,jw->ijb", pool, blurred, pool, optimize=True)
        around = cv2.GaussianBlur(np.square(cells).sum(2), (0, 0), 1.0)
        return np.asarray(np.sqrt(cells / (np.sqrt(around)[..., None] + FLOOR)), np.float32)

    def fit(self, images: Images, targets: Embeddings) -> dict[str, Floats]:
        """Coefficients that predict the targets of images and of their mirror images."""
        x = np.concatenate([self.features(images), self.features(mirrored(images))])
        y = np.concatenate([targets, targets])
        means = x.mean(0), y.mean(0)
        x, y = x - means[0], y - means[1]
        gram = x.T @ x
        ridge = self.ridge * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
        return {"x": means[0], "coefficients": np.linalg.solve(gram + ridge, x.T @ y)}

    def embed(self, images: Images, learnt: dict[str, Floats]) -> Embeddings:
        """What is predicted of images and of their mirror images, less the mean, of unit norm."""
        both = self.features(images) + self.features(mirrored(images)) - 2 * learnt["x"]
        vectors = both @ learnt["coefficients"]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


@functools.cache
def area_means(size: int, cells: int) -> Floats:
    """Share of each of ``size`` pixels in the mean of each cell of a row, shape (cells, size).

    >>> area_means(4, 2).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    edges, pixels = np.arange(cells + 1) * size / cells, np.arange(size)
    ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(ends, 0) * cells / size, np.float32)


def mirrored(images: Images) -> Images:
    """Mirror images."""
    return np.ascontiguousarray(images[:, :, ::-1])
