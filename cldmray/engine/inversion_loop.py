"""The training of one inverter, point by point of its learning curve; it can go on from a folder.

Ray Train's workers and Ray Tune's trials run the same loop.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cldmray.attackers.inversion.base import Inversion, Inverter, TrainedInversion
from cldmray.attackers.inversion.pairs import InversionPairs
from cldmray.attackers.inversion.training import InversionGoal
from cldmray.attackers.inversion.validation import validation_point
from cldmray.attackers.recognizer import Recognizer
from cldmray.attackers.training import optimizer_of, training_steps
from cldmray.errors import BadInputError, CldmrayError

WEIGHTS = "inverter.safetensors"
STATE = "state.pt"

Point = dict[str, float]
"""``step``, ``loss`` (NaN where nothing is trained), ``validation_rank_1``, ``validation_cosine``,
``validation_margin``, ``validation_difference`` (see :func:`validation_point`) and ``queries``."""


class InversionLoop:
    """One worker's part of a training.

    Args:
        inversion: what is trained.
        pairs: that it learns from, within its budget; not shuffled yet.
        validation: pairs of other people; None measures no points (workers but the first).
        validator: embeds them.
        device: of torch.
        rank, workers: which share of each batch this process takes.
        wrap: puts the network into DistributedDataParallel.

    Attributes:
        inverter: as far as it has learnt.
        curve: points so far.

    Raises:
        CldmrayError: see :meth:`Inverter.learn` and :class:`InversionGoal`.
    """

    def __init__(
        self,
        inversion: Inversion,
        pairs: InversionPairs,
        validation: InversionPairs | None,
        validator: Recognizer,
        device: str = "cpu",
        rank: int = 0,
        workers: int = 1,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self.inversion = inversion
        self.validation = validation
        self.validator = validator
        self.device = torch.device(device)
        self.rank, self.workers = rank, workers
        learnt = inversion.training_pairs(pairs)
        self.queries = learnt.queries
        self.inverter: Inverter = inversion.build(device)
        self.inverter.learn(learnt)
        self.curve: list[Point] = []
        self.goal: InversionGoal | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.called: nn.Module | None = None
        network = self.inverter.network
        if network is not None and isinstance(inversion, TrainedInversion):
            self.called = network if wrap is None else wrap(network)
            self.goal = InversionGoal(self.inverter, learnt, inversion.training, workers)
            self.optimizer = optimizer_of(self.called, inversion.training)

    def points(self, mean: Callable[[list[float]], float] | None = None) -> Iterator[Point]:
        """Train, and give each point of the curve when it is reached; it is in ``curve`` then.

        Args:
            mean: over the losses since the last point and over workers; None: over the former.
        """
        if self.goal is None or self.called is None or self.optimizer is None:
            if not self.curve:
                yield self._point(0, math.nan)
            return
        training = self.goal.training
        first = int(self.curve[-1]["step"]) if self.curve else 0
        losses: list[float] = []
        steps = training_steps(
            self.goal, self.called, self.optimizer, self.device, first, self.rank, self.workers
        )
        for done, loss in enumerate(steps, first + 1):
            losses.append(loss)
            if done % training.validate_every == 0 or done == training.steps:
                yield self._point(done, (mean or _mean)(losses))
                losses = []

    def _point(self, step: int, loss: float) -> Point:
        point = {"step": float(step), "loss": loss, "queries": float(self.queries)}
        if self.validation is not None:
            network = self.inverter.network
            if network is not None:
                network.eval()
            found = validation_point(self.inverter, self.validation, self.validator)
            if network is not None:
                network.train()
            point |= {f"validation_{name}": value for name, value in found.items()}
        self.curve.append(point)
        return point

    def save(self, folder: str | Path) -> None:
        """Write all that going on needs."""
        save_file(self.inverter.state(), Path(folder, WEIGHTS))
        optimizer = {} if self.optimizer is None else self.optimizer.state_dict()
        torch.save({"optimizer": optimizer, "curve": self.curve}, Path(folder, STATE))

    def restore(self, folder: str | Path) -> None:
        """Go on from what :meth:`save` has written."""
        self.inverter.load_state(load_file(Path(folder, WEIGHTS)))
        state = saved_state(folder)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.curve = list(state["curve"])


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


def saved_state(folder: str | Path) -> dict[str, Any]:
    """``optimizer`` and ``curve`` of a folder that :meth:`InversionLoop.save` has written."""
    state: dict[str, Any] = torch.load(Path(folder, STATE), map_location="cpu", weights_only=True)
    return state


def check_converged(name: str, curve: list[Point]) -> None:
    """Refuse an inverter whose loss became infinite or not a number.

    Raises:
        CldmrayError: it did; the message names the inverter and what to change.
    """
    if any(point["step"] and not math.isfinite(point["loss"]) for point in curve):
        raise CldmrayError(
            f"{name}: the training diverged; lower its training.learning_rate or raise its "
            "training.warmup"
        )


def check_validation(pairs: InversionPairs) -> None:
    """Refuse validation people of whom nobody can be named.

    Raises:
        BadInputError: nobody has a second photograph, so that ``validation_rank_1`` says nothing.
    """
    people = pairs.photo_people.tolist()
    if len(set(people)) == len(people):
        raise BadInputError(
            "inversion: no validation person has two photographs; see splits.validation_share"
        )
