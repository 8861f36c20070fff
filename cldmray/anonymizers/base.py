"""What an anonymizer is: a small, hashable description that opens into a function on batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.conditions.base import Condition


@dataclass(frozen=True)
class Batch:
    """What one call of an anonymizer receives.

    Attributes:
        sample_ids: N identifiers.
        images: RGB, uint8, shape (N, height, width, 3).
        seeds: one random seed an image, int64, shape (N,), all >= 0.
        conditions: maps by control name, each shaped like ``images``.
    """

    sample_ids: Sequence[str]
    images: Images
    seeds: npt.NDArray[np.int64]
    conditions: Mapping[str, Images] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def take(self, rows: Sequence[int]) -> "Batch":
        """Some images of the batch, in the order of the rows; rows may repeat."""
        rows = list(rows)
        return Batch(
            [self.sample_ids[row] for row in rows],
            self.images[rows],
            self.seeds[rows],
            {name: maps[rows] for name, maps in self.conditions.items()},
        )


AnonymizeFunction = Callable[[Batch], Images]
"""Anonymizes a batch; image i of the result belongs to sample i and depends on sample i and its
seed only, never on its neighbours in the batch."""


class AnonymizerBase(ABC):
    """One way to anonymize, under audit.

    Subclasses are frozen dataclasses whose fields are their settings.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The setting's name in tables: ``copy``, ``blur``, ``cldm-canny-1.0``, ..."""

    @property
    def is_control(self) -> bool:
        """Whether this is a control of the audit rather than a candidate for release."""
        return False

    @property
    def unchanged(self) -> bool:
        """Whether it hands images on as they are, so that there is nothing to learn from them."""
        return False

    @property
    def nominal_k(self) -> int | None:
        """The k of k-anonymity that the method promises by construction; None: no promise."""
        return None

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Extractors of the maps that it draws from, by control name."""
        return {}

    def version(self) -> str:
        """Changes when outside content that the settings name (weights, a folder) changes."""
        return ""

    def check(self) -> None:
        """Find out before any work starts whether everything that it needs is installed.

        Raises:
            CldmrayError: it is not; the message says what to do.
        """
        for condition in self.conditions.values():
            condition.check()

    def trained_on(self) -> frozenset[str]:
        """Hashes (:func:`cldmray.hashing.identity_hash`) of the people it was trained on."""
        return frozenset()


class Anonymizer(AnonymizerBase):
    """Redraws each image by itself."""

    @property
    def resources(self) -> Mapping[str, float]:
        """Resources of one actor beside its CPU share, for example ``{"GPU": 0.5}``."""
        return {}

    def select(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which samples this anonymizer has an image for; all of them unless overridden."""
        return np.ones(len(sample_ids), bool)

    @abstractmethod
    def open(self) -> AnonymizeFunction:
        """Load what is needed, once in every actor, and return the function that anonymizes."""


class GroupAnonymizer(AnonymizerBase):
    """Replaces groups of images by one surrogate each (k-same and its kin).

    The engine computes ``features`` for every image, asks ``plan`` for the groups, gathers each
    group's images and hands them to ``merge``; every member is published as the surrogate.
    """

    @abstractmethod
    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Similarity features of a batch: float32, shape (N, d)."""

    @abstractmethod
    def plan(
        self,
        sample_ids: Sequence[str],
        identities: Sequence[str],
        features: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """Group number of every sample, shape (N,); the same for any order of the samples.

        Raises:
            BadInputError: the method's promise cannot be kept for these samples.
        """

    @abstractmethod
    def merge(self, images: Images) -> Images:
        """Surrogate (height, width, 3) of one group's images (n, height, width, 3)."""
