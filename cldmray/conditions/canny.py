"""Canny edges, the paper's condition."""

from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.settings import checked_dataclass


@checked_dataclass
class Canny(Condition):
    """Canny edges of the grey image: 255 on an edge, 0 elsewhere.

    Source: Canny, "A Computational Approach to Edge Detection", PAMI 1986; OpenCV's
    implementation with a 3x3 Sobel and the L1 gradient norm.

    Attributes:
        low: gradient above which a pixel that touches a strong edge is kept, >= 0.
        high: gradient above which a pixel is a strong edge, > ``low``. A higher pair gives a
            coarser map that says less of the person.

    >>> image = np.zeros((1, 5, 6, 3), np.uint8)
    >>> image[:, :, 3:] = 255
    >>> Canny()(image)[0, 2, :, 0]
    array([  0,   0, 255,   0,   0,   0], dtype=uint8)
    """

    low: Annotated[int, Field(ge=0)] = 80
    high: int = 160

    def __post_init__(self) -> None:
        if self.high <= self.low:
            raise ValueError(f"high: must be above low={self.low}, got {self.high}")

    @property
    def name(self) -> str:
        return "canny"

    def __call__(self, images: Images) -> Images:
        maps = np.empty_like(images)
        for position, image in enumerate(images):
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            maps[position] = cv2.Canny(grey, self.low, self.high)[..., None]
        return maps
