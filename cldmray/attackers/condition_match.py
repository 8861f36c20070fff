"""Training-free matching of condition maps: blurred, reduced and correlated."""

from dataclasses import field
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat

from cldmray.arrays import Images
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.settings import checked_dataclass

FLAT = 1e-2
"""Norm, in grey levels, below which a map without its mean holds nothing but rounding."""


@checked_dataclass
class ConditionMatch(TrainingFreeAttacker):
    """Correlates the condition map of the probe with those of the gallery's images.

    A map is blurred, so that edges need not fall on the same pixel, and reduced. Its mean is
    subtracted, and it is scaled to unit norm: the inner product of two such vectors is the
    correlation coefficient of the two reduced maps. A map without contrast, such as one without
    edges, becomes the zero vector, which is equally far from all others.

    It finds the same image again rather than the person, so its rate on clean images says nothing
    about what a good attacker could do.

    >>> import numpy as np
    >>> images = np.zeros((2, 64, 64, 3), np.uint8)
    >>> images[1, 16:48, 16:48] = 255
    >>> vectors = ConditionMatch().embed(images)
    >>> vectors.shape, [round(float(n), 3) for n in np.linalg.norm(vectors, axis=1)]
    ((2, 1024), [0.0, 1.0])

    Attributes:
        condition: extractor of both sides' maps.
        sigma: standard deviation of the Gaussian blur, pixels of the image; 0 blurs nothing.
        side: of the reduced map, pixels.
    """

    condition: Condition = field(default_factory=Canny)
    sigma: NonNegativeFloat = 2.0
    side: Annotated[int, Field(ge=2)] = 32

    @property
    def dimensions(self) -> int:
        return self.side**2

    @property
    def recognizes_clean_faces(self) -> bool:
        return False

    def embed(self, images: Images) -> npt.NDArray[np.float32]:
        """Embeddings of images (N, h, w, 3): float32, (N, side^2), unit norm or all zero."""
        maps = self.condition(images).mean(axis=3, dtype=np.float32)
        vectors = np.empty((len(maps), self.dimensions), np.float32)
        for row, grey in enumerate(maps):
            smooth = cv2.GaussianBlur(grey, (0, 0), self.sigma) if self.sigma else grey
            small = cv2.resize(smooth, (self.side, self.side), interpolation=cv2.INTER_AREA)
            vectors[row] = small.ravel() - small.mean()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[norms[:, 0] < FLAT] = 0.0
        return np.asarray(vectors / np.maximum(norms, FLAT), np.float32)
