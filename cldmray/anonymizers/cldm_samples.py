"""Pictures that a saved CLDM draws, to look at after a training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.conditions.base import Condition
from cldmray.faces.records import Pictures


def samples(
    folder: Path, pictures: Pictures, conditions: Mapping[str, Condition]
) -> dict[str, tuple[Pictures | None, Pictures]]:
    """Redraw pictures without a condition and with each one alone.

    Args:
        folder: pipeline folder with one ``controlnet-<name>`` a condition.
        pictures: uint8 (N, size, size, 3).
        conditions: by the names of their ControlNets.

    Returns:
        By setting (``none`` and the conditions' names), condition maps (None for ``none``) and
        redrawn pictures, each uint8 (N, size, size, 3).
    """
    names = [str(number) for number in range(len(pictures))]
    seeds = np.arange(len(pictures))
    bare = Diffusion(str(folder)).open()(Batch(names, pictures, seeds, {}))
    found: dict[str, tuple[Pictures | None, Pictures]] = {"none": (None, bare)}
    for name, condition in conditions.items():
        maps = condition(pictures)
        setting = Diffusion(str(folder), {name: Control(condition, f"controlnet-{name}")})
        found[name] = (maps, setting.open()(Batch(names, pictures, seeds, {name: maps})))
    return found
