"""The base of attackers whose face encoder is trained on (query, original) pairs."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from typing import Literal, Self

import numpy as np
import torch

from cldmray.arrays import Images, channels_last
from cldmray.attackers.base import Attacker, Context, Embed, Learnt
from cldmray.attackers.data import AttackData, AttackerImages, Index, Table, shrunk
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder, SmallEncoder, embed
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.pairs import PairSet, Validation
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, embedding_matrix
from cldmray.recognizers.base import Embeddings
from cldmray.settings import checked_dataclass

Query = Literal["image", "condition", "anonymized"]


@checked_dataclass
class EncoderAttacker(Attacker):
    """An attacker that trains a face encoder on images of attacker identities.

    Attributes:
        encoder: shape of its network.
        training: how it learns.
        init_from: attacker from whose trained encoder it starts; it is trained first, and only once
            if several attackers start from it or the audit lists it. None: random weights, or
            those that ``encoder`` names.
    """

    encoder: EncoderConfig = field(default_factory=SmallEncoder)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init_from: "EncoderAttacker | None" = None

    def __post_init__(self) -> None:
        start = self.init_from
        if start is None:
            return
        if start.learns_from_anonymized:
            raise ValueError(
                f"init_from: {start.name} learns from the anonymizer's images; start from an "
                "attacker that does not, such as clean_trained"
            )
        if start.encoder != self.encoder:
            raise ValueError(
                f"init_from.encoder: must be the encoder of {self.name}, which starts from its "
                "weights; set init_from to null to start afresh"
            )

    @property
    @abstractmethod
    def query(self) -> Query:
        """What the training queries are; each is matched with originals of the same identity."""

    @property
    def uses_gpu(self) -> bool:
        return True

    @property
    def dimensions(self) -> int:
        return self.encoder.dimensions

    @property
    def learns_from_anonymized(self) -> bool:
        return self.query == "anonymized"

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (ATTACKER,)

    @property
    def prerequisites(self) -> Sequence[Attacker]:
        return () if self.init_from is None else (self.init_from,)

    @property
    def max_steps(self) -> int | None:
        return self.training.max_steps

    @property
    def has_seed(self) -> bool:
        return True

    def with_seed(self, training: int) -> Self:
        start = None if self.init_from is None else self.init_from.with_seed(training)
        learning = replace(self.training, seed=self.training.seed + training)
        return replace(self, training=learning, init_from=start)

    def without_labels(self) -> Self:
        start = None if self.init_from is None else self.init_from.without_labels()
        return replace(self, label=None, init_from=start)

    def check(self) -> None:
        self.encoder.check()
        for attacker in self.prerequisites:
            attacker.check()

    def check_workers(self, count: int, on_gpus: bool) -> None:
        if self.encoder.shared_statistics and count > 1 and not on_gpus:
            raise ConfigError(
                f"encoder.norm: batch on {count} training workers needs GPUs; "
                "choose group or frozen, or engine.train_workers=1"
            )

    def fit(self, data: AttackData, context: Context) -> Table:
        start = None
        if self.init_from is not None:
            start = self.init_from.fit(AttackData(data.faces), context)
        targets = self.targets(context)

        def make() -> EncoderTrainable:
            learnt = None if start is None else context.learnt(start)
            return self.trainable(data, learnt, targets)

        return context.train(self, data, make, [start, targets])

    def trainable(
        self, data: AttackData, start: Learnt | None = None, targets: Table | None = None
    ) -> EncoderTrainable:
        """The training of its encoder, whose workers read the images.

        Args:
            start: weights to start from.
            targets: see :meth:`targets`.
        """
        return EncoderTrainable(
            self.name,
            self.encoder,
            self.training,
            partial(training_pairs, self, data, targets),
            validation=partial(validation_pairs, self, data, targets),
            init_from=None if start is None else tensors(start),
        )

    def rehearsal(self, images: Images) -> EncoderTrainable:
        return rehearsed(self, images)

    def targets(self, context: Context) -> Table | None:
        """Embeddings of the originals that the encoder learns to reach; None: it learns its own."""
        return None

    def embedder(self, learnt: Learnt | None, device: str = "cpu", batch_size: int = 256) -> Embed:
        if learnt is None:
            raise ValueError(f"{self.name} embeds with a trained encoder, but was given none")
        network = FaceEncoder(self.encoder, pretrained=False)
        network.load_state_dict(tensors(learnt))
        network = channels_last(network).eval().to(device)
        return lambda images: embed(network, images, batch_size, device)


def rehearsed(
    attacker: EncoderAttacker, images: Images, teacher_embeddings: Embeddings | None = None
) -> EncoderTrainable:
    """See :meth:`Attacker.rehearsal`: each pair of a batch is an image with itself.

    Args:
        teacher_embeddings: of as many images as a batch has, for attackers that have a teacher.
    """
    condition, side = attacker.probe_condition, attacker.encoder.input_side
    queries = images if condition is None else condition(images)
    pairs = np.arange(attacker.training.batch_size)
    rows = pairs % len(images)
    queries, originals = shrunk(queries, side)[rows], shrunk(images, side)[rows]
    made_up = PairSet(queries, pairs, pairs, originals, pairs, False, teacher_embeddings)
    return EncoderTrainable(attacker.name, attacker.encoder, attacker.training, made_up)


def tensors(learnt: Learnt) -> dict[str, torch.Tensor]:
    """Arrays as tensors that own their memory."""
    return {name: torch.tensor(value) for name, value in learnt.items()}


@checked_dataclass
class ConditionMapAttacker(Attacker):
    """Mixin of an attacker that reads queries and probes as condition maps.

    Attributes:
        condition: extractor of the maps.
    """

    condition: Condition = field(default_factory=Canny)

    @property
    def probe_condition(self) -> Condition | None:
        return self.condition


def training_pairs(
    attacker: EncoderAttacker, data: AttackData, targets: Table | None = None
) -> PairSet:
    """Training pairs of an attacker, over the identities of its training splits only.

    Args:
        targets: a recognizer's embeddings of the originals, for attackers that have a teacher.

    Raises:
        BadInputError: there are no images of attacker identities, or of fewer than two; or the
            teacher has not embedded an image.
    """
    splits = attacker.training_splits
    images = _images(attacker, data, splits)
    queries, source = _queries(attacker, data, images, splits)
    return PairSet(
        queries,
        images.identities[source],
        source,
        images.originals,
        images.identities,
        attacker.query == "image",
        _vectors_of(targets, images.sample_ids),
    )


def validation_pairs(
    attacker: EncoderAttacker, data: AttackData, targets: Table | None = None
) -> Validation:
    """Validation queries and gallery of an attacker, over the validation identities only."""
    splits = (ATTACKER_VALIDATION,)
    images = _images(attacker, data, splits)
    queries, source = _queries(attacker, data, images, splits)
    return Validation(
        queries,
        images.identities[source],
        source,
        images.originals,
        images.identities,
        _vectors_of(targets, images.sample_ids),
    )


def _images(attacker: EncoderAttacker, data: AttackData, splits: tuple[str, ...]) -> AttackerImages:
    if attacker.learns_from_anonymized and data.anonymized is None:
        raise BadInputError(f"{attacker.name}: learns from anonymized images, but was given none")
    images = data.images(*splits, side=attacker.encoder.input_side)
    if not len(images.originals):
        raise BadInputError(
            f"{attacker.name}: no images of {splits[0]} people; see splits.attacker, "
            "splits.auxiliary_fraction and splits.validation_fraction"
        )
    if attacker.learns_from_anonymized and not len(images.anonymized):
        raise BadInputError(f"{attacker.name}: no anonymized images of {splits[0]} people")
    return images


def _queries(
    attacker: EncoderAttacker, data: AttackData, images: AttackerImages, splits: tuple[str, ...]
) -> tuple[Images, Index]:
    """The queries, and the row of the original behind each."""
    queries, source = images.originals, np.arange(len(images.originals))
    if attacker.learns_from_anonymized:
        queries, source = images.anonymized, images.source
    if (condition := attacker.probe_condition) is not None:
        queries = data.condition_maps(condition, *splits, side=attacker.encoder.input_side)
    return queries, source


def _vectors_of(embeddings: Table | None, samples: Sequence[str]) -> Embeddings | None:
    """The embeddings of the given samples, in their order."""
    if embeddings is None:
        return None
    table = embeddings.read()
    row_of = {sample: row for row, sample in enumerate(table["sample_id"].to_pylist())}
    absent = [sample for sample in samples if sample not in row_of]
    if absent:
        raise BadInputError(f"the teacher has not embedded {len(absent)} images, as {absent[0]}")
    return embedding_matrix(table)[[row_of[sample] for sample in samples]]
