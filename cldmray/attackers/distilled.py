"""Attackers whose encoder learns a public recognizer's embeddings (teacher and student).

The student sees what is left of a person: the anonymized image or a condition map. It learns the
embedding that the recognizer, its teacher, gives to clean images of that person. The student then
embeds the probes, and the teacher the gallery.

Source: knowledge distillation into another view, after Hinton et al., "Distilling the Knowledge
in a Neural Network", 2015; the loss is in :func:`cldmray.attackers.nn.losses.distributed_guided`.
"""

from collections.abc import Sequence
from dataclasses import field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Images
from cldmray.attackers.base import Context, Views
from cldmray.attackers.data import Table
from cldmray.attackers.encoder_attacker import (
    ConditionMapAttacker,
    EncoderAttacker,
    Query,
    rehearsed,
)
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.errors import ConfigError
from cldmray.faces.records import ATTACKER, AUXILIARY
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import landmark_sface
from cldmray.settings import checked_dataclass


@checked_dataclass
class DistilledAttacker(EncoderAttacker):
    """An encoder attacker with a teacher.

    The teacher embeds the originals, so that the rate on clean images would be the teacher's.
    Whether the student has learnt shows its rate on validation identities, beside its start.

    Attributes:
        teacher: embeds the originals. ``encoder.dimensions`` must be the length of its embeddings.
        train_on_auxiliary: whether it learns from auxiliary identities as well. That is honest only
            where the anonymizer was not trained on them: an anonymizer may treat identities
            differently that it has seen. Where it is known that it was, a note of the report says
            so.
    """

    teacher: Recognizer = field(default_factory=landmark_sface)
    train_on_auxiliary: bool = False

    @property
    def has_teacher(self) -> bool:
        return True

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (ATTACKER, AUXILIARY) if self.train_on_auxiliary else (ATTACKER,)

    @property
    def recognizes_clean_faces(self) -> bool:
        return False

    @property
    def compares_all_images(self) -> bool:
        return False

    def check(self) -> None:
        super().check()
        self.teacher.check()
        if self.encoder.dimensions != self.teacher.dimension:
            raise ConfigError(
                f"encoder.dimensions: must be {self.teacher.dimension}, the length of "
                f"{self.teacher.name}'s embeddings, got {self.encoder.dimensions}"
            )

    def rehearsal(self, images: Images) -> EncoderTrainable:
        teacher_embeddings = np.zeros((self.training.batch_size, self.dimensions), np.float32)
        teacher_embeddings[:, 0] = 1
        return rehearsed(self, images, teacher_embeddings)

    def targets(self, context: Context) -> Table:
        return context.recognize(self.teacher)

    def embeddings(
        self,
        fitted: Table | None,
        tables: Sequence[Table],
        splits: tuple[str, ...],
        context: Context,
    ) -> Views:
        """See :meth:`Attacker.embeddings`: the teacher embeds the originals."""
        gallery = context.recognize(self.teacher).read()
        identities = context.identities_of(splits).combine_chunks()
        gallery = gallery.filter(pc.is_in(gallery["identity"], identities))
        probes = context.embed(self, fitted, tables, splits, originals=False)
        return Views(pa.concat_tables([gallery, probes.read()]), probes)

    def references(
        self, fitted: Table | None, splits: tuple[str, ...], context: Context
    ) -> pa.Table:
        """See :meth:`Attacker.references`: everybody in a gallery is embedded by the teacher."""
        return context.recognize(self.teacher, splits).read()


@checked_dataclass
class AdaptiveDistilled(DistilledAttacker):
    """Can query the anonymizer, as ``adaptive_contrastive`` can, and has a teacher."""

    @property
    def query(self) -> Query:
        return "anonymized"


@checked_dataclass
class ConditionOnlyDistilled(ConditionMapAttacker, DistilledAttacker):
    """Knows which condition is used, as ``condition_only`` does, and has a teacher.

    Attributes:
        condition: it learns from this extractor's maps of originals, and reads probes through it.
    """

    @property
    def query(self) -> Query:
        return "condition"


@checked_dataclass
class AdaptiveCondition(ConditionMapAttacker, DistilledAttacker):
    """Can query the anonymizer, and reads its images through the extractor of its condition.

    A conditioned model's output follows its condition, so that the condition can be extracted
    again, less exactly. An attacker that can read exact maps (``condition_only_distilled``, from
    which this one starts by default) has only to learn what the anonymizer does to them.

    Attributes:
        condition: extractor through which anonymized images are read.
    """

    @property
    def query(self) -> Query:
        return "anonymized"
