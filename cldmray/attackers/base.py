"""Attackers (docs/threat_model.md): what each one knows, and what it learns from.

The attackers in this file are the contrastive encoder trained on pairs (query, image) of attacker
identities; they differ in what the query is. Those that learn from a recognizer are in
:mod:`cldmray.attackers.distilled`, those that learn nothing in ``pretrained`` and
``condition_match`` beside it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.faces.records import ATTACKER
from cldmray.results.names import check_label

Query = Literal["image", "condition", "anonymized"]


@dataclass(frozen=True)
class Attacker(ABC):
    """One attacker: it scores every probe against every candidate, and names the best.

    An attacker is an :class:`EmbeddingAttacker` or a :class:`~cldmray.attackers.score_fusion.Fusion` of others.

    Attributes:
        label: name in tables; None: that of the kind of attacker.
    """

    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_label(self.label)

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables."""

    @property
    def per_anonymizer(self) -> bool:
        """Whether it learns from every anonymizer's images of the attacker's people."""
        return False

    @property
    def recognizes_clean_faces(self) -> bool:
        """Whether its rate on clean images tells how well it knows faces at all."""
        return True

    def check(self) -> None:  # noqa: B027
        """Find out before any work starts whether everything is there that the attacker needs.

        Raises:
            CldmrayError: it is not; the message says what is missing.
        """


@dataclass(frozen=True)
class EmbeddingAttacker(Attacker):
    """An attacker that embeds probes and the gallery's images; near ones are alike.

    It is a :class:`TrainedAttacker` or a :class:`TrainingFreeAttacker`.
    """

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of its embeddings."""

    @property
    def probe_condition(self) -> Condition | None:
        """Extractor through which queries and probes are read; None reads images as they are."""
        return None


@dataclass(frozen=True)
class ThroughCondition(EmbeddingAttacker):
    """Mixin of an attacker that reads queries and probes through an extractor.

    Attributes:
        condition: the extractor.
    """

    condition: Condition = field(default_factory=Canny)

    @property
    def probe_condition(self) -> Condition | None:
        return self.condition


@dataclass(frozen=True)
class TrainingFreeAttacker(EmbeddingAttacker):
    """An attacker that learns nothing: probes and images are embedded in the same way."""

    @abstractmethod
    def embed(self, images: Images) -> npt.NDArray[np.float32]:
        """Embeddings of images (N, h, w, 3): float32, shape (N, dimensions), of unit norm."""


@dataclass(frozen=True)
class TrainedAttacker(EmbeddingAttacker):
    """An attacker whose encoder is trained on attacker people.

    Attributes:
        encoder: shape of its network.
        training: how it learns.
        init_from: name of the attacker whose trained weights it starts from; None starts afresh.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init_from: str | None = None

    @property
    @abstractmethod
    def query(self) -> Query:
        """What the training queries are; each is matched with images of the same person."""

    @property
    def training_splits(self) -> tuple[str, ...]:
        """Splits whose people it is trained on."""
        return (ATTACKER,)

    @property
    def dimensions(self) -> int:
        return self.encoder.dimensions

    @property
    def per_anonymizer(self) -> bool:
        return self.query == "anonymized"

    def check(self) -> None:
        self.encoder.check()


def training_order(attackers: dict[str, Attacker]) -> list[str]:
    """Rung keys in an order in which every ``init_from`` is trained before it is needed.

    Raises:
        ValueError: an attacker starts from one that is not in the audit, from itself, from one that is
            trained per anonymizer, or from one whose encoder has another shape; the message begins
            with the attacker's key.
    """
    ordered: list[str] = []
    by_name = {attacker.name: attacker for attacker in attackers.values()}
    for key, attacker in attackers.items():
        if not isinstance(attacker, TrainedAttacker) or attacker.init_from is None:
            ordered.append(key)
            continue
        base = by_name.get(attacker.init_from)
        if not isinstance(base, TrainedAttacker) or base is attacker:
            raise ValueError(
                f"{key}.init_from: {attacker.init_from!r} is not another attack of this audit that "
                "is trained; add it, or set init_from to null"
            )
        if base.per_anonymizer or base.init_from is not None:
            raise ValueError(
                f"{key}.init_from: {attacker.init_from!r} must itself start afresh and not depend "
                "on the anonymizer"
            )
        if base.encoder != attacker.encoder:
            raise ValueError(
                f"{key}.encoder: must be that of {base.name}, from whose weights {key} starts; "
                "set init_from to null to train another encoder afresh"
            )
    return ordered + [key for key in attackers if key not in ordered]
