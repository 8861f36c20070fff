"""What the training of an inverter minimises, the training in one process, and its files.

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
    Inversion,
    InversionBatch,
    InversionTraining,
    Inverter,
    TrainedInversion,
)
from cldmray.attackers.reconstruction.pairs import InversionPairs
from cldmray.errors import BadInputError

UNCOLOURED = torch.tensor([1.0, 0.0, 0.0, 0.0])
"""Contrast and colour shifts, as ``augment`` takes them, that change nothing."""


class InversionGoal:
    """Draws batches of pairs and measures the inverter on them; all depends on (seed, step) only.

    Args:
        inverter: has learnt what needs no steps.
        pairs: what it learns from, shuffled already where it is to be.
        training: batch, strength of the random views, seed.
        workers: most processes that share each batch.

    Raises:
        BadInputError: there are fewer pairs than workers.
    """

    def __init__(
        self, inverter: Inverter, pairs: InversionPairs, training: InversionTraining, workers: int
    ) -> None:
        self.inverter = inverter
        self.pairs = pairs
        self.training = training
        self.size = min(training.batch, pairs.queries)
        if self.size < workers:
            raise BadInputError(
                f"{pairs.queries} anonymized pictures are too few for {workers} training workers; "
                "raise the query budget"
            )
        self.maps = inverter.maps(pairs.anonymized)

    def part(self, rank: int, workers: int) -> slice:
        """Rows of a batch that are a worker's own."""
        return slice(rank * self.size // workers, (rank + 1) * self.size // workers)

    def draw(self, step: int) -> Index:
        """Rows of the pairs of a step, shape (size,): one of each person first, in random order."""
        random = np.random.default_rng([self.training.seed, step])
        order = random.permutation(self.pairs.queries)
        people = self.pairs.people[order]
        together = np.argsort(people, kind="stable")
        _, starts, counts = np.unique(people[together], return_index=True, return_counts=True)
        nth = np.empty(len(order), np.int64)
        nth[together] = np.arange(len(order)) - np.repeat(starts, counts)
        return order[np.argsort(nth, kind="stable")[: self.size]]

    def batch(self, step: int, part: slice, device: torch.device) -> InversionBatch:
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
        return InversionBatch(
            augment(to_unit_range(self.pairs.anonymized[rows]), views).clamp(-1, 1).to(device),
            maps,
            augment(to_unit_range(self.pairs.photos[source]), views).clamp(-1, 1).to(device),
            source,
            seeds,
        )

    def loss(self, step: int, part: slice, call: Call, device: torch.device) -> Tensor:
        """Mean loss over a worker's own part of a step's batch, a scalar on the device."""
        return self.inverter.loss(call, self.batch(step, part, device))


def fit(
    inversion: Inversion,
    pairs: InversionPairs,
    device: str = "cpu",
    watch: Callable[[int, float, Inverter], None] | None = None,
) -> Inverter:
    """An inverter that has learnt from the pairs, in this process.

    Args:
        inversion: its settings; where it is the control, it shuffles the pairs itself.
        pairs: of attacker people.
        device: of torch.
        watch: called after each step with the steps done, the loss and the inverter.

    Raises:
        CldmrayError: something is missing, or the pairs do not fit.
    """
    learnt = inversion.training_pairs(pairs)
    inverter = inversion.build(device)
    inverter.learn(learnt)
    if inverter.network is None or not isinstance(inversion, TrainedInversion):
        return inverter
    goal = InversionGoal(inverter, learnt, inversion.training, 1)
    optimizer = optimizer_of(inverter.network, inversion.training)
    steps = training_steps(goal, inverter.network, optimizer, torch.device(device))
    for done, loss in enumerate(steps, 1):
        if watch is not None:
            watch(done, loss, inverter)
    return inverter


def save_inverter(inverter: Inverter, uri: str) -> None:
    """Write all that an inverter has learnt as safetensors, atomically."""
    storage.write_bytes(uri, save(inverter.state()))


def load_inverter(inversion: Inversion, uri: str, device: str = "cpu") -> Inverter:
    """The inverter of a file; ``inversion`` are the settings with which it learnt.

    Raises:
        BadInputError: the file is missing, no safetensors, or of other settings.
    """
    try:
        state = load(storage.read_bytes(uri))
    except (FileNotFoundError, SafetensorError) as error:
        raise BadInputError(f"cannot read the inverter {uri}: {error}") from error
    inverter = inversion.build(device)
    try:
        inverter.load_state(state)
    except (KeyError, RuntimeError) as error:
        raise BadInputError(f"{uri} is of another inverter than {inversion.name}") from error
    return inverter
