"""Diffusion settings that differ in how much of the condition they are given."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from cldmray.anonymizers.base import Setting
from cldmray.anonymizers.diffusion.settings import Diffusion, Mode
from cldmray.conditions.coarse import Coarse


class Family(NamedTuple):
    """Settings that differ in their control scale only.

    Attributes:
        none: name of the same setting without a condition; None where there is none.
        names: of the others, by rising scale.
        scales: of each, > 0: the largest of its controls'.
    """

    none: str | None
    names: list[str]
    scales: list[float]


def scale_of(setting: Diffusion) -> float:
    """The largest scale of the setting's controls; 0 without any."""
    return max((control.scale for control in setting.controls.values()), default=0.0)


def scaled(setting: Diffusion, factor: float) -> Diffusion:
    """The setting with all control scales times ``factor``; at 0 without controls.

    A control at scale 0 adds nothing to the picture, so that both are the same picture by picture.
    """
    if factor == 1 or not setting.controls:
        return setting
    if factor == 0:
        return replace(setting, controls={}, label=None)
    controls = {
        name: replace(control, scale=control.scale * factor)
        for name, control in setting.controls.items()
    }
    return replace(setting, controls=controls, label=_extended(setting, f"x{factor:g}"))


def coarsened(setting: Diffusion, factor: int) -> Diffusion:
    """The setting with condition maps reduced by ``factor`` (:class:`Coarse`); named after it."""
    if factor == 1 or not setting.controls:
        return setting
    controls = {
        name: replace(control, condition=Coarse(control.condition, factor))
        for name, control in setting.controls.items()
    }
    return replace(setting, controls=controls, label=f"{setting.name}-coarse{factor}")


def started(setting: Diffusion, strength: float | None) -> Diffusion:
    """The setting from the noised picture at a strength; None leaves it as it is.

    ``inpaint`` stays: it starts from the picture too.
    """
    if strength is None:
        return setting
    mode: Mode = "inpaint" if setting.mode == "inpaint" else "img2img"
    changed = replace(setting, mode=mode, strength=strength)
    return replace(changed, label=_extended(setting, f"{mode}-{strength}"))


def _extended(setting: Diffusion, ending: str) -> str | None:
    return None if setting.label is None else f"{setting.label}-{ending}"


def families(members: Iterable[Setting]) -> list[Family]:
    """The diffusion settings with a condition, grouped, in the order of their first members."""
    settings = [member for member in members if isinstance(member, Diffusion)]
    none_of = {_without(one): one.name for one in settings if not scale_of(one)}
    groups: dict[str, list[Diffusion]] = {}
    for setting in settings:
        if scale_of(setting):
            groups.setdefault(_unscaled(setting), []).append(setting)
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda one: (scale_of(one), one.name))
        names, scales = [one.name for one in ordered], [scale_of(one) for one in ordered]
        found.append(Family(none_of.get(_without(ordered[0])), names, scales))
    return found


def conditioned(members: Mapping[str, Setting]) -> dict[str, Diffusion]:
    """Those members, by key, that are diffusion with a condition that acts."""
    return {
        key: member
        for key, member in members.items()
        if isinstance(member, Diffusion) and scale_of(member)
    }


def same_pictures(first: Diffusion, second: Diffusion) -> bool:
    """Whether two settings draw the same, whatever they are called."""
    return _identity(first) == _identity(second)


def _without(setting: Diffusion) -> str:
    return _identity(replace(setting, controls={}))


def _unscaled(setting: Diffusion) -> str:
    largest = scale_of(setting)
    controls = {
        name: replace(control, scale=round(control.scale / largest, 6))
        for name, control in sorted(setting.controls.items())
        if control.scale
    }
    return _identity(replace(setting, controls=controls))


def _identity(setting: Diffusion) -> str:
    strength = 1.0 if setting.mode == "text2img" else setting.strength
    return repr(replace(setting, label=None, family="any", strength=strength))
