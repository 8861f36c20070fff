"""The steps that train an attacker's encoder, for one process or for one of many."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cldmray.attackers.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.gradient_cache import GradientCache
from cldmray.attackers.ladder import TrainingConfig
from cldmray.torch_layout import channels_last

Call = Callable[..., Tensor]
"""Calls a network in training, by way of what wraps it."""


class Schedule(Protocol):
    """What the steps must know of a training's settings; see :class:`TrainingConfig`."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def precision(self) -> str: ...


class Goal(Protocol):
    """What the steps minimise; see :class:`cldmray.attackers.objectives.Objective`."""

    @property
    def training(self) -> Schedule: ...
    def part(self, rank: int, workers: int) -> slice: ...
    def loss(self, step: int, part: slice, call: Call, device: torch.device, /) -> Tensor: ...


def learning_rate(training: Schedule, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, cosine to 1 %."""
    share = step / training.steps
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
    return training.learning_rate * min(1.0, (step + 1) / training.warmup) * cosine


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
    cache_chunk: int | None = None,
) -> Iterator[float]:
    """Take the steps ``first`` to ``goal.training.steps - 1``, and yield the loss after each.

    The mean of all workers' losses is that of the batch. All randomness depends on (seed, step) and
    not on the workers. Between two items the encoder may be evaluated, saved or left as it is.

    Args:
        goal: an :class:`~cldmray.attackers.objectives.Objective`, or one like it.
        encoder: as it is called in training; with several workers in DistributedDataParallel.
        first: steps that were taken before.
        rank, workers: which share of each batch this process takes.
        cache_chunk: inputs that go through the encoder at once, with the gradient cached; see
            :class:`~cldmray.attackers.gradient_cache.GradientCache`. The goal's loss must then
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

    cache = None if cache_chunk is None else GradientCache(call, cache_chunk, encoder)
    for step in range(first, training.steps):
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
