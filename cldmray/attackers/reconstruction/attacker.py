"""The rung that rebuilds photographs from anonymized pictures and lets a recognizer name them."""

from dataclasses import dataclass, field, replace

from cldmray.attackers.base import EmbeddingRung
from cldmray.attackers.reconstruction.base import Inversion, InversionTraining, TrainedInversion
from cldmray.attackers.reconstruction.unet import UNetInversion
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace


def short_unet() -> Inversion:
    """A U-Net that is trained for a few hundred steps."""
    return UNetInversion(training=InversionTraining(steps=300, validate_every=100))


@dataclass(frozen=True)
class InversionRung(EmbeddingRung):
    """Learns the way back from the anonymizer's pictures of other people.

    Its probes are reconstructions, its gallery photographs, both embedded by a recognizer that has
    had no part in learning the way back: an inverter easily learns what the recognizer likes that
    it is trained with, rather than the person.

    Attributes:
        inverter: the way back.
        judge: embeds reconstructions and photographs.
        validator: embeds them for the learning curve, on validation people; the attacker's own.
        budget: anonymized pictures that are learnt from, each of which costs a query; None: all
            that there are of attacker people.
    """

    inverter: Inversion = field(default_factory=short_unet)
    judge: Recognizer = field(default_factory=DlibResNet)
    validator: Recognizer = field(default_factory=SFace)
    budget: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget: must be at least 1, got {self.budget}")
        learnt = {one.name for one in (self.validator, *self.inverter.learns_with)}
        if self.judge.name in learnt:
            raise ValueError(
                f"judge: {self.judge.name} has a part in learning the way back (inverter, "
                "validator); another recognizer must judge"
            )

    @property
    def name(self) -> str:
        return self.label or "inversion"

    @property
    def dimensions(self) -> int:
        return self.judge.dimension

    @property
    def per_anonymizer(self) -> bool:
        return True

    @property
    def trained(self) -> bool:
        """Whether another seed may give another inverter."""
        return isinstance(self.inverter, TrainedInversion)

    def seeded(self, training: int) -> "InversionRung":
        """The rung with the seed of one of its trainings, counted from 0."""
        inverter = self.inverter
        if not isinstance(inverter, TrainedInversion):
            return self
        learning = replace(inverter.training, seed=inverter.training.seed + training)
        return replace(self, inverter=replace(inverter, training=learning))

    def check(self) -> None:
        self.inverter.check()
        self.validator.check()
        self.judge.check()
        self.inverter.check_judge(self.judge)
