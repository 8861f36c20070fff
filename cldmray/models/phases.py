"""One phase of an image model's training: the loop, its schedule, its checkpoints (Ray Train)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from cldmray.engine.training import last_checkpoint, worker_range

STATE_FILE = "state.pt"

Curve = list[dict[str, float]]
"""Points ``step`` and ``loss``, the mean since the point before."""


@dataclass(frozen=True)
class PhaseConfig:
    """Schedule of one training phase.

    Attributes:
        steps: optimiser steps.
        batch: images a step, over all workers.
        learning_rate: its peak; linear warm-up, constant, then a cosine to 1 % of it.
        warmup: steps of the warm-up.
        decay_from: share of the steps after which the cosine starts.
        ema: decay of the averaged weights that are kept in the end; 0 keeps the last ones.
    """

    max_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 50
    decay_from: float = 0.4
    ema: float = 0.0

    def __post_init__(self) -> None:
        for key in ("max_steps", "batch_size", "warmup_steps"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1, got {getattr(self, key)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: must be above 0, got {self.learning_rate}")
        for key in ("decay_from", "ema"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"{key}: must be in [0, 1), got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What every training of images needs beside its phases.

    Attributes:
        storage: folder of Ray Train's checkpoints; a run of the same ``name`` there is resumed.
        name: begins the names of the folders there.
        seed: of the starting weights, the variants and the batches.
        variants: versions of each image: 1 itself, 2 mirrored, further ones shifted and scaled.
        precision: ``bf16``, ``fp16`` or ``no`` (Accelerate's mixed precision).
        checkpoint_every: steps between two checkpoints (and two lines of progress).
        workers: of the training, or the fewest.
        max_workers: the most; None keeps ``workers``.
        use_gpu, threads: of each worker.
    """

    storage: str
    name: str
    seed: int = 0
    variants: int = 4
    precision: Literal["bf16", "fp16", "no"] = "bf16"
    checkpoint_every: int = 250
    workers: int = 1
    max_workers: int | None = None
    use_gpu: bool = False
    threads: int = 2

    def __post_init__(self) -> None:
        for key in ("variants", "checkpoint_every", "workers", "threads"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1, got {getattr(self, key)}")
        if self.seed < 0:
            raise ValueError(f"seed: must not be negative, got {self.seed}")
        if self.most_workers < self.workers:
            raise ValueError(f"max_workers: must be at least workers, {self.workers}, or null")

    @property
    def most_workers(self) -> int:
        """Workers that the training may have at most."""
        return self.workers if self.max_workers is None else self.max_workers

    def check_shares(self, *keys: str) -> None:
        """Raise ValueError where one of the settings is not in 0..1."""
        for key in keys:
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key}: must be in 0..1, got {getattr(self, key)}")

    def check_batch(self, phase: PhaseConfig) -> None:
        """Raise ValueError where a phase's batch has fewer images than there are workers."""
        if self.most_workers > phase.batch_size:
            key = "workers" if self.max_workers is None else "max_workers"
            raise ValueError(f"{key}: {self.most_workers} are more than a batch has images")


def learning_rate(phase: PhaseConfig, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    rate = phase.learning_rate * min(1.0, (step + 1) / phase.warmup_steps)
    late = (step / phase.max_steps - phase.decay_from) / (1 - phase.decay_from)
    if late > 0:
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * late))
    return rate


class Share:
    """One worker's part of a step's batch.

    The whole batch and all that is drawn for it depend on (seed, step) only, so that a resumed run
    repeats the undisturbed one, and workers may come and go.

    Args:
        size: number of training images.
        rank, workers: which part.

    Attributes:
        batch: images in the whole batch.
        index: of this worker's images among the training images.
        generator: draws for the whole batch; see :meth:`own`.
        weight: of this worker's mean loss in the mean over workers.
    """

    def __init__(
        self, size: int, phase: PhaseConfig, seed: int, step: int, rank: int, workers: int
    ) -> None:
        self._part = slice(rank, None, workers)
        self.batch = phase.batch_size
        chosen = np.random.default_rng([seed, step]).integers(0, size, phase.batch_size)
        self.index = torch.from_numpy(chosen[self._part])
        self.generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        self.weight = len(self.index) * workers / phase.batch_size

    def own(self, drawn: Tensor) -> Tensor:
        """This worker's rows of what was drawn for the whole batch."""
        return drawn[self._part]


class Fitted(NamedTuple):
    """Final weights of a phase and its learning curve."""

    weights: dict[str, Tensor]
    curve: Curve


def fit(loop: Callable[..., None], name: str, training: TrainingRun, **config: Any) -> Fitted:
    """Run one phase on the cluster; where it was cut off before, it goes on.

    Args:
        loop: Ray Train worker function that ends in :func:`run_phase`.
        name: of the phase; its folder is ``<training.name>-<name>`` in ``training.storage``.
        config: what the loop gets beside ``training``.
    """
    trainer = TorchTrainer(
        loop,
        train_loop_config={"training": training, **config},
        scaling_config=ScalingConfig(
            num_workers=worker_range(training.workers, training.max_workers),
            use_gpu=training.use_gpu,
            resources_per_worker=None if training.use_gpu else {"CPU": 0.5},
        ),
        run_config=RunConfig(
            name=f"{training.name}-{name}",
            storage_path=str(Path(training.storage).expanduser().absolute()),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    with last_checkpoint(trainer, name) as folder:
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    return Fitted(state["final"], state["curve"])


def open_accelerator(training: TrainingRun) -> Accelerator:
    """Accelerate as a run's settings want it, with threads and random start set."""
    torch.manual_seed(training.seed)
    accelerator = Accelerator(mixed_precision=training.precision, cpu=not training.use_gpu)
    torch.set_num_threads(training.threads)
    return accelerator


def run_phase(
    phase: PhaseConfig,
    training: TrainingRun,
    accelerator: Accelerator,
    model: torch.nn.Module,
    size: int,
    loss_of: Callable[[torch.nn.Module, Share], Tensor],
) -> None:
    """The loop that both phases share: resume, step, average, report, checkpoint.

    Args:
        size: number of training images.
        loss_of: mean loss of the wrapped model over a share of a batch.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, phase.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    average = EMAModel(parameters, decay=phase.ema) if phase.ema else None
    curve = _restore(model, optimizer, average)
    first = int(curve[-1]["step"]) if curve else 0
    losses: list[float] = []
    for step in range(first, phase.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase, step)
        share = Share(size, phase, training.seed, step, rank, workers)
        loss = share.weight * loss_of(wrapped, share)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if average:
            average.step(parameters)
        losses.append(float(loss.detach()))
        done = step + 1
        if done % training.checkpoint_every == 0 or done == phase.max_steps:
            curve.append({"step": done, "loss": float(np.mean(losses))})
            _report(curve, rank, model, optimizer, average)
            losses.clear()


def _restore(model: torch.nn.Module, optimizer: Any, average: EMAModel | None) -> Curve:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, STATE_FILE), map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average:
        average.load_state_dict(state["average"])
    return list(state["curve"])


def _report(
    curve: Curve,
    rank: int,
    model: torch.nn.Module,
    optimizer: Any,
    average: EMAModel | None,
) -> None:
    with TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            print(f"step {curve[-1]['step']:.0f}, loss {curve[-1]['loss']:.5f}", flush=True)
            parameters = list(model.parameters())
            state: dict[str, Any] = {
                "curve": curve,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict() if average else {},
            }
            if average:
                average.store(parameters)
                average.copy_to(parameters)
                state["final"] = {k: v.clone() for k, v in model.state_dict().items()}
                average.restore(parameters)
            else:
                state["final"] = state["model"]
            torch.save(state, Path(folder, STATE_FILE))
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(dict(curve[-1]), checkpoint=checkpoint)
