"""The one training loop: its schedule, what it trains, its steps, learning curve and checkpoints.

Nothing in here knows Ray. :func:`cldmray.engine.training.train` runs the loop on the workers of Ray
Train, :mod:`cldmray.engine.tuning` in the trials of Ray Tune, and tests run it in
their own process.
Encoders, reconstruction models, the CLDM and the depth network are all trained by it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cldmray.attackers.nn.gradient_cache import GradientCache
from cldmray.errors import CldmrayError
from cldmray.settings import Count, Share, checked_dataclass

WEIGHTS_FILE = "weights.safetensors"
NETWORK_FILE = "network.safetensors"
STATE_FILE = "state.pt"

Point = dict[str, float]
"""Point of a learning curve: ``step``, ``loss`` (mean since the point before, over all workers; NaN
where no step is taken) and what :meth:`Trainable.validate` measures."""
Curve = list[Point]
Call = Callable[..., Any]
"""Calls a network in training, through whatever wraps it, in the precision of the schedule."""


Decay = Annotated[float, Field(ge=0, lt=1)]


@checked_dataclass(kw_only=True)
class TrainingSchedule:
    """How long, how fast and how precisely a network is trained, by AdamW.

    Attributes:
        max_steps: optimizer steps.
        batch_size: rows of one batch, over all workers.
        learning_rate: its peak; see :func:`learning_rate`.
        warmup_steps: steps of the linear warm-up.
        decay_from: fraction of the steps after which the learning rate falls, in [0, 1).
        weight_decay: of AdamW.
        beta2: of AdamW.
        max_grad_norm: norm at which gradients are clipped; None does not clip them.
        ema: decay of the averaged weights that are kept in the end, in [0, 1); 0 keeps the last.
        precision: ``bf16``, ``fp16`` or ``fp32``; see :func:`autocast`.
        validate_every: steps between two points of the learning curve, and two checkpoints.
        seed: of the weights, the batches and all else that is random.

    Raises:
        ValueError: a setting is out of range; the message begins with its name.
    """

    max_steps: Count = 400
    batch_size: Count = 128
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: Count = 40
    decay_from: Decay = 0.0
    weight_decay: NonNegativeFloat = 0.05
    beta2: Decay = 0.999
    max_grad_norm: PositiveFloat | None = None
    ema: Decay = 0.0
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    validate_every: Count = 100
    seed: NonNegativeInt = 0


@checked_dataclass(kw_only=True)
class TrainingConfig(TrainingSchedule):
    """How an encoder is trained.

    Attributes:
        batch_size: identities in one batch; the images of the others are each query's negatives.
        temperature: of the contrastive loss.
        augment: strength of the random views, 0..1.
        micro_batch_size: images that a worker sends through the network at once; the gradient is
            that of the whole batch all the same, see :mod:`cldmray.attackers.nn.gradient_cache`.
            Takes about a third more time, and memory for so many images only. None: the whole
            batch.

    >>> TrainingConfig(max_steps=100, batch_size=64).learning_rate
    0.002
    """

    batch_size: Annotated[int, Field(ge=2)] = 128
    temperature: PositiveFloat = 0.07
    augment: Share = 1.0
    micro_batch_size: Count | None = None


class RateSchedule(Protocol):
    """What the learning rate depends on; see :class:`TrainingSchedule`."""

    @property
    def max_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def decay_from(self) -> float: ...


def learning_rate(schedule: RateSchedule, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, constant, then a cosine to 1 %.

    >>> schedule = TrainingSchedule(max_steps=100, learning_rate=1.0, warmup_steps=4)
    >>> learning_rate(schedule, 0), round(learning_rate(schedule, 50), 3)
    (0.25, 0.505)
    """
    rate = schedule.learning_rate * min(1.0, (step + 1) / schedule.warmup_steps)
    late = (step / schedule.max_steps - schedule.decay_from) / (1 - schedule.decay_from)
    if late > 0:
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * late))
    return rate


@dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        rank: its number, from 0 on.
        workers: how many there are.
        device: of torch.

    >>> Worker(rank=1, workers=2).share(7)
    slice(3, 7, None)
    """

    rank: int = 0
    workers: int = 1
    device: str = "cpu"

    def share(self, size: int) -> slice:
        """Rows of a batch of ``size`` rows that are this worker's own, one after the other."""
        return slice(self.rank * size // self.workers, (self.rank + 1) * size // self.workers)

    def weight(self, rows: int, size: int) -> float:
        """Weight of the mean loss over ``rows`` own rows in the mean over workers.

        Gradients are averaged over workers, whose shares of a batch may differ in length.
        """
        return rows * self.workers / size


Data = TypeVar("Data")


def loaded(data: Data | Callable[[], Data]) -> Data:
    """What a trainable learns from: as it was given, or from a function that reads it.

    A trainable that is sent to its workers with a function stays small, and the images are read
    there.

    >>> loaded([1, 2]), loaded(lambda: [1, 2])
    ([1, 2], [1, 2])
    """
    return data() if callable(data) else data


class Trainable(ABC):
    """What the loop trains: a network, its loss, its validation.

    It is pickled and sent to every worker, which calls :meth:`build` first. All randomness must
    depend on (seed, step) and not on the worker: a resumed training then repeats the undisturbed
    one, and workers may come and go.

    Attributes:
        name: of what is trained, for messages.
        schedule: of the training.
        micro_batch_size: rows that go through the network at once, with the gradient cached; the
            loss must then call the network with one tensor. None: the whole share.
        find_unused_parameters: whether the network has parameters that its output does not depend
            on; several workers must know.
        remedy: what to change where the training diverges.
    """

    name: str
    schedule: TrainingSchedule
    micro_batch_size: int | None = None
    find_unused_parameters: bool = False
    remedy: str = "lower its training.learning_rate or raise its training.warmup_steps"

    @property
    def max_steps(self) -> int:
        """Optimizer steps; 0 where :meth:`build` takes all there is from the data."""
        return self.schedule.max_steps

    def check(self, workers: int) -> None:  # noqa: B027
        """Find out before any work starts whether so many workers can train it.

        Raises:
            CldmrayError: they cannot; the message names the key.
        """

    @abstractmethod
    def build(self, worker: Worker) -> nn.Module | None:
        """The network before its first step, on the worker's device, in training mode.

        Seeds torch's global generator before weights are drawn. Keeps the network and the worker
        for the other methods.

        Returns:
            None where there is no network to train.

        Raises:
            CldmrayError: something is missing, or the data do not fit.
        """

    @abstractmethod
    def loss(self, step: int, call: Call) -> Tensor:
        """Loss of a step, a scalar whose mean over the workers is the loss of the whole batch.

        Args:
            step: counted from 0.
            call: calls the network.
        """

    def validate(self) -> dict[str, float]:
        """What a point of the learning curve tells beside ``step`` and ``loss``.

        All workers are asked at the same time; those of rank 0 are kept. The network is in
        evaluation mode meanwhile, with the averaged weights where the schedule wants them.
        """
        return {}

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that was learnt."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` has given."""


class TrainingLoop:
    """One worker's part of a training; it can be saved at each point and go on from there.

    Args:
        trainable: what is trained; its :meth:`~Trainable.build` is called.
        worker: this process.
        wrap: puts the network into DistributedDataParallel, where there are several workers.

    Attributes:
        network: what is trained; None where nothing takes steps.
        curve: points so far.
        step: steps taken so far.

    Raises:
        CldmrayError: the trainable cannot be built on one of the workers; all of them raise it.
    """

    def __init__(
        self,
        trainable: Trainable,
        worker: Worker | None = None,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self.trainable = trainable
        self.worker = worker or Worker()
        self.curve: Curve = []
        self.step = 0
        self._average: Any = None
        self.network = _built_by_all(trainable, self.worker)
        if self.network is None:
            return
        schedule = trainable.schedule
        self._called = self.network if wrap is None else wrap(self.network)
        self._parameters = list(self.network.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            schedule.learning_rate,
            betas=(0.9, schedule.beta2),
            weight_decay=schedule.weight_decay,
        )
        self._scaler = torch.amp.GradScaler(
            torch.device(self.worker.device).type, enabled=schedule.precision == "fp16"
        )
        if schedule.ema:
            from diffusers.training_utils import EMAModel

            self._average = EMAModel(self._parameters, decay=schedule.ema)

    def steps(self) -> Iterator[float]:
        """Take the steps that are left, and give this worker's loss after each.

        Between two items the network may be evaluated, saved or left as it is.
        """
        schedule = self.trainable.schedule
        chunk = self.trainable.micro_batch_size
        cache = None if chunk is None else GradientCache(self._call, chunk, self._called)
        while self.step < schedule.max_steps:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(schedule, self.step)
            loss = self.trainable.loss(self.step, cache or self._call)
            self._optimizer.zero_grad()
            if cache is None:
                self._scaler.scale(loss).backward()
            else:
                cache.backward(self._scaler.scale(loss))
            if schedule.max_grad_norm is not None:
                self._scaler.unscale_(self._optimizer)
                nn.utils.clip_grad_norm_(self._parameters, schedule.max_grad_norm)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            if self._average is not None:
                self._average.step(self._parameters)
            self.step += 1
            yield float(loss.detach())

    def points(self) -> Iterator[Point]:
        """Train, and give each point of the curve when it is reached; it is in ``curve`` then.

        A training whose loss is infinite or not a number ends at that point; see
        :func:`check_converged`.
        """
        if self.network is None:
            if not self.curve:
                yield self._point([math.nan])
            return
        schedule = self.trainable.schedule
        losses: list[float] = []
        if has_diverged(self.curve):
            return
        for loss in self.steps():
            losses.append(loss)
            if self.step % schedule.validate_every == 0 or self.step == schedule.max_steps:
                yield self._point(losses)
                losses = []
                if has_diverged(self.curve):
                    return

    def _call(self, *inputs: Any) -> Any:
        with autocast(self.trainable.schedule.precision, self.worker.device):
            return self._called(*inputs)

    def _point(self, losses: list[float]) -> Point:
        point = {"step": float(self.step), "loss": self._mean_over_workers(losses)}
        if not has_diverged([point]):
            if self.network is not None:
                self.network.eval()
            with self._kept_weights():
                point |= self.trainable.validate()
            if self.network is not None:
                self.network.train()
        self.curve.append(point)
        return point

    def _mean_over_workers(self, losses: list[float]) -> float:
        mean = torch.tensor(losses, dtype=torch.float64).mean().float().to(self.worker.device)
        if self.worker.workers > 1:
            torch.distributed.all_reduce(mean)
        return float(mean) / self.worker.workers

    @contextmanager
    def _kept_weights(self) -> Iterator[None]:
        """Within, the network has the weights that are kept: the average, where there is one."""
        if self._average is None:
            yield
            return
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        try:
            yield
        finally:
            self._average.restore(self._parameters)

    def state(self) -> dict[str, Tensor]:
        """All that was learnt, on the CPU; with averaged weights where the schedule wants them."""
        with self._kept_weights():
            state = on_cpu(self.trainable.state())
            if self._average is None:
                return state
            return {name: value.clone() for name, value in state.items()}

    def save(self, folder: str | Path) -> None:
        """Write the result so far and all that going on needs into a local folder.

        ``weights.safetensors`` is the result. ``state.pt`` holds the curve and the optimizer.
        ``network.safetensors`` is there where the result is an average: the weights behind it.
        """
        save_file(self.state(), Path(folder, WEIGHTS_FILE))
        state: dict[str, Any] = {"curve": self.curve}
        if self.network is not None:
            state["optimizer"] = self._optimizer.state_dict()
            state["scaler"] = self._scaler.state_dict()
            if self._average is not None:
                state["average"] = self._average.state_dict()
                save_file(on_cpu(self.trainable.state()), Path(folder, NETWORK_FILE))
        torch.save(state, Path(folder, STATE_FILE))

    def restore(self, folder: str | Path) -> None:
        """Go on from what :meth:`save` has written."""
        network = Path(folder, NETWORK_FILE)
        weights = network if network.exists() else Path(folder, WEIGHTS_FILE)
        self.trainable.load_state(load_file(weights))
        state = _load_state(folder)
        if self.network is not None:
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            if self._average is not None:
                self._average.load_state_dict(state["average"])
                self._average.to(self.worker.device)
        self.curve = list(state["curve"])
        self.step = int(self.curve[-1]["step"])


def _built_by_all(trainable: Trainable, worker: Worker) -> nn.Module | None:
    """The network; where one worker cannot build it, all workers raise that worker's error.

    A worker that ended alone would leave the others waiting for it.
    """
    network, error = None, None
    try:
        network = trainable.build(worker)
    except CldmrayError as own:
        error = own
    errors = [error]
    if worker.workers > 1:
        errors = [None] * worker.workers
        torch.distributed.all_gather_object(errors, error)
    for raised in errors:
        if raised is not None:
            raise raised
    return network


def _load_state(folder: str | Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(
        Path(folder, STATE_FILE), map_location="cpu", weights_only=True
    )
    return state


def saved_curve(folder: str | Path) -> Curve:
    """Learning curve of a local folder that :meth:`TrainingLoop.save` has written."""
    return list(_load_state(folder)["curve"])


def autocast(precision: str, device: str) -> torch.autocast:
    """Context in which networks compute in the precision of a schedule.

    A CPU that only emulates bf16 computes in fp32 instead: the emulation takes 3.5 times as long.
    """
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    place = torch.device(device).type
    lower = precision != "fp32" and not (
        place == "cpu" and kind == torch.bfloat16 and emulates_bf16(torch.cpu.get_capabilities())
    )
    return torch.autocast(place, kind, enabled=lower)


def emulates_bf16(capabilities: Mapping[str, object]) -> bool:
    """Whether a CPU has no instructions for products of bf16.

    Args:
        capabilities: as ``torch.cpu.get_capabilities()`` gives them.

    >>> emulates_bf16({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False})
    True
    """
    x86 = capabilities.get("architecture") == "x86_64"
    return x86 and not any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def has_diverged(curve: Curve) -> bool:
    """Whether a loss is infinite or not a number; step 0 has none."""
    return any(point["step"] and not math.isfinite(point["loss"]) for point in curve)


def check_converged(name: str, curve: Curve, remedy: str = Trainable.remedy) -> None:
    """Refuse a training whose loss became infinite or not a number.

    Raises:
        CldmrayError: it did; the message has the name and says what to change.
    """
    if has_diverged(curve):
        raise CldmrayError(f"{name}: the training diverged; {remedy}")


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state as safetensors takes it: on the CPU, contiguous."""
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}
