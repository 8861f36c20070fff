"""Contrastive batches larger than memory: the exact gradient, a chunk of images at a time.

A contrastive loss needs the embeddings of the whole batch, but not the network's activations: the
images go through the network twice, the first time without remembering, and each chunk's
activations live only while the gradient of its own embeddings flows back.

Source: Gao, Zhang, Han and Callan, "Scaling deep contrastive learning batch size under memory
limited setup", 2021.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


class RandomState(NamedTuple):
    """Where torch's global generators stand, that of the CPU and that of one CUDA device.

    Attributes:
        cpu: state of the CPU's generator.
        device: the CUDA device; None without one.
        cuda: state of its generator.
    """

    cpu: Tensor
    device: torch.device | None
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> "RandomState":
        """The state before what is computed next on a device."""
        if device.type != "cuda":
            return cls(torch.get_rng_state(), None, None)
        return cls(torch.get_rng_state(), device, torch.cuda.get_rng_state(device))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers once more; afterwards go on as if nothing had been drawn."""
        with torch.random.fork_rng([] if self.device is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.device is not None and self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield


class Chunk(NamedTuple):
    """Images that went through the network at once, and the random numbers they met there.

    Attributes:
        images: shape (n, 3, height, width), n at most the chunk size.
        rows: their place among the embeddings of their call.
        embeddings: of the whole call, shape (N, d); a leaf that receives the loss's gradient.
        random: state before they went through.
    """

    images: Tensor
    rows: slice
    embeddings: Tensor
    random: RandomState


class GradientCache:
    """Stands in for an encoder while a step's loss is computed, and takes its gradient back.

    A chunk meets the same dropout both times. The gradient is that of the plain loss, but for
    rounding, where images do not influence each other's embeddings, as with group and layer
    normalisation. Batch normalisation normalises each chunk by itself, as it would a batch of that
    size: the gradient is then exact for that forward pass, which is not the one of the whole batch.
    Its running statistics count every chunk once.

    Args:
        encode: embeds images, in chunks that may differ in size; calls ``network``.
        chunk: images that go through at once, >= 1.
        network: whose parameters receive the gradient. In DistributedDataParallel, workers are
            averaged once, with the last chunk, and each must embed as many chunks as the others.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], chunk: int, network: nn.Module) -> None:
        self.encode = encode
        self.chunk = chunk
        self.network = network
        self._chunks: list[Chunk] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Embeddings of N >= 1 images, shape (N, d), as the loss takes them."""
        parts, states = [], []
        with torch.no_grad():
            for part in images.split(self.chunk):
                states.append(RandomState.now(part.device))
                parts.append(self.encode(part))
        embeddings = torch.cat(parts).requires_grad_()
        for number, random in enumerate(states):
            rows = slice(number * self.chunk, (number + 1) * self.chunk)
            self._chunks.append(Chunk(images[rows], rows, embeddings, random))
        return embeddings

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the network's parameters, and forget the images.

        Args:
            loss: scalar; depends on the network through the embeddings of all calls since the
                last :meth:`backward`, and in no other way.
        """
        loss.backward()
        chunks, self._chunks = self._chunks, []
        for number, chunk in enumerate(chunks, 1):
            gradient = chunk.embeddings.grad
            if gradient is None:
                raise ValueError("the loss does not depend on the embeddings of every call")
            with self._apart(number < len(chunks)), chunk.random.again():
                with unrecorded(self.network):
                    embeddings = self.encode(chunk.images)
                torch.autograd.backward(embeddings, gradient[chunk.rows])

    def _apart(self, more: bool) -> AbstractContextManager[None]:
        """Leaves the averaging over workers to a later chunk, where there is one."""
        if more and isinstance(self.network, DistributedDataParallel):
            apart: AbstractContextManager[None] = self.network.no_sync()
            return apart
        return nullcontext()


@contextmanager
def unrecorded(network: nn.Module) -> Iterator[None]:
    """Let batch normalisation in training leave its running statistics as they are."""
    recording = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    for module in recording:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in recording:
            module.track_running_stats = True
