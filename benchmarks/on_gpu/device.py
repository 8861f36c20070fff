"""What a device can do and what it did: matrix peak, idle share, peak memory."""

import gc
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

GIB = 2**30
OUT_OF_MEMORY, NOT_INSTALLED = "out of memory", "not installed"
EXPECTED = (OUT_OF_MEMORY, NOT_INSTALLED)
"""Failures that are findings; all others are faults."""


class Device(NamedTuple):
    """Where everything is measured.

    Attributes:
        torch: name of the torch device, ``cuda`` or ``cpu``.
        name: of the hardware.
    """

    torch: str
    name: str

    @property
    def is_gpu(self) -> bool:
        """Whether there is anything to say on its memory and idle time."""
        return self.torch == "cuda"

    def wait(self) -> None:
        """Until everything that was launched is done."""
        if self.is_gpu:
            torch.cuda.synchronize()


def find(quick: bool) -> Device:
    """The CUDA device; with ``quick`` the CPU.

    Raises:
        SystemExit: there is no CUDA device; the message says what to do.
    """
    if quick:
        return Device("cpu", "CPU, quick: numbers mean nothing")
    if not torch.cuda.is_available():
        raise SystemExit(
            f"no CUDA device: torch {torch.__version__} sees none, and these numbers are of a GPU. "
            "On a GPU machine check nvidia-smi and that torch is not a CPU build. "
            "--quick runs everything, tiny, on the CPU, to see that it works."
        )
    return Device("cuda", torch.cuda.get_device_name())


def versions(device: Device) -> dict[str, str]:
    """What the numbers depend on besides the code."""
    import diffusers

    versions = {
        "device": device.name,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    if device.is_gpu:
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return versions


def matrix_peak(device: Device, sides: Iterable[int], seconds: float = 0.5) -> float:
    """Best FLOP/s of a bf16 product of square matrices, over several sides.

    Args:
        sides: rows of the matrices.
        seconds: that each is repeated for, about.
    """
    best = 0.0
    for side in sides:
        left, right = (
            torch.randn(side, side, device=device.torch, dtype=torch.bfloat16) for _ in range(2)
        )

        def repeat(times: int, left: torch.Tensor = left, right: torch.Tensor = right) -> float:
            device.wait()
            started = time.perf_counter()
            for _ in range(times):
                left @ right
            device.wait()
            return time.perf_counter() - started

        repeat(3)
        times = max(1, int(seconds / max(repeat(3) / 3, 1e-9)))
        best = max(best, 2 * side**3 * times / repeat(times))
    return best


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def idle_share(device: Device, function: Callable[[], object]) -> float | None:
    """Share of the time of ``work`` in which the GPU did nothing.

    An upper bound: the profiler makes launching a little slower.
    """
    if not device.is_gpu:
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    device.wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        function()
        device.wait()
        wall = time.perf_counter() - started
    events: Any = profiler.events()
    busy = covered(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )
    return max(0.0, 1 - busy * 1e-6 / wall)


def fresh_memory(device: Device) -> None:
    """Give back what nobody holds any more, and begin to watch the peak anew."""
    gc.collect()
    if device.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: Device) -> float | None:
    """Most that torch had given out at once since :func:`fresh_memory`, GiB; None without a GPU."""
    return torch.cuda.max_memory_allocated() / GIB if device.is_gpu else None


def failure(error: Exception) -> str:
    """What becomes of one row, so that an unattended run goes on with the next."""
    if isinstance(error, torch.OutOfMemoryError):
        return OUT_OF_MEMORY
    traceback.print_exception(error)
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".replace("|", "/")


def number(value: float | None, form: str) -> str:
    """A number, or a dash for none."""
    return "-" if value is None else format(value, form)
