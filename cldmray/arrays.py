"""Types that all packages share: arrays of images and numbers, tensors, intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
"""RGB images, shape (N, height, width, 3), values 0..255."""
Floats = npt.NDArray[np.float64]
"""Any array of float64."""


class Interval(NamedTuple):
    """An estimate and its two-sided confidence interval, ``low <= value <= high``.

    >>> Interval(0.5, 0.4, 0.6).high
    0.6
    """

    value: float
    low: float
    high: float


Module = TypeVar("Module", bound="torch.nn.Module")


def channels_last(module: Module) -> Module:
    """The module with its weights in channels-last order; results are the same."""
    import torch

    return cast(Module, cast(Any, module).to(memory_format=torch.channels_last))


def to_device(images: npt.NDArray[np.uint8], device: torch.device | str) -> torch.Tensor:
    """An array as a tensor on a device.

    For a GPU it goes through page-locked memory, so that the copy waits for nothing and runs beside
    what the GPU is doing.
    """
    import torch

    tensor = torch.from_numpy(np.array(images))
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_unit_range(
    images: npt.NDArray[np.uint8], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """uint8 (N, height, width, 3) to float32 (N, 3, height, width) in -1..1, channels last.

    They travel to the device as bytes and are converted there.
    """
    import torch

    tensor = to_device(images, device).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
