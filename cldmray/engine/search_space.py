"""What a search varies, and how it is run."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

Objective = Literal["rank_1", "cosine", "margin"]

BUDGET = "budget"
"""Key of the query budget in a search space; all others are settings of the inverter."""


@dataclass(frozen=True)
class Dimension:
    """One setting that is varied: either ``choose``, or ``low`` and ``high``.

    Attributes:
        choose: the values, plain data.
        low, high: bounds of a number, both included.
        log: whether it is spread evenly over its logarithm.
        whole: whether it is a whole number.
    """

    choose: list[Any] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if self.choose is not None:
            if not self.choose or self.low is not None or self.high is not None:
                raise ValueError("choose: name at least one value, and neither low nor high")
            return
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(
                f"low: give either choose, or low below high, got {self.low}, {self.high}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"low: must be above 0 where log is true, got {self.low}")

    @property
    def extremes(self) -> list[Any]:
        """All values of ``choose``, or both bounds: if they fit, all values do."""
        if self.choose is not None:
            return self.choose
        return [self.value(bound) for bound in (self.low, self.high)]

    def value(self, drawn: Any) -> Any:
        """The setting's value, from what was drawn of :meth:`domain`."""
        if self.choose is not None:
            return json.loads(drawn)
        return round(drawn) if self.whole else float(drawn)

    def domain(self) -> Any:
        """The dimension as Ray Tune knows it; values of ``choose`` as JSON texts."""
        from ray import tune

        if self.choose is not None:
            return tune.choice([json.dumps(value, sort_keys=True) for value in self.choose])
        low, high = float(self.low or 0), float(self.high or 0)
        if self.whole:
            # Ray Tune leaves the upper bound of whole numbers out.
            bounds = round(low), round(high) + 1
            return tune.lograndint(*bounds) if self.log else tune.randint(*bounds)
        return tune.loguniform(low, high) if self.log else tune.uniform(low, high)


@dataclass(frozen=True)
class SearchSettings:
    """How the best inverter is searched.

    Attributes:
        trials: inverters that are tried; 0 searches none.
        inverter: key of the one whose settings are varied.
        concurrent: trials at a time, at most.
        cpus, gpus: of one trial, which may be parts of one.
        objective: what is made large, by the validator on validation people: ``rank_1``;
            ``cosine``, which tells more where few are named, but rises for the average face too;
            or ``margin``, which takes off what is common to all people.
        seed: of the choice of settings.
        grace: optimiser steps before a trial may be stopped.
        reduction: at each further look, so many times later, one of so many trials goes on.
        space: what is varied: dotted settings of the inverter, and ``budget``, the queries.
    """

    trials: int = 0
    inverter: str = "unet"
    concurrent: int = 1
    cpus: float = 0.5
    gpus: float = 0.0
    objective: Objective = "cosine"
    seed: int = 0
    grace: int = 100
    reduction: int = 3
    space: dict[str, Dimension] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("trials", "seed", "cpus", "gpus"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}: must not be negative, got {getattr(self, key)}")
        for key in ("concurrent", "grace"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1, got {getattr(self, key)}")
        if not self.cpus and not self.gpus:
            raise ValueError("cpus: must be above 0 where gpus is 0")
        if self.reduction < 2:
            raise ValueError(f"reduction: must be at least 2, got {self.reduction}")
        if self.trials and not self.space:
            raise ValueError("space: name what is to be varied")
