"""Arrays on their way to a device."""

from typing import Any

import numpy as np
import pytest
import torch

from cldmray.arrays import to_device, to_unit_range

IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


def test_images_go_to_a_gpu_through_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is only pretended: what is asked of torch is written down, in its order."""
    asked: list[Any] = []

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        asked.append("pin")
        return tensor

    def moved(tensor: torch.Tensor, device: Any, *, non_blocking: bool = False) -> torch.Tensor:
        asked.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    to_device(IMAGES, "cuda:1")
    to_device(IMAGES, torch.device("cpu"))
    assert asked == ["pin", ("cuda:1", True), ("cpu", True)]


def test_bytes_become_numbers_around_0() -> None:
    given = IMAGES.copy()
    given.setflags(write=False)
    tensor = to_unit_range(given)
    assert tensor.shape == (2, 3, 4, 4)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([-1, 1 / 127.5 - 1, 2 / 127.5 - 1])
