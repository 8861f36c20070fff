"""Batched runner: any number of images through an anonymizer, in batches that fit into memory."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from cldmray.anonymizers.base import AnonymizeFunction, Batch
from cldmray.arrays import Images
from cldmray.errors import ConfigError

DEFAULT_BATCH = 64
"""Images at once where it is not known how many fit."""


@runtime_checkable
class DeviceAnonymizeFunction(Protocol):
    """An anonymizer's function whose images stay on a GPU until they are asked for."""

    @property
    def one_size(self) -> bool:
        """Whether all batches should have the same number of images."""

    def largest_batch(self, example: Batch, share: float) -> int | None:
        """Images like the example's that fit at once; None: unknown."""

    def start(self, batch: Batch) -> Callable[[], Images]:
        """Begin to anonymize; the returned function waits for the images and returns them."""


class BatchedRunner:
    """Anonymizes in batches; where memory runs out, batches are halved and no image is lost.

    A :class:`DeviceAnonymizeFunction` works on a batch while the images of the one before leave
    the GPU. Where it wants batches of one size, the last one is filled up with copies that are
    thrown away.

    Args:
        anonymize: what an anonymizer opens into.
        size: images in a batch; None: as many as fit, in batches of equal size.
        share: of a GPU that belongs to this process, in (0, 1].
    """

    def __init__(self, anonymize: AnonymizeFunction, size: int | None, share: float = 1.0) -> None:
        self.anonymize = anonymize
        self.device = anonymize if isinstance(anonymize, DeviceAnonymizeFunction) else None
        self.size = size
        self.share = share
        self.one_size = self.device is not None and self.device.one_size
        self.even = size is None and not self.one_size

    def __call__(self, whole: Batch) -> Images:
        """Anonymized images of a batch of any size, in its order.

        Raises:
            ConfigError: there is not enough memory for one image.
        """
        if not len(whole):
            return self.anonymize(whole)
        done: list[Images] = []
        finish: Callable[[], Images] | None = None
        start = 0
        while start < len(whole):
            rows = range(start, min(start + self._step(whole), len(whole)))
            following = self._attempt(whole, rows)
            if following is None:
                continue
            if finish is not None:
                done.append(finish())
            finish = following
            start += len(rows)
        if finish is not None:
            done.append(finish())
        return np.concatenate(done)

    def _step(self, whole: Batch) -> int:
        """Images in the next batch."""
        if self.size is None:
            self.size = self._fitting(whole)
            if self.one_size and len(whole) > self.size:
                self.size = _even(len(whole), self.size)
        return _even(len(whole), self.size) if self.even else self.size

    def _fitting(self, whole: Batch) -> int:
        if self.device is None:
            return DEFAULT_BATCH
        from cldmray.anonymizers import memory

        try:
            return self.device.largest_batch(whole.take([0]), self.share) or DEFAULT_BATCH
        except Exception as error:
            if memory.is_out_of_memory(error):
                raise _too_little(whole) from error
            raise

    def _attempt(self, whole: Batch, rows: Sequence[int]) -> Callable[[], Images] | None:
        """Start a batch; None: memory has run out, and the next batch will be smaller."""
        from cldmray.anonymizers import memory

        count = len(rows)
        if self.one_size and self.size is not None:
            rows = [*rows, *[rows[-1]] * (self.size - count)]
        batch = whole.take(rows)
        try:
            if self.device is None:
                drawn = self.anonymize(batch)
                return lambda: drawn
            finish = self.device.start(batch)
            return finish if len(rows) == count else lambda: finish()[:count]
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise _too_little(whole) from error
        memory.release()
        self.size = len(rows) // 2
        return None


def _too_little(whole: Batch) -> ConfigError:
    height, width = whole.images.shape[1:3]
    return ConfigError(
        f"engine.batch_size: not even one image of {width}x{height} pixels fits into the "
        "device's memory: set the anonymizer's dtype to float16 or bfloat16, or give an actor more "
        "of a GPU (engine.gpus_per_actor)"
    )


def _even(count: int, most: int) -> int:
    """Size of the batches that cut a count into as few nearly equal parts as possible."""
    return math.ceil(count / math.ceil(count / most))
