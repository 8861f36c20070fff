"""What every reconstruction model offers: its settings, and the model that is built of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from cldmray.arrays import Images
from cldmray.attackers.nn.pairs import Index
from cldmray.attackers.nn.training import Call, TrainingSchedule
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError, ConfigError
from cldmray.recognizers.base import Recognizer
from cldmray.results.names import Label
from cldmray.settings import Count, Share, checked_dataclass

Seeds = npt.NDArray[np.int64]
"""One random seed an image, shape (N,), all >= 0."""


@checked_dataclass(kw_only=True)
class ReconstructionTraining(TrainingSchedule):
    """How a reconstruction model's network is trained.

    Attributes:
        batch_size: pairs in one batch, of as many different identities as there are.
        augment: strength of the random views, 0..1, which both sides of a pair undergo alike; 0
            mirrors only. An anonymizer does not treat a turned or enlarged face as it would
            treat the upright one, and turning softens the images.
        precision: ``bf16`` or ``fp32``.
        seed: of the weights, batches and views, and of the control's shuffling.

    >>> ReconstructionTraining(max_steps=300).batch_size
    32
    """

    max_steps: Count = 600
    batch_size: Count = 32
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: Count = 30
    weight_decay: NonNegativeFloat = 0.01
    precision: Literal["bf16", "fp32"] = "bf16"
    augment: Share = 0.0
    validate_every: Count = 200


class ReconstructionBatch(NamedTuple):
    """One worker's part of a step's batch, on its device.

    Attributes:
        anonymized: in -1..1, shape (n, 3, h, w).
        maps: condition maps of them, in -1..1, shape (n, 3, h, w); None for models that read none.
        originals: in -1..1, shape (n, 3, h, w).
        rows: of the originals in :attr:`ReconstructionPairs.originals`, shape (n,).
        seeds: of whatever else is random about each pair, shape (n,).
        identities: code of each original's identity, shape (n,); one may come several times.
    """

    anonymized: Tensor
    maps: Tensor | None
    originals: Tensor
    rows: Index
    seeds: Seeds
    identities: Index


class Reconstructor(ABC):
    """A model that reconstructs images: made by :meth:`ReconstructionModel.build`, then it learns.

    First :meth:`learn`, which takes what needs no steps; then, where there is a ``network``, the
    steps of :class:`cldmray.attackers.nn.training.TrainingLoop`; then it reconstructs.

    Attributes:
        network: what the steps train; None where nothing is.
    """

    network: nn.Module | None = None

    def learn(self, pairs: ReconstructionPairs) -> None:  # noqa: B027
        """Take from the pairs what needs no steps.

        Raises:
            BadInputError: they do not fit this model.
        """

    def maps(self, anonymized: Images) -> Images | None:
        """Condition maps that the network reads beside the images; None: it reads none."""
        return None

    def loss(self, network: Call, batch: ReconstructionBatch) -> Tensor:
        """Mean loss over a batch, a scalar.

        Args:
            network: calls ``self.network``, by way of whatever wraps it in training.
        """
        raise NotImplementedError(f"{type(self).__name__} has no network to train")

    def reconstruct(self, images: Images, seeds: Seeds) -> Images:
        """What the images may have looked like, uint8 (N, guesses, h, w, 3).

        An image's guesses depend on it and its seed only, never on its neighbours, but for
        rounding by one grey level.

        Args:
            images: anonymized, uint8 (N, h, w, 3).
            seeds: shape (N,).

        Raises:
            BadInputError: the images' size is not that of the images learnt from, or none
                that the network takes; or nothing was learnt yet.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise BadInputError(
                f"images must be uint8 (N, h, w, 3), not {images.dtype} {images.shape}"
            )
        if len(seeds) != len(images):
            raise BadInputError(f"{len(images)} images need as many seeds, not {len(seeds)}")
        return self._reconstruct(images, seeds)

    @abstractmethod
    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        """:meth:`reconstruct` of images that were looked at."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that was learnt, on the CPU."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` of a model with the same settings has given."""


@checked_dataclass
class ReconstructionModel(ABC):
    """Settings of a reconstruction model; subclasses are frozen dataclasses.

    Attributes:
        label: name in tables; None: that of the kind.
        shuffled: whether it is the label-permutation control. It learns from pairs whose original
            is another person's, so that it can learn only what all faces share.
    """

    label: Label | None = field(default=None, kw_only=True)
    shuffled: bool = field(default=False, kw_only=True)

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the kind, the default of ``label``."""

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.label or (f"{self.kind}-shuffled" if self.shuffled else self.kind)

    @property
    def is_control(self) -> bool:
        """Whether it is a control that shows what counts as no recovery, not an attack."""
        return self.shuffled

    @property
    def guesses(self) -> int:
        """Reconstructions of each image."""
        return 1

    def check(self) -> None:  # noqa: B027
        """Find out before any work starts whether everything is there that it needs.

        Raises:
            CldmrayError: it is not; the message says what is missing.
        """

    @property
    def max_steps(self) -> int:
        """Optimiser steps that it takes to learn; 0: there is no network to train."""
        return 0

    @property
    def schedule(self) -> ReconstructionTraining | None:
        """How its network is trained; None: it has none."""
        return None

    @property
    def has_seed(self) -> bool:
        """Whether another seed may give another model."""
        return self.schedule is not None

    def with_seed(self, training: int) -> Self:
        """The settings with the seed of one of several trainings, counted from 0."""
        return self

    def trained_on(self) -> frozenset[str]:
        """Hashes of the identities that a public model which it starts from was trained on."""
        return frozenset()

    @property
    def learns_with(self) -> tuple[Recognizer, ...]:
        """Recognizers that have a say in what it learns."""
        return ()

    def check_held_out_recognizer(self, held_out_recognizer: Recognizer) -> None:
        """Refuse a recognizer whose weights the model learns with: it is not held out.

        Raises:
            ConfigError: the model learns with it.
            MissingDependencyError: the weights of one of both are not installed.
        """
        if held_out_recognizer.version() in [
            recognizer.version() for recognizer in self.learns_with
        ]:
            raise ConfigError(
                f"{self.name} learns with {held_out_recognizer.name}, which therefore cannot "
                "evaluate its reconstructions: choose another recognizer, such as dlib"
            )

    @property
    def shuffle_seed(self) -> int:
        """Seed of the control's shuffling."""
        return 0

    def training_pairs(self, pairs: ReconstructionPairs) -> ReconstructionPairs:
        """The pairs as this model learns them: shuffled where it is the control.

        Raises:
            BadInputError: they are to be shuffled, and are of fewer than two identities.
        """
        return pairs.shuffled(self.shuffle_seed) if self.shuffled else pairs

    @abstractmethod
    def build(self, device: str = "cpu") -> Reconstructor:
        """The model before it learns; seeds torch's global generator if it has a network.

        Raises:
            CldmrayError: as :meth:`check` says.
        """


@checked_dataclass
class TrainedReconstructionModel(ReconstructionModel):
    """Settings of a reconstruction model whose network is trained.

    Attributes:
        training: how.
    """

    training: ReconstructionTraining = field(default_factory=ReconstructionTraining, kw_only=True)

    @property
    def max_steps(self) -> int:
        return self.training.max_steps

    @property
    def schedule(self) -> ReconstructionTraining | None:
        return self.training

    def with_seed(self, training: int) -> Self:
        return replace(self, training=replace(self.training, seed=self.training.seed + training))

    @property
    def shuffle_seed(self) -> int:
        return self.training.seed


def to_pixels(images: Tensor) -> Images:
    """Images in -1..1, shape (N, 3, h, w), as uint8 (N, h, w, 3); what is beyond is cut off."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: Images = levels.permute(0, 2, 3, 1).cpu().numpy()
    return pixels
