"""Hard edges: Canny's detector, the paper's condition."""

from dataclasses import dataclass

import cv2
import numpy as np

from cldmray.arrays import Images
from cldmray.conditions.base import Condition


@dataclass(frozen=True)
class Canny(Condition):
    """Canny edges of the grey image: 255 on an edge, 0 elsewhere.

    Source: Canny, "A Computational Approach to Edge Detection", PAMI 1986; OpenCV's
    implementation with a 3x3 Sobel and the L1 gradient norm.

    Attributes:
        low: gradient above which a pixel joined to a sure edge is kept, >= 0.
        high: gradient above which a pixel is a sure edge, > ``low``. A higher pair gives a
            coarser map that tells less of the person.
    """

    low: int = 80
    high: int = 160

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ValueError(f"low must be at least 0, not {self.low}")
        if self.high <= self.low:
            raise ValueError(f"high must be above low={self.low}, not {self.high}")

    @property
    def name(self) -> str:
        return "canny"

    def __call__(self, images: Images) -> Images:
        maps = np.empty_like(images)
        for position, image in enumerate(images):
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            maps[position] = cv2.Canny(grey, self.low, self.high)[..., None]
        return maps
