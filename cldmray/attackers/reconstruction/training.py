"""What the training of a reconstruction model minimises, and how it is read from a file.

The loop itself is :class:`cldmray.attackers.nn.training.TrainingLoop`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cldmray import storage
from cldmray.arrays import to_unit_range
from cldmray.attackers.nn.augment import augment, augmentation
from cldmray.attackers.nn.pairs import Index
from cldmray.attackers.nn.training import Call, Trainable, Worker, loaded
from cldmray.attackers.reconstruction.base import (
    ReconstructionBatch,
    ReconstructionModel,
    ReconstructionTraining,
    Reconstructor,
)
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.attackers.reconstruction.validation import validation_point
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Recognizer

UNCOLOURED = torch.tensor([1.0, 0.0, 0.0, 0.0])
"""Contrast and colour shifts, as ``augment`` takes them, that change nothing."""


class ReconstructionObjective:
    """Samples batches of pairs and computes the model's loss on them, by (seed, step) only.

    Args:
        reconstruction model: has learnt what needs no steps.
        pairs: what it learns from, shuffled already where it is to be.
        training: batch, strength of the random views, seed.
        workers: most processes that share each batch.

    Raises:
        BadInputError: there are fewer pairs than workers.
    """

    def __init__(
        self,
        reconstructor: Reconstructor,
        pairs: ReconstructionPairs,
        training: ReconstructionTraining,
        workers: int,
    ) -> None:
        self.reconstructor = reconstructor
        self.pairs = pairs
        self.training = training
        self.size = min(training.batch_size, pairs.queries)
        if self.size < workers:
            raise BadInputError(
                f"{pairs.queries} anonymized images are too few for {workers} training workers; "
                "raise the query budget"
            )
        self.maps = reconstructor.maps(pairs.anonymized)

    def draw(self, step: int) -> Index:
        """Rows of a step's pairs, shape (size,): one of each identity first, in random order."""
        random = np.random.default_rng([self.training.seed, step])
        order = random.permutation(self.pairs.queries)
        identities = self.pairs.identities[order]
        together = np.argsort(identities, kind="stable")
        _, starts, counts = np.unique(identities[together], return_index=True, return_counts=True)
        nth = np.empty(len(order), np.int64)
        nth[together] = np.arange(len(order)) - np.repeat(starts, counts)
        return order[np.argsort(nth, kind="stable")[: self.size]]

    def batch(self, step: int, part: slice, device: torch.device) -> ReconstructionBatch:
        """A worker's part of a step's batch."""
        seed = self.training.seed
        rows = self.draw(step)[part]
        seeds = np.random.default_rng([seed, step, 1]).integers(0, 2**62, self.size)[part]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        views = augmentation(self.size, self.training.augment, generator)[part]
        uncoloured = torch.cat([views[:, :6], UNCOLOURED.expand(len(views), 4)], dim=1)
        source = self.pairs.source[rows]
        maps = None
        if self.maps is not None:
            maps = augment(to_unit_range(self.maps[rows]), uncoloured).to(device)
        return ReconstructionBatch(
            augment(to_unit_range(self.pairs.anonymized[rows]), views).clamp(-1, 1).to(device),
            maps,
            augment(to_unit_range(self.pairs.originals[source]), views).clamp(-1, 1).to(device),
            source,
            seeds,
            self.pairs.original_identities[source],
        )

    def loss(self, step: int, part: slice, call: Call, device: torch.device) -> Tensor:
        """Mean loss over a worker's own part of a step's batch, a scalar on the device."""
        return self.reconstructor.loss(call, self.batch(step, part, device))


class ReconstructionTrainable(Trainable):
    """A reconstruction model that learns from pairs; see :class:`Trainable`.

    Args:
        reconstruction: its settings; where it is the control, it shuffles the pairs itself.
        pairs: of attacker identities, within the query budget, or a function that reads them on
            each worker; not shuffled yet.
        validation: pairs of other identities, or a function as for ``pairs``; None measures
            nothing.
        validation_recognizer: embeds them.
    """

    def __init__(
        self,
        reconstruction: ReconstructionModel,
        pairs: ReconstructionPairs | Callable[[], ReconstructionPairs],
        *,
        validation: ReconstructionPairs | Callable[[], ReconstructionPairs] | None = None,
        validation_recognizer: Recognizer | None = None,
    ) -> None:
        self.name = reconstruction.name
        if reconstruction.schedule is not None:
            self.schedule: ReconstructionTraining = reconstruction.schedule
        self._reconstruction = reconstruction
        self._pairs = pairs
        self._validation = validation
        self._recognizer = validation_recognizer

    @property
    def max_steps(self) -> int:
        return self._reconstruction.max_steps

    def check(self, workers: int) -> None:
        """Refuse more workers than there are pairs; :meth:`build` does where they are read.

        Raises:
            BadInputError: there are fewer pairs.
        """
        pairs = self._pairs
        if isinstance(pairs, ReconstructionPairs) and pairs.queries < workers:
            raise BadInputError(
                f"{self.name}: {pairs.queries} anonymized images are too few for "
                f"{workers} training workers; raise the query budget"
            )

    def build(self, worker: Worker) -> nn.Module | None:
        self.worker = worker
        given = loaded(self._pairs)
        self._queries = given.queries
        self._validation = loaded(self._validation)
        pairs = self._reconstruction.training_pairs(given)
        self.reconstructor = self._reconstruction.build(worker.device)
        self.reconstructor.learn(pairs)
        network = self.reconstructor.network
        if network is None or not self.max_steps:
            return None
        self.objective = ReconstructionObjective(
            self.reconstructor, pairs, self.schedule, worker.workers
        )
        return network

    def loss(self, step: int, call: Call) -> Tensor:
        size = self.objective.size
        own = self.worker.share(size)
        weight = self.worker.weight(own.stop - own.start, size)
        return weight * self.objective.loss(step, own, call, torch.device(self.worker.device))

    def validate(self) -> dict[str, float]:
        """How many queries were learnt from; on the first worker also :func:`validation_point`."""
        point = {"queries": float(self._queries)}
        validation = self._validation
        if not isinstance(validation, ReconstructionPairs) or self._recognizer is None:
            return point
        if self.worker.rank:
            return point
        measured = validation_point(self.reconstructor, validation, self._recognizer)
        return point | {f"validation_{name}": value for name, value in measured.items()}

    def state(self) -> dict[str, Tensor]:
        return self.reconstructor.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.reconstructor.load_state(state)


def load_reconstructor(
    reconstruction: ReconstructionModel, uri: str, device: str = "cpu"
) -> Reconstructor:
    """The reconstruction model of a file; ``reconstruction`` are the settings with which it learnt.

    Raises:
        BadInputError: the file is missing, no safetensors, or of other settings.
    """
    try:
        state = load(storage.read_bytes(uri))
    except (FileNotFoundError, SafetensorError) as error:
        raise BadInputError(f"cannot read the reconstruction model {uri}: {error}") from error
    reconstructor = reconstruction.build(device)
    try:
        reconstructor.load_state(state)
    except (KeyError, RuntimeError) as error:
        raise BadInputError(
            f"{uri} is of another reconstruction model than {reconstruction.name}"
        ) from error
    return reconstructor
