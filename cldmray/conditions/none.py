"""No condition: black maps, the control of the ablation."""

import numpy as np

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.settings import checked_dataclass


@checked_dataclass
class NoCondition(Condition):
    """Black maps, which say nothing of the image."""

    @property
    def name(self) -> str:
        return "none"

    def __call__(self, images: Images) -> Images:
        return np.zeros_like(images)
