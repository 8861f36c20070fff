"""What an encoder is trained for: one step's loss, divided among the workers."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cldmray.arrays import to_unit_range
from cldmray.attackers.nn.augment import augment, augmentation
from cldmray.attackers.nn.losses import distributed_guided, distributed_nt_xent
from cldmray.attackers.nn.pairs import Index, PairSampler, PairSet
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.recognizers.base import Embeddings

Encode = Callable[[Tensor], Tensor]
"""Embeds images in -1..1, shape (N, 3, height, width)."""


class Objective(ABC):
    """What an encoder minimises: draws batches and measures the encoder on them.

    All depends on (seed, step) only.

    Args:
        pairs: the training set.
        training: batch, temperature, strength of the random views, seed.
        workers: most processes that share each batch.

    Attributes:
        size: identities in a batch; fewer than asked for where the set has fewer.

    Raises:
        BadInputError: there are too few identities for the workers.
    """

    def __init__(self, pairs: PairSet, training: TrainingConfig, workers: int) -> None:
        self.pairs = pairs
        self.training = training
        self.sampler = PairSampler(pairs, training.batch_size, training.seed, workers)
        self.size = self.sampler.batch

    @abstractmethod
    def loss(self, step: int, part: slice, encode: Encode, device: torch.device) -> Tensor:
        """Mean loss over a worker's own part of a step's batch, a scalar on the device."""

    def _views(self, count: int, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.training.seed * 1_000_003 + step)
        return augmentation(count, self.training.augment, generator)


class Contrast(Objective):
    """Contrastive: one encoder embeds queries and originals, and those of one identity attract."""

    def loss(self, step: int, part: slice, encode: Encode, device: torch.device) -> Tensor:
        queries, originals = (rows[part] for rows in self.sampler.draw(step))
        size = self.size
        views = self._views(2 * size, step)
        views = torch.cat([views[:size][part], views[size:][part]])
        pairs = self.pairs
        both = [pairs.queries[queries], pairs.originals[originals]]
        batch = torch.cat([to_unit_range(images, device) for images in both])
        embeddings = encode(augment(batch, views.to(device)))
        count = len(queries)
        return distributed_nt_xent(
            embeddings[:count], embeddings[count:], self.training.temperature
        )


class Guidance(Objective):
    """Distillation: the encoder embeds queries where the teacher embeds their identities."""

    def __init__(self, pairs: PairSet, training: TrainingConfig, workers: int) -> None:
        super().__init__(pairs, training, workers)
        if pairs.teacher_embeddings is None:
            raise ValueError("guidance needs the teacher's embeddings of the images")
        self.teacher_embeddings = pairs.teacher_embeddings
        self.means = identity_means(pairs.teacher_embeddings, pairs.original_identities)

    def targets(self, step: int, originals: Index) -> Embeddings:
        """What the queries of a step are to become, shape (batch, d).

        Half of them, drawn anew for each, are the mean embedding of the identity's originals, the
        others the embedding of the original itself.
        """
        random = np.random.default_rng([self.training.seed, step, 1])
        whole = random.random(len(originals)) < 0.5
        means = self.means[self.pairs.original_identities[originals]]
        return np.where(whole[:, None], means, self.teacher_embeddings[originals])

    def loss(self, step: int, part: slice, encode: Encode, device: torch.device) -> Tensor:
        queries, originals = self.sampler.draw(step)
        targets = torch.from_numpy(self.targets(step, originals)[part]).to(device)
        views = self._views(len(queries), step)[part]
        batch = to_unit_range(self.pairs.queries[queries[part]], device)
        students = encode(augment(batch, views.to(device)))
        return distributed_guided(students, targets, self.training.temperature)


def objective(pairs: PairSet, training: TrainingConfig, workers: int) -> Objective:
    """:class:`Guidance` where the pairs come with a teacher's embeddings; else :class:`Contrast`.

    Raises:
        BadInputError: there are too few identities for the workers.
    """
    kind = Contrast if pairs.teacher_embeddings is None else Guidance
    return kind(pairs, training, workers)


def identity_means(vectors: Embeddings, identities: Index) -> Embeddings:
    """Mean embedding of each identity, unit norm, shape (highest code + 1, d).

    Args:
        vectors: unit norm, shape (P, d).
        identities: identity code of each vector, shape (P,).
    """
    sums = np.zeros((int(identities.max()) + 1, vectors.shape[1]), np.float64)
    np.add.at(sums, identities, vectors)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(norms, 1e-12), np.float32)
