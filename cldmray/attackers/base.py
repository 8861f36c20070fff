"""What every attacker is: one object that says what it needs, learns, embeds or combines scores.

The runner asks an attacker in this order: :meth:`Attacker.check`, :meth:`Attacker.can_attack`,
:meth:`Attacker.fit`, :meth:`Attacker.embeddings` (or :meth:`Attacker.combine`) and
:meth:`Attacker.learning_curve`. Whatever needs a cluster is done by the :class:`Context` that is
handed over, so that no attacker imports Ray.

An attacker of one's own is a frozen dataclass: a :class:`TrainingFreeAttacker` that embeds
images, or a :class:`~cldmray.attackers.learning.LearningAttacker` that learns how to.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray.anonymizers.base import Anonymizer
from cldmray.arrays import Images
from cldmray.attackers.data import AttackData, Table
from cldmray.conditions.base import Condition
from cldmray.faces.records import SPLITS
from cldmray.gallery.scores import Scores
from cldmray.recognizers.base import Embeddings, Recognizer
from cldmray.results.names import Label
from cldmray.settings import checked_dataclass

if TYPE_CHECKING:
    from cldmray.attackers.nn.training import Trainable

Learnt = Mapping[str, npt.NDArray[np.generic]]
"""What an attacker has learnt: arrays by name."""
Embed = Callable[[Images], Embeddings]
"""Embeds N >= 1 images (N, height, width, 3) as float32 (N, dimensions), unit norm."""
LearningCurve = list[dict[str, float]]
"""Points with ``step``, ``loss``, ``validation_rank_1`` and what else an attacker measures."""


class Views(NamedTuple):
    """Embeddings of originals and of anonymized images.

    Attributes:
        embeddings: rows of ``records.embeddings_schema``; the column ``view`` is ``original`` or
            the name of an anonymizer.
        probes: table that holds those of the anonymized images, with further columns of the
            attacker where it has any.
    """

    embeddings: pa.Table
    probes: Table


class Context(Protocol):
    """What the engine does for an attacker. Every table is computed once and found again."""

    def recognize(self, recognizer: Recognizer, splits: tuple[str, ...] = SPLITS) -> Table:
        """A recognizer's embeddings of the originals."""

    def identities_of(self, splits: tuple[str, ...]) -> pa.ChunkedArray:
        """The identities of some splits, once for each of their images."""

    def learn(
        self,
        attacker: "Attacker",
        data: AttackData,
        learn: Callable[[AttackData], tuple[Learnt, LearningCurve]],
    ) -> Table:
        """Call a function in a worker, and keep the arrays and the learning curve that it returns.

        Args:
            attacker: whose function it is; its settings decide the result.
            data: what it learns from.
            learn: called with ``data`` where that has not been done yet.
        """

    def train(
        self,
        attacker: "Attacker",
        data: AttackData,
        make: Callable[[], "Trainable"],
        inputs: Sequence[Table | None] = (),
    ) -> Table:
        """Train a network on the workers of the cluster, and keep its weights and learning curve.

        Args:
            attacker: whose network it is; its settings decide the result.
            data: what it learns from.
            make: called where the training has not been done yet.
            inputs: further tables that decide the result.
        """

    def learnt(self, fitted: Table) -> Learnt:
        """The arrays that :meth:`train` or :meth:`learn` has kept."""

    def embed(
        self,
        attacker: "Attacker",
        fitted: Table | None,
        tables: Sequence[Table],
        splits: tuple[str, ...],
        *,
        originals: bool = True,
    ) -> Table:
        """Embed anonymized images, and the originals if asked for, by :meth:`Attacker.embedder`."""

    def reconstruct(
        self, attacker: "Attacker", fitted: Table, table: Table, splits: tuple[str, ...]
    ) -> Table:
        """Reconstruct anonymized images and embed what comes out.

        Args:
            attacker: a :class:`~cldmray.attackers.reconstruction.attacker.ReconstructionAttacker`.
        """


@checked_dataclass
class Attacker(ABC):
    """Somebody who tries to identify the persons on anonymized images.

    Subclasses are frozen dataclasses whose fields are their settings.

    Attributes:
        label: name in tables; None: the kind of attacker.
    """

    label: Label | None = field(default=None, kw_only=True)

    @property
    def kind(self) -> str:
        """The class name in snake case, for example ``clean_trained``."""
        parts = re.findall(r"[A-Z][a-z0-9]*", type(self).__name__)
        return "_".join(part.lower() for part in parts)

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.label or self.kind

    # What it needs.

    def check(self) -> None:  # noqa: B027
        """Find out before any work starts whether everything is there that the attacker needs.

        Raises:
            CldmrayError: it is not; the message says what is missing.
        """

    def check_workers(self, count: int, on_gpus: bool) -> None:  # noqa: B027
        """Find out whether it can be trained on so many workers.

        Raises:
            ConfigError: it cannot; the message begins with the attacker's setting.
        """

    @property
    def prerequisites(self) -> "Sequence[Attacker]":
        """Attackers from whose trained weights it starts."""
        return ()

    def combines(self, keys: Sequence[str]) -> Sequence[str]:
        """Keys of the audit's other attackers whose scores it combines; none: it has its own.

        Raises:
            ValueError: it cannot do with these.
        """
        return ()

    def can_attack(self, anonymizer: Anonymizer) -> bool:
        """Whether there is something to attack: nothing is learnt from images left as they are."""
        return not (self.learns_from_anonymized and anonymizer.unchanged)

    def trained_on(self) -> frozenset[str]:
        """Hashes of the identities that a public model which it starts from was trained on."""
        return frozenset()

    # What it learns from.

    @property
    def has_teacher(self) -> bool:
        """Whether it learns the embeddings of a public recognizer."""
        return False

    @property
    @abstractmethod
    def learns_from_anonymized(self) -> bool:
        """Whether it learns from every anonymizer's images of attacker identities.

        Such an attacker can query the anonymizer, and is fitted anew for every one.
        """

    @property
    def training_splits(self) -> tuple[str, ...]:
        """Splits of whose identities it learns the original images."""
        return ()

    @property
    def max_steps(self) -> int | None:
        """Optimiser steps of one training; None: there is no training."""
        return None

    @property
    def has_seed(self) -> bool:
        """Whether another seed may give another attacker."""
        return False

    def with_seed(self, training: int) -> Self:
        """The attacker with the seed of one of its trainings, counted from 0."""
        return self

    def without_labels(self) -> Self:
        """The attacker without labels, which decide no training."""
        return replace(self, label=None)

    def check_validation(self, identities: Sequence[str]) -> None:  # noqa: B027
        """Find out before any work whether it can be validated on the validation identities.

        Args:
            identities: one an image, at least one.

        Raises:
            BadInputError: it cannot.
        """

    def fit(self, data: AttackData, context: Context) -> Table | None:
        """Learn; None where there is nothing to learn."""
        return None

    def rehearsal(self, images: Images) -> "Trainable | None":
        """A training whose steps cost what those of its own cost, to estimate an audit's work.

        Args:
            images: any, at least one, shape (N, h, w, 3); they stand for all that it learns from.

        Returns:
            None where nothing takes steps, or where their cost is not known beforehand.
        """
        return None

    # How it embeds, or combines scores.

    @property
    def uses_gpu(self) -> bool:
        """Whether a GPU makes it embed faster; the engine reserves none for the others."""
        return False

    def gpus_per_actor(self, default: float) -> float:
        """GPUs that one embedding actor needs: the default if it uses any."""
        return default if self.uses_gpu else 0.0

    @property
    def embeds_images(self) -> bool:
        """Whether :meth:`embedder` embeds any images, be they original or anonymized."""
        return type(self).embedder is not Attacker.embedder

    @property
    def dimensions(self) -> int:
        """Length of its embeddings."""
        raise NotImplementedError(f"{self.name} has no embeddings")

    @property
    def probe_condition(self) -> Condition | None:
        """Extractor through which queries and probes are read; None reads images as they are."""
        return None

    def embedder(self, learnt: Learnt | None, device: str = "cpu", batch_size: int = 256) -> Embed:
        """The function that embeds images, made once in every worker.

        Args:
            learnt: what :meth:`fit` has left; None where it learns nothing.
            device: of torch.
            batch_size: images at once.
        """
        raise NotImplementedError(f"{self.name} embeds no images")

    def embeddings(
        self,
        fitted: Table | None,
        tables: Sequence[Table],
        splits: tuple[str, ...],
        context: Context,
    ) -> Views:
        """Embeddings of the identities of some splits: of originals and of anonymized images.

        Args:
            fitted: what :meth:`fit` returned.
            tables: of the anonymizers under attack.
        """
        probes = context.embed(self, fitted, tables, splits)
        return Views(probes.read(), probes)

    def references(
        self, fitted: Table | None, splits: tuple[str, ...], context: Context
    ) -> pa.Table:
        """Embeddings of the originals of some splits alone, see :class:`Views`.

        Args:
            fitted: what :meth:`fit` returned.
        """
        return context.embed(self, fitted, [], splits).read()

    def combine(
        self, scores: Sequence[Scores], validation: Sequence[Scores]
    ) -> tuple[Scores, npt.NDArray[np.float64]]:
        """Combined scores of other attackers, and the weight of each.

        Args:
            scores: of the probes of evaluated identities, from each attacker.
            validation: the same of attacker-validation identities.

        Raises:
            BadInputError: there is too little to learn the rule from.
        """
        raise NotImplementedError(f"{self.name} combines no scores")

    # How it is doing.

    @property
    def recognizes_clean_faces(self) -> bool:
        """Whether its rate on clean images says how well it recognizes faces at all."""
        return True

    @property
    def compares_all_images(self) -> bool:
        """Whether its embeddings of any two images, original or anonymized, may be compared.

        It then embeds both alike, reads both as they are, and is the same for every anonymizer.
        """
        return (
            self.recognizes_clean_faces
            and self.probe_condition is None
            and not self.learns_from_anonymized
        )

    def learning_curve(self, fitted: Table | None) -> LearningCurve:
        """Points of the learning curve, in order of the steps; none where nothing was learnt."""
        return [] if fitted is None else fitted.read().to_pylist()


@checked_dataclass
class TrainingFreeAttacker(Attacker):
    """An attacker that learns nothing: it embeds originals and anonymized images alike.

    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class MeanColour(TrainingFreeAttacker):
    ...     @property
    ...     def dimensions(self):
    ...         return 3
    ...     def embed(self, images):
    ...         colours = images.mean(axis=(1, 2))
    ...         return np.float32(colours / np.linalg.norm(colours, axis=1, keepdims=True))
    >>> attacker = MeanColour()
    >>> attacker.name, attacker.embed(np.full((2, 8, 8, 3), 7, np.uint8)).shape
    ('mean_colour', (2, 3))
    """

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of its embeddings."""

    @abstractmethod
    def embed(self, images: Images) -> Embeddings:
        """Embeddings of images (N, h, w, 3): float32, shape (N, dimensions), of unit norm."""

    @property
    def learns_from_anonymized(self) -> bool:
        return False

    def embedder(self, learnt: Learnt | None, device: str = "cpu", batch_size: int = 256) -> Embed:
        return self.embed
