"""The reconstruction attack: a recognizer identifies the persons on reconstructed originals."""

from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from typing import Self

import pyarrow as pa

from cldmray.attackers.base import Attacker, Context, Views
from cldmray.attackers.data import AttackData, Table
from cldmray.attackers.reconstruction.base import ReconstructionModel, ReconstructionTraining
from cldmray.attackers.reconstruction.pairs import (
    ReconstructionPairs,
    check_validation,
    queried,
)
from cldmray.attackers.reconstruction.training import ReconstructionTrainable
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace
from cldmray.settings import Count, checked_dataclass


def short_unet() -> ReconstructionModel:
    """A U-Net that is trained for a few hundred steps."""
    return UNetReconstruction(training=ReconstructionTraining(max_steps=300, validate_every=100))


@checked_dataclass
class ReconstructionAttacker(Attacker):
    """Learns to reconstruct originals from the anonymizer's images of other people.

    Its probes are reconstructions and its gallery is originals. Both are embedded by a recognizer
    that has no part in the training: a reconstruction model easily learns what a recognizer
    responds to, rather than the person.

    Attributes:
        model: the reconstruction model.
        held_out_recognizer: embeds reconstructions and originals.
        validation_recognizer: embeds them for the learning curve, on validation identities; the
            attacker's own.
        budget: anonymized images that are learnt from, each of which costs a query; None: all
            that there are of attacker identities.
    """

    model: ReconstructionModel = field(default_factory=short_unet)
    held_out_recognizer: Recognizer = field(default_factory=DlibResNet)
    validation_recognizer: Recognizer = field(default_factory=SFace)
    budget: Count | None = None

    def __post_init__(self) -> None:
        recognizers = (self.validation_recognizer, *self.model.learns_with)
        trained_with = {recognizer.name for recognizer in recognizers}
        if self.held_out_recognizer.name in trained_with:
            raise ValueError(
                f"held_out_recognizer: {self.held_out_recognizer.name} has a part in the training "
                "(model, validation_recognizer); choose another recognizer to evaluate with"
            )

    @property
    def kind(self) -> str:
        return "reconstruction"

    @property
    def uses_gpu(self) -> bool:
        return True

    @property
    def dimensions(self) -> int:
        return self.held_out_recognizer.dimension

    @property
    def learns_from_anonymized(self) -> bool:
        return True

    @property
    def max_steps(self) -> int | None:
        return self.model.max_steps

    @property
    def has_seed(self) -> bool:
        return self.model.has_seed

    def with_seed(self, training: int) -> Self:
        return replace(self, model=self.model.with_seed(training))

    def trained_on(self) -> frozenset[str]:
        return self.model.trained_on()

    def check(self) -> None:
        self.model.check()
        self.validation_recognizer.check()
        self.held_out_recognizer.check()
        self.model.check_held_out_recognizer(self.held_out_recognizer)

    def check_validation(self, identities: Sequence[str]) -> None:
        check_validation(identities)

    def fit(self, data: AttackData, context: Context) -> Table:
        return context.train(self, data, lambda: self.trainable(data))

    def trainable(self, data: AttackData) -> ReconstructionTrainable:
        """The training of its model, whose workers read the images.

        They raise BadInputError where there are none to learn from or to validate on.
        """
        return ReconstructionTrainable(
            self.model,
            partial(self._training_pairs, data),
            validation=partial(_validation_pairs, data),
            validation_recognizer=self.validation_recognizer,
        )

    def _training_pairs(self, data: AttackData) -> ReconstructionPairs:
        return queried(data, ATTACKER).within(self.budget)

    def embeddings(
        self,
        fitted: Table | None,
        tables: Sequence[Table],
        splits: tuple[str, ...],
        context: Context,
    ) -> Views:
        """See :meth:`Attacker.embeddings`; the probes' table also holds the reconstructions.

        It takes one table, since a model is trained for one anonymizer.
        """
        if fitted is None:
            raise ValueError(
                f"{self.name} needs a trained reconstruction model, but was given none"
            )
        (table,) = tables
        gallery = self.references(fitted, splits, context)
        probes = context.reconstruct(self, fitted, table, splits)
        return Views(pa.concat_tables([gallery, probes.read(gallery.column_names)]), probes)

    def references(
        self, fitted: Table | None, splits: tuple[str, ...], context: Context
    ) -> pa.Table:
        return context.recognize(self.held_out_recognizer, splits).read()


def _validation_pairs(data: AttackData) -> ReconstructionPairs:
    pairs = queried(data, ATTACKER_VALIDATION).pairs
    check_validation(pairs.original_identities.tolist())
    return pairs
