"""Anonymizer, the thing under test: a small, hashable description that opens into a function."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.errors import BadInputError, ConfigError

Seeds = npt.NDArray[np.int64]
"""One random seed an image, shape (N,), all >= 0."""


@dataclass(frozen=True)
class Batch:
    """What one call of an anonymizer receives.

    Attributes:
        sample_ids: N identifiers.
        images: RGB, uint8, shape (N, height, width, 3).
        seeds: one random seed an image, int64, shape (N,), all >= 0.
        conditions: maps by control name, each shaped like ``images``.
        samples: which of several anonymized images of its image each is to be, from 0 on, int,
            shape (N,); None: the first.

    >>> images = np.zeros((3, 8, 8, 3), np.uint8)
    >>> batch = Batch(["a", "b", "c"], images, np.arange(3))
    >>> batch.take([2, 2]).sample_ids
    ['c', 'c']
    """

    sample_ids: Sequence[str]
    images: Images
    seeds: Seeds
    conditions: Mapping[str, Images] = field(default_factory=dict)
    samples: npt.NDArray[np.integer[Any]] | None = None

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
            None if self.samples is None else self.samples[rows],
        )


class UnusableImagesError(BadInputError):
    """Some images of a batch could not be made; the others are as good as ever.

    Whoever can reject single images takes the others; for all others it is an error.

    Attributes:
        reason: why, for the list of rejected images.
        images: of the whole batch, uint8, shape (N, height, width, 3); anything where unusable.
        unusable: which, shape (N,).
    """

    def __init__(self, reason: str, images: Images, unusable: npt.NDArray[np.bool_]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.images = images
        self.unusable = unusable


AnonymizeFunction = Callable[[Batch], Images]
"""Anonymizes a batch. Image i of the result belongs to sample i; it depends on sample i and its
seed only, never on its neighbours in the batch."""


class AblationKey(NamedTuple):
    """Where an anonymizer stands among those that differ in their condition only.

    Attributes:
        scale: the largest scale of its controls; 0 where no condition acts.
        without_condition: text that is equal for anonymizers that differ in nothing but their
            controls.
        without_scale: text that is equal for anonymizers that differ in nothing but how strongly
            the same conditions act.
    """

    scale: float
    without_condition: str
    without_scale: str


class Anonymizer(ABC):
    """One way to anonymize images, under audit.

    Subclasses are frozen dataclasses whose fields are their settings, so that an anonymizer can be
    written in YAML, hashed and sent to any worker. Only ``name`` and ``open`` must be written:

    >>> @dataclass(frozen=True)
    ... class Invert(Anonymizer):
    ...     name = "invert"
    ...     def open(self):
    ...         return lambda batch: 255 - batch.images
    >>> Invert().open()(Batch(["a"], np.full((1, 4, 4, 3), 5, np.uint8), np.zeros(1, int))).max()
    np.uint8(250)
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables: ``no_op``, ``blur``, ``cldm-canny-1.0``, ..."""

    @abstractmethod
    def open(self) -> AnonymizeFunction:
        """Load what is needed, once in every process, and return the function that anonymizes."""

    def open_on(self, device: str) -> AnonymizeFunction:
        """:meth:`open` for a device that the engine has reserved: ``cpu``, ``cuda`` or ``auto``.

        Anonymizers that run on the CPU only need not write it.
        """
        return self.open()

    @property
    def uses_gpu(self) -> bool:
        """Whether a GPU makes it faster; the engine reserves none for the others."""
        return False

    @property
    def resources(self) -> Mapping[str, float]:
        """Ray resources of one actor beside its CPU share, for example ``{"GPU": 0.5}``."""
        return {}

    def gpus_per_actor(self, default: float) -> float:
        """GPUs that one actor needs: those in ``resources``, else the default if it uses any."""
        return self.resources.get("GPU", default if self.uses_gpu else 0.0)

    @property
    def grouping(self) -> "GroupAnonymizer | None":
        """What forms groups of images that share one result; None: each image by itself."""
        return None

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Extractors of the condition maps that it needs, by control name."""
        return {}

    @property
    def input_side(self) -> int | None:
        """Side in pixels of the images and maps that it works on; None: as they are audited.

        Its images are brought back to the size of the audited ones.
        """
        return None

    @property
    def is_control(self) -> bool:
        """Whether this is a control of the audit rather than a candidate for release."""
        return False

    @property
    def unchanged(self) -> bool:
        """Whether it returns images as they are, so that there is nothing to learn from them."""
        return False

    @property
    def nominal_k(self) -> int | None:
        """The k of k-anonymity that the method claims by construction; None: no claim."""
        return None

    @property
    def n_steps(self) -> int | None:
        """Calls of its network an image, for cost estimates; None: it has no steps."""
        return None

    def select(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which samples this anonymizer has an image for; all of them unless overridden."""
        return np.ones(len(sample_ids), bool)

    def usable(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of the selected samples it can make images of; all of them unless overridden.

        It is asked where the images are made. Those left out are counted, and noted in the report;
        too many of evaluated people stop an audit, as files of originals do.
        """
        return np.ones(len(sample_ids), bool)

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

    def ablation_key(self) -> AblationKey | None:
        """What to compare it with in an ablation of conditions; None: it never has a condition."""
        return None

    @property
    def is_conditioned(self) -> bool:
        """Whether a condition acts on its images, so that the condition can be varied."""
        key = self.ablation_key()
        return key is not None and key.scale > 0

    def same_images(self, other: "Anonymizer") -> bool:
        """Whether two anonymizers make the same images, whatever they are called."""
        return self == other

    def with_scale(self, factor: float) -> Self:
        """The anonymizer with the scales of all controls times ``factor``; 0 removes them.

        Raises:
            ConfigError: it is of a kind that has no condition.
        """
        raise self._no_condition()

    def with_coarse_condition(self, factor: int) -> Self:
        """The anonymizer with condition maps that are reduced by ``factor``; named after it.

        Raises:
            ConfigError: it is of a kind that has no condition.
        """
        raise self._no_condition()

    def with_init_image(self, strength: float | None) -> Self:
        """The anonymizer started from the noised image at a strength; None leaves it as it is.

        Raises:
            ConfigError: it is of a kind that has no condition.
            ValueError: the strength is not in (0, 1], or leaves no step.
        """
        raise self._no_condition()

    def started_from_image(self, strength: float) -> Self:
        """An anonymizer that starts from the image: itself, if it does, else at this strength.

        Raises:
            ConfigError: it is of a kind that has no condition.
        """
        raise self._no_condition()

    def _no_condition(self) -> ConfigError:
        return ConfigError(
            f"{self.name} is no anonymizer with a condition: choose one that has controls, such "
            "as cldm_canny"
        )


class GroupAnonymizer(Anonymizer):
    """Replaces groups of images by one surrogate each (k-same and its kin).

    The engine computes ``features`` for every image, asks ``plan`` for the groups, gathers each
    group's images and hands them to ``merge``; every member is published as the surrogate.
    """

    @property
    def grouping(self) -> "GroupAnonymizer":
        return self

    def open(self) -> AnonymizeFunction:
        """Return a function that groups the images of one batch, each of another person.

        It is for trying the method out; an audit groups all images of a split at once.
        """
        return self._anonymize

    def _anonymize(self, batch: Batch) -> Images:
        groups = self.plan(batch.sample_ids, batch.sample_ids, self.features(batch.images))
        anonymized = np.empty_like(batch.images)
        for group in np.unique(groups):
            anonymized[groups == group] = self.merge(batch.images[groups == group])
        return anonymized

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
