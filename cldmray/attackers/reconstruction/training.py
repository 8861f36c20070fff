"""What the training of an reconstruction model minimises, the training in one process, and its files.

The steps themselves, for one process or one of many, are
:func:`cldmray.attackers.nn.training.training_steps`.
"""

from collections.abc import Callable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cldmray import storage
from cldmray.arrays import to_unit_range
from cldmray.attackers.nn.augment import augment, augmentation
from cldmray.attackers.nn.pairs import Index
from cldmray.attackers.nn.training import Call, optimizer_of, training_steps
from cldmray.attackers.reconstruction.base import (
    ReconstructionBatch,
    ReconstructionModel,
    ReconstructionTraining,
    Reconstructor,
    TrainedReconstructionModel,
)
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError

UNCOLOURED = torch.tensor([1.0, 0.0, 0.0, 0.0])
"""Contrast and colour shifts, as ``augment`` takes them, that change nothing."""


class ReconstructionObjective:
    """Draws batches of pairs and measures the reconstruction model on them; all depends on (seed, step) only.

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

    def part(self, rank: int, workers: int) -> slice:
        """Rows of a batch that are a worker's own."""
        return slice(rank * self.size // workers, (rank + 1) * self.size // workers)

    def draw(self, step: int) -> Index:
        """Rows of the pairs of a step, shape (size,): one of each person first, in random order."""
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
        plain = torch.cat([views[:, :6], UNCOLOURED.expand(len(views), 4)], dim=1)
        source = self.pairs.source[rows]
        maps = None
        if self.maps is not None:
            maps = augment(to_unit_range(self.maps[rows]), plain).to(device)
        return ReconstructionBatch(
            augment(to_unit_range(self.pairs.anonymized[rows]), views).clamp(-1, 1).to(device),
            maps,
            augment(to_unit_range(self.pairs.originals[source]), views).clamp(-1, 1).to(device),
            source,
            seeds,
        )

    def loss(self, step: int, part: slice, call: Call, device: torch.device) -> Tensor:
        """Mean loss over a worker's own part of a step's batch, a scalar on the device."""
        return self.reconstructor.loss(call, self.batch(step, part, device))


def fit(
    reconstruction: ReconstructionModel,
    pairs: ReconstructionPairs,
    device: str = "cpu",
    watch: Callable[[int, float, Reconstructor], None] | None = None,
) -> Reconstructor:
    """An reconstruction model that has learnt from the pairs, in this process.

    Args:
        inversion: its settings; where it is the control, it shuffles the pairs itself.
        pairs: of attacker people.
        device: of torch.
        watch: called after each step with the steps done, the loss and the reconstruction model.

    Raises:
        CldmrayError: something is missing, or the pairs do not fit.
    """
    learnt = reconstruction.training_pairs(pairs)
    reconstructor = reconstruction.build(device)
    reconstructor.learn(learnt)
    if reconstructor.network is None or not isinstance(reconstruction, TrainedReconstructionModel):
        return reconstructor
    goal = ReconstructionObjective(reconstructor, learnt, reconstruction.training, 1)
    optimizer = optimizer_of(reconstructor.network, reconstruction.training)
    max_steps = training_steps(goal, reconstructor.network, optimizer, torch.device(device))
    for done, loss in enumerate(max_steps, 1):
        if watch is not None:
            watch(done, loss, reconstructor)
    return reconstructor


def save_reconstructor(reconstructor: Reconstructor, uri: str) -> None:
    """Write all that an reconstruction model has learnt as safetensors, atomically."""
    storage.write_bytes(uri, save(reconstructor.state()))


def load_reconstructor(
    reconstruction: ReconstructionModel, uri: str, device: str = "cpu"
) -> Reconstructor:
    """The reconstruction model of a file; ``inversion`` are the settings with which it learnt.

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
