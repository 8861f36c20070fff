"""What the trainings of image models share: settings of a run, shards of a batch, one phase."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from cldmray import storage
from cldmray.arrays import channels_last
from cldmray.attackers.nn.training import Call, Decay, Trainable, TrainingSchedule, Worker
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import TrainingResult, train, train_in_process
from cldmray.settings import Count, checked_dataclass


@checked_dataclass
class PhaseConfig:
    """Schedule of one training phase.

    Attributes:
        max_steps: optimizer steps.
        batch_size: images of one batch, over all workers.
        learning_rate: its peak; linear warm-up, constant, then a cosine to 1 % of it.
        warmup_steps: steps of the warm-up.
        decay_from: fraction of the steps after which the cosine starts.
        ema: decay of the averaged weights that are kept in the end; 0 keeps the last ones.
    """

    max_steps: Count
    batch_size: Count
    learning_rate: PositiveFloat
    warmup_steps: Count = 50
    decay_from: Decay = 0.4
    ema: Decay = 0.0

    @property
    def lasting(self) -> dict[str, Any]:
        """The settings that a training keeps when it goes on for longer, JSON-like."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("max_steps", "decay_from")
        }


@checked_dataclass(kw_only=True)
class TrainingRun:
    """What every training of images needs beside its phases.

    Attributes:
        storage: folder of the checkpoints; a run of the same ``name`` there is resumed.
        name: begins the names of the folders there.
        seed: of the initial weights, the augmented copies and the batches.
        copies_per_image: 1 takes each image as it is, 2 mirrored as well, further ones turned,
            scaled and shifted; see :func:`cldmray.models.training_images.augmented_copies`.
        precision: ``bf16``, ``fp16`` or ``fp32``.
        checkpoint_every: steps between two checkpoints, and two points of the learning curve.
        workers: of the training, or the fewest; 0 trains in the process of the job, without Ray,
            which may be stopped and killed at any time: the same command goes on from the last
            checkpoint.
        max_workers: the most; None keeps ``workers``.
        use_gpu, threads: of each worker.
    """

    storage: str
    name: str
    seed: NonNegativeInt = 0
    copies_per_image: Count = 4
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    checkpoint_every: Count = 250
    workers: NonNegativeInt = 1
    max_workers: int | None = None
    use_gpu: bool = False
    threads: Count = 2

    def __post_init__(self) -> None:
        least = max(1, self.workers)
        if self.most_workers < least:
            raise ValueError(f"max_workers: must be at least {least}, or null")

    @property
    def most_workers(self) -> int:
        """Workers that the training may have at most."""
        return max(1, self.workers) if self.max_workers is None else self.max_workers

    def schedule(self, phase: PhaseConfig) -> TrainingSchedule:
        """The phase as the training loop takes it."""
        return TrainingSchedule(
            **vars(phase),
            weight_decay=1e-3,
            beta2=0.99,
            max_grad_norm=1.0,
            precision=self.precision,
            validate_every=self.checkpoint_every,
            seed=self.seed,
        )

    @property
    def engine(self) -> EngineConfig:
        """The training workers, of which there is one at least."""
        return EngineConfig(
            train_workers=max(1, self.workers),
            max_train_workers=self.max_workers,
            gpus_per_train_worker=float(self.use_gpu),
            threads=self.threads,
        )

    def check_batch(self, phase: PhaseConfig) -> None:
        """Raise ValueError where a phase's batch has fewer images than there are workers."""
        if self.most_workers > phase.batch_size:
            key = "workers" if self.max_workers is None else "max_workers"
            raise ValueError(f"{key}: {self.most_workers} are more than a batch has images")


class BatchShard:
    """One worker's part of a step's batch.

    The whole batch and all that is drawn for it depend on (seed, step) only, so that a resumed run
    repeats the undisturbed one, and workers may come and go.

    Args:
        size: number of training images.
        batch_size: images in the whole batch.
        seed, step: decide which.
        worker: whose part.

    Attributes:
        rows: of this worker's images among the training images.
        generator: draws for the whole batch; see :meth:`local`.
        weight: of this worker's mean loss in the mean over workers.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int, step: int, worker: Worker) -> None:
        self._part = slice(worker.rank, None, worker.workers)
        self.batch_size = batch_size
        drawn = np.random.default_rng([seed, step]).integers(0, size, batch_size)
        self.rows = torch.from_numpy(drawn[self._part])
        self.generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        self.weight = worker.weight(len(self.rows), batch_size)

    def local(self, drawn: Tensor) -> Tensor:
        """This worker's rows of what was drawn for the whole batch."""
        return drawn[self._part]


class PhaseTrainable(Trainable):
    """One phase of an image model's training; see :class:`Trainable`.

    Args:
        name: of the phase.
        phase: its schedule.
        training: the run that it belongs to.
        n_images: number of training images.
    """

    def __init__(self, name: str, phase: PhaseConfig, training: TrainingRun, n_images: int) -> None:
        self.name = name
        self.schedule = training.schedule(phase)
        self.n_images = n_images

    @abstractmethod
    def build_network(self, worker: Worker) -> nn.Module:
        """The network before its first step; torch's global generator has been seeded."""

    @abstractmethod
    def mean_loss(self, shard: BatchShard, call: Call) -> Tensor:
        """Mean loss over a worker's part of a batch, a scalar."""

    def build(self, worker: Worker) -> nn.Module:
        self.worker = worker
        torch.manual_seed(self.schedule.seed)
        self.network = channels_last(self.build_network(worker)).to(worker.device)
        return self.network

    def loss(self, step: int, call: Call) -> Tensor:
        shard = BatchShard(
            self.n_images,
            self.schedule.batch_size,
            seed=self.schedule.seed,
            step=step,
            worker=self.worker,
        )
        return shard.weight * self.mean_loss(shard, call)

    def state(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(state)


def fit(trainable: PhaseTrainable, training: TrainingRun) -> TrainingResult:
    """Run one phase, on the cluster or here; where it was cut off before, it goes on.

    Its checkpoints lie in ``training.storage``, in a folder that begins with ``training.name`` and
    ends with the phase's name.

    Raises:
        CldmrayError: see :func:`cldmray.engine.training.train`.
    """
    run = f"{training.name}-{trainable.name}"
    if not training.workers:
        checkpoints = storage.join(training.storage, run)
        return train_in_process(trainable, training.threads, checkpoints)
    return train(trainable, training.engine, training.storage, run=run)
