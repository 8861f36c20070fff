"""Soft edges: graded edge maps without a trained network."""

from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.settings import checked_dataclass

PERCENTILE = 99.0
"""Share of pixels, in percent, that are not clipped to white."""


@checked_dataclass
class SoftEdge(Condition):
    """Gradient magnitude of the blurred grey image, scaled so that strong edges are white.

    It stands where diffusion models expect HED or PiDiNet maps: graded instead of binary edges,
    but training-free. The scale is the image's own 99th percentile, so that dark and bright
    images give alike maps.

    Attributes:
        sigma: standard deviation of the Gaussian blur in pixels, > 0. A larger one gives a coarser
            map that says less of the person.
        floor: gradient in grey levels a pixel, > 0, below which the percentile is not
            trusted: a flat image stays black instead of showing its noise.
    """

    sigma: Annotated[float, Field(gt=0)] = 1.0
    floor: Annotated[float, Field(gt=0)] = 4.0

    @property
    def name(self) -> str:
        return "soft_edge"

    def __call__(self, images: Images) -> Images:
        maps = np.empty_like(images)
        for position, image in enumerate(images):
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
            blurred = cv2.GaussianBlur(grey, (0, 0), self.sigma, borderType=cv2.BORDER_REFLECT)
            along_x = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, scale=1 / 8)
            along_y = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, scale=1 / 8)
            magnitude = np.hypot(along_x, along_y)
            white = max(float(np.percentile(magnitude, PERCENTILE)), self.floor)
            edges = np.clip(np.rint(magnitude * (255 / white)), 0, 255)
            maps[position] = edges.astype(np.uint8)[..., None]
        return maps
