"""No condition at all: the control of the ablation."""

from dataclasses import dataclass

import numpy as np

from cldmray.arrays import Pictures
from cldmray.conditions.base import Condition


@dataclass(frozen=True)
class NoCondition(Condition):
    """Black maps, which tell nothing of the picture."""

    @property
    def name(self) -> str:
        return "none"

    def __call__(self, images: Pictures) -> Pictures:
        return np.zeros_like(images)
