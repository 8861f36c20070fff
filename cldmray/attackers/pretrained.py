"""The attacker who takes a public face recognizer as it is."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import landmark_sface


@dataclass(frozen=True)
class Pretrained(TrainingFreeAttacker):
    """Knows nothing of the anonymizer: compares images and images by a public recognizer.

    Attributes:
        recognizer: embeds both sides. Its ``align`` may be ``landmarks``, which is better on clear
            images, or ``fixed``, which is better on some anonymized ones whose faces the
            detector no longer finds.
    """

    recognizer: Recognizer = field(default_factory=landmark_sface)

    @property
    def name(self) -> str:
        return self.label or "pretrained"

    @property
    def dimensions(self) -> int:
        return self.recognizer.dimension

    def check(self) -> None:
        self.recognizer.check()

    def embed(self, images: Images) -> npt.NDArray[np.float32]:
        return self.recognizer.embed(images)
