"""The settings of an attribution: which settings are made of those that are named, and searched."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from omegaconf import DictConfig

from cldmray.anonymizers.base import Anonymizer, GroupAnonymizer
from cldmray.anonymizers.diffusion.settings import Diffusion
from cldmray.config.audit import AuditConfig, refuse_dry_run
from cldmray.config.instantiate import build, plain
from cldmray.errors import ConfigError
from cldmray.evaluation.ablation import coarsened, conditioned, same_pictures, scaled, started
from cldmray.gallery.protocols import Gallery

Members = dict[str, Anonymizer | GroupAnonymizer]


@dataclass(frozen=True)
class SwapSettings:
    """Whose conditions are swapped.

    Attributes:
        anonymizers: keys of settings with a condition; may be empty.
        strengths: from the photograph, in (0, 1], at which each is started.
    """

    anonymizers: list[str] = field(default_factory=lambda: ["cldm_canny"])
    strengths: list[float] = field(default_factory=lambda: [0.8])


@dataclass(frozen=True)
class BoundarySettings:
    """The grid in which the loosest setting under a target is searched.

    Attributes:
        anonymizer: key of the setting that is varied; None searches nothing.
        scales: factors on its control scales, >= 0.
        coarseness: pixels of the condition maps that become one, >= 1.
        strengths: from the photograph; None takes the setting as it is.
        target_k: a rank-1 rate of 1/k must not be exceeded.
        gallery: in which it is attacked.
        utility: what makes a setting loose.
        pictures: that utility is measured on, at most; >= 2.
    """

    anonymizer: str | None = "cldm_canny"
    scales: list[float] = field(default_factory=lambda: [0.5, 1.0])
    coarseness: list[int] = field(default_factory=lambda: [1, 4])
    strengths: list[float | None] = field(default_factory=lambda: [None])
    target_k: int = 20
    gallery: Gallery = "source_excluded"
    utility: Literal["ssim", "edge_f1"] = "ssim"
    pictures: int = 300

    def __post_init__(self) -> None:
        for key in ("scales", "coarseness", "strengths"):
            if not getattr(self, key):
                raise ValueError(f"{key}: name at least one")
        for key in ("target_k", "pictures"):
            if getattr(self, key) < 2:
                raise ValueError(f"{key}: must be at least 2, got {getattr(self, key)}")

    def grid(self, setting: Diffusion) -> Iterator[Diffusion]:
        """Every combination."""
        for strength in self.strengths:
            for factor in self.coarseness:
                for scale in self.scales:
                    yield started(coarsened(scaled(setting, scale), factor), strength)


@dataclass(frozen=True)
class AttributionSettings:
    """What is tried beside the settings that are named.

    Attributes:
        scales: factors on the control scales of every setting with a condition, >= 0; at 0 it has
            none.
        swap, boundary: see their classes.
    """

    scales: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    swap: SwapSettings = field(default_factory=SwapSettings)
    boundary: BoundarySettings = field(default_factory=BoundarySettings)

    def __post_init__(self) -> None:
        for key, scales in (("scales", self.scales), ("boundary.scales", self.boundary.scales)):
            if any(not scale >= 0 for scale in scales):
                raise ValueError(f"{key}: must not be negative, got {scales}")


@dataclass(frozen=True)
class AttributionConfig:
    """A whole attribution, checked.

    Attributes:
        audit: with all settings that are tried, by key or name.
        swapped: names of the settings whose conditions are swapped.
        searched: names of the settings of the boundary's grid.
        boundary: how it is searched.
    """

    audit: AuditConfig
    swapped: list[str]
    searched: list[str]
    boundary: BoundarySettings


def expand(audit: AuditConfig, settings: AttributionSettings) -> AttributionConfig:
    """Make all settings that are tried; one that is asked for twice is made once.

    Raises:
        ConfigError: a key names no setting with a condition, a value does not fit the setting, or
            two different settings get the same name.
    """
    named = conditioned(audit.anonymizer)
    members: Members = dict(audit.anonymizer)
    for key, setting in named.items():
        for scale in settings.scales:
            _add(members, scaled(setting, scale), f"attribution.scales ({key})")
    swapped = []
    for key in settings.swap.anonymizers:
        where = "attribution.swap"
        setting = _of(named, key, f"{where}.anonymizers")
        try:
            made = [started(setting, strength) for strength in settings.swap.strengths]
        except ValueError as error:
            raise ConfigError(f"{where}.strengths: {error}") from error
        for one in made:
            _add(members, one, f"{where}.strengths")
        swapped += [one.name for one in made]
    searched: list[str] = []
    boundary = settings.boundary
    if boundary.anonymizer is not None:
        where = "attribution.boundary"
        setting = _of(named, boundary.anonymizer, f"{where}.anonymizer")
        if boundary.gallery not in audit.audit.galleries:
            raise ConfigError(
                f"{where}.gallery: {boundary.gallery} is not one of audit.galleries, "
                f"{', '.join(audit.audit.galleries)}"
            )
        try:
            grid = list(boundary.grid(setting))
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        for one in grid:
            _add(members, one, where)
        searched = list(dict.fromkeys(one.name for one in grid))
    return AttributionConfig(replace(audit, anonymizer=members), swapped, searched, boundary)


def _of(named: dict[str, Diffusion], key: str, where: str) -> Diffusion:
    if key not in named:
        known = ", ".join(named) or "none"
        raise ConfigError(f"{where}: {key!r} is no setting with a condition; there are: {known}")
    return named[key]


def _add(members: Members, setting: Diffusion, where: str) -> None:
    for member in members.values():
        if member.name == setting.name:
            if isinstance(member, Diffusion) and same_pictures(member, setting):
                return
            raise ConfigError(f"{where}: two settings get the name {setting.name!r}; set labels")
    members[setting.name] = setting


def build_attribution(composed: DictConfig) -> AttributionConfig:
    """Check and build a whole attribution.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; the message names it.
    """
    data = plain(composed)
    settings: AttributionSettings = build(
        data.pop("attribution", {}), AttributionSettings, "attribution"
    )
    audit: AuditConfig = build(data, AuditConfig, "")
    refuse_dry_run(audit)
    return expand(audit, settings)
