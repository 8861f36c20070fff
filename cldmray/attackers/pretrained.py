"""The attacker who takes a public face recognizer as it is."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Pictures
from cldmray.attackers.base import ReadyRung
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import landmark_sface


@dataclass(frozen=True)
class OffTheShelf(ReadyRung):
    """Knows nothing of the anonymizer: compares pictures and photographs by a public recognizer.

    Attributes:
        recognizer: embeds both sides. Its ``align`` may be ``landmarks``, which is better on clear
            photographs, or ``fixed``, which is better on some anonymized ones whose faces the
            detector no longer finds.
    """

    recognizer: Recognizer = field(default_factory=landmark_sface)

    @property
    def name(self) -> str:
        return self.label or "off_the_shelf"

    @property
    def dimensions(self) -> int:
        return self.recognizer.dimension

    def check(self) -> None:
        self.recognizer.check()

    def embed(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        return self.recognizer.embed(pictures)
