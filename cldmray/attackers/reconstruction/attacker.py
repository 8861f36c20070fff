"""The attacker that rebuilds images from anonymized images and lets a recognizer name them."""

from dataclasses import dataclass, field, replace

from cldmray.attackers.base import EmbeddingAttacker
from cldmray.attackers.reconstruction.base import (
    ReconstructionModel,
    ReconstructionTraining,
    TrainedReconstructionModel,
)
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace


def short_unet() -> ReconstructionModel:
    """A U-Net that is trained for a few hundred steps."""
    return UNetReconstruction(training=ReconstructionTraining(max_steps=300, validate_every=100))


@dataclass(frozen=True)
class ReconstructionAttacker(EmbeddingAttacker):
    """Learns the reconstruction from the anonymizer's images of other people.

    Its probes are reconstructions, its gallery images, both embedded by a recognizer that has
    had no part in learning the reconstruction: an reconstruction model easily learns what the recognizer likes that
    it is trained with, rather than the person.

    Attributes:
        reconstruction model: the reconstruction.
        judge: embeds reconstructions and images.
        validator: embeds them for the learning curve, on validation people; the attacker's own.
        budget: anonymized images that are learnt from, each of which costs a query; None: all
            that there are of attacker people.
    """

    model: ReconstructionModel = field(default_factory=short_unet)
    held_out_recognizer: Recognizer = field(default_factory=DlibResNet)
    validation_recognizer: Recognizer = field(default_factory=SFace)
    budget: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget: must be at least 1, got {self.budget}")
        learnt = {one.name for one in (self.validation_recognizer, *self.model.learns_with)}
        if self.held_out_recognizer.name in learnt:
            raise ValueError(
                f"held_out_recognizer: {self.held_out_recognizer.name} has a part in learning the reconstruction (reconstruction model, "
                "validator); another recognizer must judge"
            )

    @property
    def name(self) -> str:
        return self.label or "reconstruction"

    @property
    def dimensions(self) -> int:
        return self.held_out_recognizer.dimension

    @property
    def per_anonymizer(self) -> bool:
        return True

    @property
    def trained(self) -> bool:
        """Whether another seed may give another reconstruction model."""
        return isinstance(self.model, TrainedReconstructionModel)

    def seeded(self, training: int) -> "ReconstructionAttacker":
        """The attacker with the seed of one of its trainings, counted from 0."""
        reconstructor = self.model
        if not isinstance(reconstructor, TrainedReconstructionModel):
            return self
        learning = replace(reconstructor.training, seed=reconstructor.training.seed + training)
        return replace(self, model=replace(reconstructor, training=learning))

    def check(self) -> None:
        self.model.check()
        self.validation_recognizer.check()
        self.held_out_recognizer.check()
        self.model.check_held_out_recognizer(self.held_out_recognizer)
