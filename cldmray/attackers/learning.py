"""The base of attackers with a training of their own, inside or outside of this repository."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import field, replace
from functools import partial
from typing import Self

import numpy as np

from cldmray.arrays import Images
from cldmray.attackers.base import Attacker, Context, Embed, LearningCurve, Learnt
from cldmray.attackers.data import AttackData, Table
from cldmray.attackers.nn.pairs import Validation
from cldmray.errors import BadInputError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.recognizers.base import Embeddings
from cldmray.settings import checked_dataclass


@checked_dataclass
class LearningAttacker(Attacker):
    """An attacker that learns arrays from images, and embeds images by them.

    Both methods run in a worker of the cluster. What is learnt is kept, and found again by an audit
    of the same settings and images.

    Attributes:
        seed: of whatever is random in the training.

    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Centred(LearningAttacker):
    ...     @property
    ...     def dimensions(self):
    ...         return 3
    ...     @property
    ...     def learns_from_anonymized(self):
    ...         return False
    ...     def learn(self, data):
    ...         return {"mean": data.images("attacker").originals.mean(axis=(0, 1, 2))}
    ...     def embed(self, images, learnt):
    ...         colours = images.mean(axis=(1, 2)) - learnt["mean"]
    ...         return np.float32(colours / np.linalg.norm(colours, axis=1, keepdims=True))
    >>> Centred().name, Centred().training_splits
    ('centred', ('attacker',))
    """

    seed: int = field(default=0, kw_only=True)

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of its embeddings."""

    @abstractmethod
    def learn(self, data: AttackData) -> Learnt:
        """Learn from attacker identities, and return arrays by name.

        Args:
            data: ``data.images("attacker")`` holds the images, the anonymized ones where
                :attr:`learns_from_anonymized` is true.
        """

    @abstractmethod
    def embed(self, images: Images, learnt: Learnt) -> Embeddings:
        """Embeddings of images (N, h, w, 3): float32, shape (N, dimensions), of unit norm.

        Args:
            learnt: what :meth:`learn` has returned.
        """

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (ATTACKER,)

    @property
    def has_seed(self) -> bool:
        return True

    def with_seed(self, training: int) -> Self:
        return replace(self, seed=self.seed + training)

    def fit(self, data: AttackData, context: Context) -> Table:
        return context.learn(self, data, self.learn_and_validate)

    def learn_and_validate(self, data: AttackData) -> tuple[Learnt, LearningCurve]:
        """Learn, and measure what was learnt on attacker-validation identities.

        Raises:
            BadInputError: :meth:`learn` or :meth:`embed` returns something else than it should.
        """
        learnt = self.learn(data)
        arrays = isinstance(learnt, Mapping) and learnt
        if not arrays or not all(isinstance(value, np.ndarray) for value in learnt.values()):
            raise BadInputError(f"{self.name}: learn() must return NumPy arrays by name")
        return learnt, [self.validation_point(data, learnt)]

    def embedder(self, learnt: Learnt | None, device: str = "cpu", batch_size: int = 256) -> Embed:
        if learnt is None:
            raise ValueError(f"{self.name} embeds by what it has learnt, but was given nothing")
        return partial(self.embed, learnt=learnt)

    def validation_point(self, data: AttackData, learnt: Learnt) -> dict[str, float]:
        """The one point of its learning curve: rank-1 rate on attacker-validation identities.

        Raises:
            BadInputError: an array is missing, or the embeddings have another shape.
        """
        images = data.images(ATTACKER_VALIDATION)
        queries, source = images.originals, np.arange(len(images.originals))
        if self.learns_from_anonymized:
            queries, source = images.anonymized, images.source
        if self.probe_condition is not None and len(queries):
            queries = self.probe_condition(queries)
        validation = Validation(
            queries, images.identities[source], source, images.originals, images.identities
        )
        rate = math.nan
        if len(queries):
            rate = validation.rank_1(
                lambda some: self._checked(self.embed(some, learnt), len(some))
            )
        identities = float(validation.n_identities) if len(queries) else 0.0
        return {
            "step": 1.0,
            "loss": math.nan,
            "validation_rank_1": rate,
            "validation_identities": identities,
        }

    def _checked(self, embeddings: Embeddings, count: int) -> Embeddings:
        if embeddings.shape != (count, self.dimensions):
            raise BadInputError(
                f"{self.name}: embed() must return an array of shape {(count, self.dimensions)}, "
                f"not {embeddings.shape}"
            )
        return embeddings
