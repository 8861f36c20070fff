"""Attackers whose encoder learns from a public recognizer where a person's images belong.

The student sees what is left of a person - the anonymized image, or a condition map - and is
taught the embedding that the recognizer, its teacher, gives to clean images of that person.
When people are to be named, the student embeds the probes and the teacher the gallery.

Source: knowledge distillation into another view, after Hinton et al., "Distilling the Knowledge
in a Neural Network", 2015; the loss is in :func:`cldmray.attackers.nn.losses.distributed_guided`.
"""

from dataclasses import dataclass, field

from cldmray.attackers.base import Query, ThroughCondition, TrainedAttacker
from cldmray.errors import ConfigError
from cldmray.faces.records import ATTACKER, AUXILIARY
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import landmark_sface


@dataclass(frozen=True)
class DistilledAttacker(TrainedAttacker):
    """An attacker with a teacher.

    The rate on clean images that stands for it is the teacher's.

    Attributes:
        teacher: embeds the images; ``encoder.dimensions`` must be the length of its
            embeddings.
        train_on_auxiliary: whether auxiliary people are learnt from as well, which is honest
            only where the anonymizer was not trained on them: an anonymizer may treat people whom
            it has seen differently. Where it is known that it was, a note of the report says so.
    """

    teacher: Recognizer = field(default_factory=landmark_sface)
    train_on_auxiliary: bool = False

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (ATTACKER, AUXILIARY) if self.train_on_auxiliary else (ATTACKER,)

    def check(self) -> None:
        super().check()
        self.teacher.check()
        if self.encoder.dimensions != self.teacher.dimension:
            raise ConfigError(
                f"encoder.dimensions: must be {self.teacher.dimension}, the length of "
                f"{self.teacher.name}'s embeddings, got {self.encoder.dimensions}"
            )


@dataclass(frozen=True)
class AdaptiveDistilled(DistilledAttacker):
    """Can query the anonymizer with images of other people, as ``adaptive`` can."""

    @property
    def name(self) -> str:
        return self.label or "adaptive_distilled"

    @property
    def query(self) -> Query:
        return "anonymized"


@dataclass(frozen=True)
class ConditionOnlyDistilled(ThroughCondition, DistilledAttacker):
    """Knows which condition is used, never the model or its output, as ``condition_only`` does.

    Attributes:
        condition: its maps of images are learnt from, and probes are read through it.
    """

    @property
    def name(self) -> str:
        return self.label or "condition_only_distilled"

    @property
    def query(self) -> Query:
        return "condition"


@dataclass(frozen=True)
class AdaptiveCondition(ThroughCondition, DistilledAttacker):
    """Can query the anonymizer, and reads its images through the extractor of its condition.

    What a conditioned model draws follows its condition, so that the condition can be extracted
    again, less exactly. An attacker who knows how to read exact maps (``condition_only_distilled``, from
    which this one starts by default) has only to learn what the anonymizer does to them.

    Attributes:
        condition: extractor through which anonymized images are read.
    """

    @property
    def name(self) -> str:
        return self.label or "adaptive_condition"

    @property
    def query(self) -> Query:
        return "anonymized"
