"""No condition: black maps, the control of the ablation."""

from dataclasses import dataclass

import numpy as np

from cldmray.arrays import Images
from cldmray.conditions.base import Condition


@dataclass(frozen=True)
class NoCondition(Condition):
    """Black maps, which say nothing of the image."""

    @property
    def name(self) -> str:
        return "none"

    def __call__(self, images: Images) -> Images:
        return np.zeros_like(images)
