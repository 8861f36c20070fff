"""The settings of an attribution: the variants of anonymizers that are tried and searched."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, NonNegativeFloat

from cldmray.anonymizers.base import Anonymizer
from cldmray.config.audit import AuditConfig, build_audit, refuse_audit_only
from cldmray.config.instantiate import build, to_container
from cldmray.errors import ConfigError
from cldmray.evaluation.attribution import conditioned
from cldmray.gallery.protocols import Gallery
from cldmray.settings import Count, checked_dataclass

Anonymizers = dict[str, Anonymizer]

Strength = Annotated[float, Field(gt=0, le=1)]


@checked_dataclass
class SwapSettings:
    """Whose conditions are swapped.

    Attributes:
        anonymizers: keys of settings with a condition; may be empty.
        strengths: from the image, in (0, 1], at which each is started.
    """

    anonymizers: list[str] = field(default_factory=lambda: ["cldm_canny"])
    strengths: list[Strength] = field(default_factory=lambda: [0.8])


@checked_dataclass
class OperatingPointSettings:
    """The grid in which the loosest setting under a target is searched.

    Attributes:
        anonymizer: key of the setting that is varied; None searches nothing.
        scales: factors on its control scales, >= 0.
        coarseness: pixels of the condition maps that become one, >= 1.
        strengths: from the image; None takes the setting as it is.
        target_k: a rank-1 rate of 1/k must not be exceeded.
        gallery: in which it is attacked.
        utility: what makes a setting loose.
        n_images: that utility is measured on, at most; >= 2.
    """

    anonymizer: str | None = "cldm_canny"
    scales: Annotated[list[NonNegativeFloat], Field(min_length=1)] = field(
        default_factory=lambda: [0.5, 1.0]
    )
    coarseness: Annotated[list[Count], Field(min_length=1)] = field(default_factory=lambda: [1, 4])
    strengths: Annotated[list[Strength | None], Field(min_length=1)] = field(
        default_factory=lambda: [None]
    )
    target_k: Annotated[int, Field(ge=2)] = 20
    gallery: Gallery = "source_excluded"
    utility: Literal["ssim", "edge_f1"] = "ssim"
    n_images: Annotated[int, Field(ge=2)] = 300

    def grid(self, anonymizer: Anonymizer) -> Iterator[Anonymizer]:
        """Every combination."""
        for strength in self.strengths:
            for factor in self.coarseness:
                for scale in self.scales:
                    scaled = anonymizer.with_scale(scale)
                    yield scaled.with_coarse_condition(factor).with_init_image(strength)


@checked_dataclass
class AttributionSettings:
    """What is tried beside the settings that are named.

    Attributes:
        scales: factors on the control scales of every setting with a condition, >= 0; at 0 it has
            none.
        swap: whose conditions are swapped.
        operating_point: the grid that is searched.
    """

    scales: list[NonNegativeFloat] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    swap: SwapSettings = field(default_factory=SwapSettings)
    operating_point: OperatingPointSettings = field(default_factory=OperatingPointSettings)


@dataclasses.dataclass(frozen=True)
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
    operating_point: OperatingPointSettings


def expand(audit: AuditConfig, settings: AttributionSettings) -> AttributionConfig:
    """Make all anonymizers that are tried; the same one is made once.

    Raises:
        ConfigError: a key names no setting with a condition, a value does not fit the setting, or
            two different settings get the same name.
    """
    named = conditioned(audit.anonymizers)
    anonymizers: Anonymizers = dict(audit.anonymizers)
    for key, anonymizer in named.items():
        for scale in settings.scales:
            _add(anonymizers, anonymizer.with_scale(scale), f"attribution.scales ({key})")
    swapped = []
    for key in settings.swap.anonymizers:
        where = "attribution.swap"
        anonymizer = _of(named, key, f"{where}.anonymizers")
        try:
            variants = [
                anonymizer.with_init_image(strength) for strength in settings.swap.strengths
            ]
        except ValueError as error:
            raise ConfigError(f"{where}.strengths: {error}") from error
        for variant in variants:
            _add(anonymizers, variant, f"{where}.strengths")
        swapped += [variant.name for variant in variants]
    searched: list[str] = []
    operating_point = settings.operating_point
    if operating_point.anonymizer is not None:
        where = "attribution.operating_point"
        anonymizer = _of(named, operating_point.anonymizer, f"{where}.anonymizer")
        if operating_point.gallery not in audit.audit.galleries:
            raise ConfigError(
                f"{where}.gallery: {operating_point.gallery} is not one of audit.galleries, "
                f"{', '.join(audit.audit.galleries)}"
            )
        try:
            grid = list(operating_point.grid(anonymizer))
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        for variant in grid:
            _add(anonymizers, variant, where)
        searched = list(dict.fromkeys(variant.name for variant in grid))
    return AttributionConfig(
        replace(audit, anonymizers=anonymizers), swapped, searched, operating_point
    )


def _of(named: dict[str, Anonymizer], key: str, where: str) -> Anonymizer:
    if key not in named:
        names = ", ".join(named) or "none"
        raise ConfigError(f"{where}: {key!r} is no setting with a condition; there are: {names}")
    return named[key]


def _add(anonymizers: Anonymizers, anonymizer: Anonymizer, where: str) -> None:
    for candidate in anonymizers.values():
        if candidate.name == anonymizer.name:
            if candidate.same_images(anonymizer):
                return
            raise ConfigError(f"{where}: two settings get the name {anonymizer.name!r}; set labels")
    anonymizers[anonymizer.name] = anonymizer


def build_attribution(composed: DictConfig | Mapping[str, Any]) -> AttributionConfig:
    """Check and build a whole attribution.

    Raises:
        ConfigError: a key is unknown, missing, of audits alone or has a wrong value; the message
            names it.
    """
    data = to_container(composed)
    settings: AttributionSettings = build(
        data.pop("attribution", {}), AttributionSettings, "attribution"
    )
    audit = build_audit(data)
    refuse_audit_only(audit)
    return expand(audit, settings)
