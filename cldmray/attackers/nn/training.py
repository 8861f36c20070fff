"""The steps that train an attacker's encoder, for one process or for one of many."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from cldmray.arrays import channels_last
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.nn.gradient_cache import GradientCache


@dataclass(frozen=True)
class TrainingConfig:
    """How an encoder is trained.

    Attributes:
        steps: optimiser steps.
        batch: people in one batch; the other people's images are each query's negatives.
        learning_rate: its peak; warm-up, then a cosine to 1 %.
        warmup: steps of the warm-up.
        weight_decay: of AdamW.
        temperature: of the contrastive loss.
        augment: strength of the random views, 0..1.
        precision: ``bf16`` or ``fp32``.
        validate_every: steps between two points of the learning curve.
        micro_batch_size: images that a worker sends through the network at once; the gradient is that
            of the whole batch all the same, see :mod:`cldmray.attackers.nn.gradient_cache`. Takes
            about a third more time, and memory for so many images only. None: the whole batch.
        seed: of the weights, batches and views.
    """

    max_steps: int = 400
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 40
    weight_decay: float = 0.05
    temperature: float = 0.07
    augment: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: int = 100
    micro_batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("max_steps", "warmup_steps", "validate_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1, got {getattr(self, key)}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size: must be at least 2, got {self.batch_size}")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ValueError(
                f"micro_batch_size: must be at least 1 or null, got {self.micro_batch_size}"
            )
        for key in ("learning_rate", "temperature"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key}: must be above 0, got {getattr(self, key)}")
        for key in ("weight_decay", "seed"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"{key}: must not be negative, got {getattr(self, key)}")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment: must be in 0..1, got {self.augment}")


Call = Callable[..., Tensor]
"""Calls a network in training, by way of what wraps it."""


class Schedule(Protocol):
    """What the steps must know of a training's settings; see :class:`TrainingConfig`."""

    @property
    def max_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def precision(self) -> str: ...


class Goal(Protocol):
    """What the steps minimise; see :class:`cldmray.attackers.nn.objectives.Objective`."""

    @property
    def training(self) -> Schedule: ...
    def part(self, rank: int, workers: int) -> slice: ...
    def loss(self, step: int, part: slice, call: Call, device: torch.device, /) -> Tensor: ...


def learning_rate(training: Schedule, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, cosine to 1 %."""
    share = step / training.max_steps
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
    return training.learning_rate * min(1.0, (step + 1) / training.warmup_steps) * cosine


def starting_encoder(
    config: EncoderConfig, training: TrainingConfig, start: Mapping[str, Tensor] | None
) -> FaceEncoder:
    """The encoder before its first step; seeds torch's global generator.

    Args:
        start: weights to start from; None draws them with ``training.seed``.
    """
    torch.manual_seed(training.seed)
    encoder = FaceEncoder(config, pretrained=start is None)
    if start is not None:
        encoder.load_state_dict(start)
    return channels_last(encoder)


def optimizer_of(encoder: nn.Module, training: Schedule) -> torch.optim.Optimizer:
    """AdamW over the encoder, which must be on its device already."""
    return torch.optim.AdamW(
        encoder.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )


def training_steps(
    goal: Goal,
    encoder: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    first: int = 0,
    rank: int = 0,
    workers: int = 1,
    micro_batch_size: int | None = None,
) -> Iterator[float]:
    """Take the steps ``first`` to ``goal.training.steps - 1``, and yield the loss after each.

    The mean of all workers' losses is that of the batch. All randomness depends on (seed, step) and
    not on the workers. Between two items the encoder may be evaluated, saved or left as it is.

    Args:
        goal: an :class:`~cldmray.attackers.nn.objectives.Objective`, or one like it.
        encoder: as it is called in training; with several workers in DistributedDataParallel.
        first: steps that were taken before.
        rank, workers: which share of each batch this process takes.
        micro_batch_size: inputs that go through the encoder at once, with the gradient cached; see
            :class:`~cldmray.attackers.nn.gradient_cache.GradientCache`. The goal's loss must then
            call the encoder with one tensor. None: the whole batch, as the goal calls it.
    """
    training = goal.training
    part = goal.part(rank, workers)
    whole = goal.part(0, 1)
    # Gradients are averaged over workers, whose parts may differ in length.
    weight = (part.stop - part.start) * workers / (whole.stop - whole.start)

    def call(*inputs: Any) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            output: Tensor = encoder(*inputs)
        return output

    cache = None if micro_batch_size is None else GradientCache(call, micro_batch_size, encoder)
    for step in range(first, training.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        loss = weight * goal.loss(step, part, cache or call, device)
        optimizer.zero_grad()
        if cache is None:
            loss.backward()
        else:
            cache.backward(loss)
        optimizer.step()
        yield float(loss.detach())
