"""No condition at all: the control of the ablation."""

from dataclasses import dataclass

import numpy as np

from cldmray.conditions.base import Condition
from cldmray.faces.records import Pictures


@dataclass(frozen=True)
class NoCondition(Condition):
    """Black maps, which tell nothing of the picture."""

    @property
    def name(self) -> str:
        return "none"

    def __call__(self, images: Pictures) -> Pictures:
        return np.zeros_like(images)
