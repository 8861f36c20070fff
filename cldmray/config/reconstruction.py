"""The settings of an inversion: which ways back are tried, and what is searched."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any

from omegaconf import DictConfig

from cldmray.attackers.pretrained import OffTheShelf
from cldmray.attackers.reconstruction.attacker import InversionRung
from cldmray.attackers.reconstruction.base import Inversion
from cldmray.attackers.reconstruction.controls import MeanFaceInversion, NearestFaceInversion
from cldmray.config.audit import AuditConfig, refuse_dry_run
from cldmray.config.instantiate import TARGET, build, plain
from cldmray.engine.tuning import BUDGET, Candidate, SearchSettings, check_tune
from cldmray.errors import CldmrayError, ConfigError
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace
from cldmray.results.reconstruction import SHUFFLED

RAW = "raw"
"""Name of the attacker who lets the judge look at the anonymized pictures as they are."""


@dataclass(frozen=True)
class InversionSettings:
    """What is inverted, and how it is judged.

    Attributes:
        inverters: the ways back, by key.
        judge: names the reconstructions; it has a part in no way back.
        validator: the attacker's own recognizer, for learning curves and the search.
        budget: queries that each way back may learn from; None: all pictures of attacker people.
        search: of better settings, before they are judged.
        grid_pictures: people shown in the grid of reconstructions, >= 0.
    """

    inverters: dict[str, Inversion]
    judge: Recognizer = field(default_factory=DlibResNet)
    validator: Recognizer = field(default_factory=SFace)
    budget: int | None = None
    search: SearchSettings = field(default_factory=SearchSettings)
    grid_pictures: int = 6

    def __post_init__(self) -> None:
        if not self.inverters:
            raise ValueError("inverters: choose at least one")
        for key, inverter in self.inverters.items():
            if inverter.is_control:
                raise ValueError(f"inverters.{key}: is a control; those are run in any case")
        if self.grid_pictures < 0:
            raise ValueError(f"grid_pictures: must not be negative, got {self.grid_pictures}")
        if self.search.trials and self.search.inverter not in self.inverters:
            raise ValueError(
                f"search.inverter: {self.search.inverter!r} is none of inverters, "
                f"{', '.join(self.inverters)}"
            )

    @property
    def searched(self) -> Inversion:
        """The inverter whose settings are varied."""
        return self.inverters[self.search.inverter]


@dataclass(frozen=True)
class InversionConfig:
    """A whole inversion, checked.

    Attributes:
        audit: its attackers are those of :meth:`with_rungs`.
        inversion: what is tried.
    """

    audit: AuditConfig
    inversion: InversionSettings

    def rung(self, inverter: Inversion, budget: int | None) -> InversionRung:
        """An attacker with one inverter."""
        settings = self.inversion
        return InversionRung(
            inverter, settings.judge, settings.validator, budget, label=inverter.name
        )

    def attempts(self, best: Candidate | None) -> list[Candidate]:
        """The ways back without their controls.

        Args:
            best: what a search has found.
        """
        settings = self.inversion
        tried = [Candidate(one, settings.budget) for one in settings.inverters.values()]
        return tried if best is None else [*tried, best]

    def raw(self) -> AuditConfig:
        """The audit with one attacker, who lets the judge look at the pictures as they are."""
        return replace(self.audit, attack={RAW: OffTheShelf(self.inversion.judge, label=RAW)})

    def with_rungs(self, best: Candidate | None) -> AuditConfig:
        """The audit with all ways back and their controls as attackers.

        Args:
            best: what a search has found.
        """
        settings = self.inversion
        rungs: dict[str, Any] = {}
        controls = [Candidate(one, settings.budget) for one in (MEAN, NEAREST)]
        for inverter, budget in [*self.attempts(best), *controls]:
            rungs[inverter.name] = self.rung(inverter, budget)
            if inverter.steps:
                shuffled = shuffled_twin(inverter)
                rungs[shuffled.name] = self.rung(shuffled, budget)
        return replace(self.audit, attack=rungs)

    def candidate(self, drawn: Mapping[str, Any]) -> Candidate:
        """What a trial tries; see :func:`make_candidate`."""
        settings = self.inversion
        return make_candidate(settings.searched, settings.budget, settings.search, drawn)

    @property
    def make(self) -> Any:
        """:meth:`candidate`, for workers."""
        settings = self.inversion
        return partial(make_candidate, settings.searched, settings.budget, settings.search)

    def check(self) -> None:
        """Find out before any work starts whether everything is there.

        Raises:
            CldmrayError: it is not; the message begins with the key.
        """
        settings = self.inversion
        parts: dict[str, Any] = {f"inverters.{k}": v for k, v in settings.inverters.items()}
        parts |= {"judge": settings.judge, "validator": settings.validator}
        for key, part in parts.items():
            try:
                part.check()
            except CldmrayError as error:
                raise type(error)(f"inversion.{key}: {error}") from error
        for key, inverter in settings.inverters.items():
            try:
                inverter.check_judge(settings.judge)
            except CldmrayError as error:
                raise type(error)(f"inversion.inverters.{key}: {error}") from error
        if settings.search.trials:
            check_tune()


MEAN, NEAREST = MeanFaceInversion(), NearestFaceInversion()


def shuffled_twin(inverter: Inversion) -> Inversion:
    """The control of an inverter: the same, learnt from pairs that belong to nobody."""
    return replace(inverter, shuffled=True, label=f"{inverter.name}{SHUFFLED}")


def controls_of(inverter: Inversion) -> list[str]:
    """Names of the controls that an inverter must beat."""
    own = [shuffled_twin(inverter).name] if inverter.steps else []
    return [MEAN.name, NEAREST.name, *own]


def settings_of(value: Any) -> Any:
    """An object of settings as the plain data that :func:`cldmray.config.instantiate.build` makes it of."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        found = {item.name: settings_of(getattr(value, item.name)) for item in fields(value)}
        return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **found}
    if isinstance(value, Mapping):
        return {key: settings_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settings_of(item) for item in value]
    return value


def make_candidate(
    inverter: Inversion, budget: int | None, search: SearchSettings, drawn: Mapping[str, Any]
) -> Candidate:
    """The inverter with the values that were drawn, and its budget.

    Args:
        drawn: of each dimension, as Ray Tune hands it out.

    Raises:
        ConfigError: a value does not fit; the message names the dimension.
    """
    values = {key: search.space[key].value(value) for key, value in drawn.items()}
    return candidate_of(inverter, budget, values)


def candidate_of(inverter: Inversion, budget: int | None, values: Mapping[str, Any]) -> Candidate:
    """The inverter with other values of some dotted settings, and of ``budget``.

    Raises:
        ConfigError: there is no such setting, or the value does not fit; the message names it.
    """
    node = settings_of(inverter)
    for key, value in values.items():
        if key == BUDGET:
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{BUDGET}: must be null or at least 1, got {value!r}")
            budget = value
            continue
        *groups, last = key.split(".")
        place = node
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {inverter.name} has no settings {group}")
        place[last] = value
    made: Inversion = build(node, Inversion, "")
    return Candidate(made, budget)


def check_space(settings: InversionSettings) -> None:
    """Try the extremes of every dimension.

    Raises:
        ConfigError: one does not fit; the message names the dimension.
    """
    for key, dimension in settings.search.space.items():
        for value in dimension.extremes:
            try:
                candidate_of(settings.searched, settings.budget, {key: value})
            except ConfigError as error:
                raise ConfigError(f"inversion.search.space.{key}: {error}") from error


def build_inversion(composed: DictConfig) -> InversionConfig:
    """Check and build a whole inversion.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; the message names it.
    """
    data = plain(composed)
    settings: InversionSettings = build(data.pop("inversion", {}), InversionSettings, "inversion")
    data["attack"] = {RAW: settings_of(OffTheShelf(settings.judge, label=RAW))}
    audit: AuditConfig = build(data, AuditConfig, "")
    refuse_dry_run(audit)
    if audit.audit.attacker_seeds > 1:
        raise ConfigError(
            "audit.attacker_seeds: must be 1 here; give inversion.inverters another one with "
            f"another training.seed and label instead, got {audit.audit.attacker_seeds}"
        )
    config = InversionConfig(audit, settings)
    if settings.search.trials:
        check_space(settings)
    try:
        config.with_rungs(None)
    except ValueError as error:
        raise ConfigError(f"inversion.{error}") from error
    return config
