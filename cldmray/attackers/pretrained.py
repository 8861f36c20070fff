"""A public face recognizer as it is, without any training."""

from dataclasses import field

from cldmray.arrays import Images
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.recognizers.base import Embeddings, Recognizer
from cldmray.recognizers.sface import landmark_sface
from cldmray.settings import checked_dataclass


@checked_dataclass
class Pretrained(TrainingFreeAttacker):
    """A public face recognizer embeds originals and anonymized images; knows no anonymizer.

    Attributes:
        recognizer: embeds both sides. Its ``align`` may be ``landmarks``, which is better on
            clean images, or ``fixed``, which is better on anonymized images in which the detector
            finds no face.
    """

    recognizer: Recognizer = field(default_factory=landmark_sface)

    @property
    def dimensions(self) -> int:
        return self.recognizer.dimension

    @property
    def uses_gpu(self) -> bool:
        return self.recognizer.device != "cpu"

    def check(self) -> None:
        self.recognizer.check()

    def embed(self, images: Images) -> Embeddings:
        return self.recognizer.embed(images)
