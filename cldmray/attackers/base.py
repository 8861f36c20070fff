"""The ladder of attackers (DESIGN section 3): what each one knows, and what it learns from.

The rungs in this file are the contrastive encoder trained on pairs (query, photograph) of attacker
identities; they differ in what the query is. Those that learn from a recognizer are in
:mod:`cldmray.attackers.distilled`, those that learn nothing in ``off_the_shelf`` and
``edge_match`` beside it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Pictures
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.faces.records import ATTACKER
from cldmray.results.names import check_label

Query = Literal["photo", "condition", "anonymized"]


@dataclass(frozen=True)
class Rung(ABC):
    """One attacker: it scores every probe against every candidate, and names the best.

    A rung is an :class:`EmbeddingRung` or a :class:`~cldmray.attackers.score_fusion.Fusion` of others.

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
        """Whether it learns from every anonymizer's pictures of the attacker's people."""
        return False

    @property
    def knows_clear_faces(self) -> bool:
        """Whether its rate on clear photographs tells how well it knows faces at all."""
        return True

    def check(self) -> None:  # noqa: B027
        """Find out before any work starts whether everything is there that the rung needs.

        Raises:
            CldmrayError: it is not; the message says what is missing.
        """


@dataclass(frozen=True)
class EmbeddingRung(Rung):
    """An attacker that embeds probes and the gallery's photographs; near ones are alike.

    It is a :class:`TrainedRung` or a :class:`ReadyRung`.
    """

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of its embeddings."""

    @property
    def probe_condition(self) -> Condition | None:
        """Extractor through which queries and probes are read; None reads pictures as they are."""
        return None


@dataclass(frozen=True)
class ThroughCondition(EmbeddingRung):
    """Mixin of an attacker that reads queries and probes through an extractor.

    Attributes:
        condition: the extractor.
    """

    condition: Condition = field(default_factory=Canny)

    @property
    def probe_condition(self) -> Condition | None:
        return self.condition


@dataclass(frozen=True)
class ReadyRung(EmbeddingRung):
    """An attacker that learns nothing: probes and photographs are embedded in the same way."""

    @abstractmethod
    def embed(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        """Embeddings of pictures (N, h, w, 3): float32, shape (N, dimensions), of unit norm."""


@dataclass(frozen=True)
class TrainedRung(EmbeddingRung):
    """An attacker whose encoder is trained on attacker people.

    Attributes:
        encoder: shape of its network.
        training: how it learns.
        start_from: name of the rung whose trained weights it starts from; None starts afresh.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    start_from: str | None = None

    @property
    @abstractmethod
    def query(self) -> Query:
        """What the training queries are; each is matched with photographs of the same person."""

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


def training_order(rungs: dict[str, Rung]) -> list[str]:
    """Rung keys in an order in which every ``start_from`` is trained before it is needed.

    Raises:
        ValueError: a rung starts from one that is not in the audit, from itself, from one that is
            trained per anonymizer, or from one whose encoder has another shape; the message begins
            with the rung's key.
    """
    ordered: list[str] = []
    by_name = {rung.name: rung for rung in rungs.values()}
    for key, rung in rungs.items():
        if not isinstance(rung, TrainedRung) or rung.start_from is None:
            ordered.append(key)
            continue
        base = by_name.get(rung.start_from)
        if not isinstance(base, TrainedRung) or base is rung:
            raise ValueError(
                f"{key}.start_from: {rung.start_from!r} is not another attack of this audit that "
                "is trained; add it, or set start_from to null"
            )
        if base.per_anonymizer or base.start_from is not None:
            raise ValueError(
                f"{key}.start_from: {rung.start_from!r} must itself start afresh and not depend "
                "on the anonymizer"
            )
        if base.encoder != rung.encoder:
            raise ValueError(
                f"{key}.encoder: must be that of {base.name}, from whose weights {key} starts; "
                "set start_from to null to train another encoder afresh"
            )
    return ordered + [key for key in rungs if key not in ordered]
