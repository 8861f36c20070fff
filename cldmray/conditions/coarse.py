"""Coarse condition: the maps of another one, reduced and enlarged again."""

from dataclasses import field
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.settings import checked_dataclass


@checked_dataclass
class Coarse(Condition):
    """The maps of another condition without what is finer than ``factor`` pixels.

    Reduced by averaging squares of ``factor`` pixels and enlarged linearly, so that a hard edge
    becomes a broad grey one whose place is less precise.

    Attributes:
        condition: whose maps.
        factor: >= 1; 1 leaves the maps as they are.
    """

    condition: Condition = field(default_factory=Canny)
    factor: Annotated[int, Field(ge=1)] = 2

    @property
    def name(self) -> str:
        return f"{self.condition.name}-coarse{self.factor}"

    def check(self) -> None:
        self.condition.check()

    def __call__(self, images: Images) -> Images:
        maps = self.condition(images)
        if self.factor == 1:
            return maps
        height, width = images.shape[1:3]
        size = (max(1, round(width / self.factor)), max(1, round(height / self.factor)))
        coarse = np.empty_like(maps)
        for position, fine in enumerate(maps):
            small = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
            coarse[position] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        return coarse
