"""Diffusion settings that differ in how much of the condition they are given."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from cldmray.anonymizers.base import AnonymizerBase
from cldmray.anonymizers.diffusion.settings import Diffusion, Mode
from cldmray.conditions.coarse import Coarse


class AblationGrid(NamedTuple):
    """Settings that differ in their control scale only.

    Attributes:
        none: name of the same setting without a condition; None where there is none.
        names: of the others, by rising scale.
        scales: of each, > 0: the largest of its controls'.
    """

    none: str | None
    names: list[str]
    scales: list[float]


def scale_of(anonymizer: Diffusion) -> float:
    """The largest scale of the setting's controls; 0 without any."""
    return max(
        (control.controlnet_conditioning_scale for control in anonymizer.controls.values()),
        default=0.0,
    )


def with_scale(anonymizer: Diffusion, factor: float) -> Diffusion:
    """The setting with all control scales times ``factor``; at 0 without controls.

    A control at scale 0 adds nothing to the image, so that both are the same image by image.
    """
    if factor == 1 or not anonymizer.controls:
        return anonymizer
    if factor == 0:
        return replace(anonymizer, controls={}, label=None)
    controls = {
        name: replace(
            control, controlnet_conditioning_scale=control.controlnet_conditioning_scale * factor
        )
        for name, control in anonymizer.controls.items()
    }
    return replace(anonymizer, controls=controls, label=_extended(anonymizer, f"x{factor:g}"))


def with_coarse_condition(anonymizer: Diffusion, factor: int) -> Diffusion:
    """The setting with condition maps reduced by ``factor`` (:class:`Coarse`); named after it."""
    if factor == 1 or not anonymizer.controls:
        return anonymizer
    controls = {
        name: replace(control, condition=Coarse(control.condition, factor))
        for name, control in anonymizer.controls.items()
    }
    return replace(anonymizer, controls=controls, label=f"{anonymizer.name}-coarse{factor}")


def with_init_image(anonymizer: Diffusion, strength: float | None) -> Diffusion:
    """The setting from the noised image at a strength; None leaves it as it is.

    ``inpaint`` stays: it starts from the image too.
    """
    if strength is None:
        return anonymizer
    mode: Mode = "inpaint" if anonymizer.mode == "inpaint" else "img2img"
    changed = replace(anonymizer, mode=mode, strength=strength)
    return replace(changed, label=_extended(anonymizer, f"{mode}-{strength}"))


def _extended(anonymizer: Diffusion, ending: str) -> str | None:
    return None if anonymizer.label is None else f"{anonymizer.label}-{ending}"


def ablation_grids(anonymizers: Iterable[AnonymizerBase]) -> list[AblationGrid]:
    """The diffusion settings with a condition, grouped, in the order of their first members."""
    settings = [candidate for candidate in anonymizers if isinstance(candidate, Diffusion)]
    none_of = {_without(one): one.name for one in settings if not scale_of(one)}
    groups: dict[str, list[Diffusion]] = {}
    for anonymizer in settings:
        if scale_of(anonymizer):
            groups.setdefault(_unscaled(anonymizer), []).append(anonymizer)
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda one: (scale_of(one), one.name))
        names, scales = [one.name for one in ordered], [scale_of(one) for one in ordered]
        found.append(AblationGrid(none_of.get(_without(ordered[0])), names, scales))
    return found


def conditioned(anonymizers: Mapping[str, AnonymizerBase]) -> dict[str, Diffusion]:
    """Those members, by key, that are diffusion with a condition that acts."""
    return {
        key: anonymizer
        for key, anonymizer in anonymizers.items()
        if isinstance(anonymizer, Diffusion) and scale_of(anonymizer)
    }


def same_images(first: Diffusion, second: Diffusion) -> bool:
    """Whether two settings draw the same, whatever they are called."""
    return _identity(first) == _identity(second)


def _without(anonymizer: Diffusion) -> str:
    return _identity(replace(anonymizer, controls={}))


def _unscaled(anonymizer: Diffusion) -> str:
    largest = scale_of(anonymizer)
    controls = {
        name: replace(
            control,
            controlnet_conditioning_scale=round(control.controlnet_conditioning_scale / largest, 6),
        )
        for name, control in sorted(anonymizer.controls.items())
        if control.controlnet_conditioning_scale
    }
    return _identity(replace(anonymizer, controls=controls))


def _identity(anonymizer: Diffusion) -> str:
    strength = 1.0 if anonymizer.mode == "text2img" else anonymizer.strength
    return repr(replace(anonymizer, label=None, name_prefix="any", strength=strength))
