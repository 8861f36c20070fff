"""What fits into a GPU's memory, and the way out of it."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

MARGIN = 0.9
"""Share of the free memory that is planned with: fragments and workspaces take the rest."""
OUT_OF_MEMORY = (
    "ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "MPS backend out of memory",
)
"""What errors of other classes say: cuBLAS and cuDNN fail to start where nothing is left."""
MOST = 64
"""Images at once at most: from here on larger batches are no faster."""


def largest_batch(draw: Callable[[int], None], device: torch.device, share: float) -> int:
    """Images at once that a GPU's free memory holds, from the peaks of one and of two.

    Args:
        draw: draws so many images at once.
        device: of CUDA.
        share: of the GPU that belongs to this process, in (0, 1].

    Raises:
        RuntimeError: not even one image fits; :func:`is_out_of_memory` tells.
    """
    peaks = []
    for count in (1, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            draw(count)
        except Exception as error:
            if count == 1 or not is_out_of_memory(error):
                raise
            return 1
        peaks.append(torch.cuda.max_memory_allocated(device))
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    return extrapolate(peaks[0], peaks[1], min(own + free, int(total * share)))


def extrapolate(single: int, double: int, budget: int) -> int:
    """Images at once of which the peak stays within a budget, at least 1 and at most `MOST`.

    Args:
        single, double: bytes at the peak of drawing one image and two, weights included.
        budget: bytes that the process may use.
    """
    each = max(double - single, 1)
    return min(max(int((budget * MARGIN - single) // each) + 1, 1), MOST)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, so that fewer images at once may succeed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


def limit(share: float) -> None:
    """Keep this process to its share of a GPU that several processes use, where there is one."""
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor from a GPU; the returned function waits for the copy."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait
