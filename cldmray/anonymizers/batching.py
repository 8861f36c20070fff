"""Batched runner: any number of images through an anonymizer, in batches that fit into memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np

from cldmray.anonymizers.base import AnonymizeFunction, Batch, UnusableImagesError
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


@dataclass
class Attempt:
    """One try at a batch, a context manager that takes note of memory that has run out.

    Attributes:
        batch: to anonymize; its last image may be repeated, to fill it up.
        count: images that are wanted of it.
        finish: to be set: waits for the batch's images and returns them.
        reasons: why images are unusable, once they have been asked for, by their places.
        out_of_memory: whether smaller batches have to do its work.
    """

    batch: Batch
    count: int
    finish: Callable[[], Images] = field(init=False)
    reasons: dict[int, str] = field(default_factory=dict)
    out_of_memory: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        from cldmray.anonymizers import memory

        if error is None or not memory.is_out_of_memory(error):
            return False
        if len(self.batch) == 1:
            raise _too_little(self.batch) from error
        self.out_of_memory = True
        return True

    def images(self) -> Images:
        """The anonymized images, without those that have filled it up."""
        try:
            return self.finish()[: self.count]
        except UnusableImagesError as error:
            places = np.flatnonzero(error.unusable[: self.count]).tolist()
            self.reasons = dict.fromkeys(places, error.reason)
            return error.images[: self.count]


class BatchedRunner:
    """Anonymizes in batches; where memory runs out, batches are halved and no image is lost.

    A :class:`DeviceAnonymizeFunction` works on a batch while the images of the one before leave
    the GPU. Where it wants batches of one size, the last one is filled up with copies that are
    thrown away. The caller starts each batch itself:

    >>> import numpy as np
    >>> runner = BatchedRunner(lambda batch: 255 - batch.images, 2)
    >>> done = []
    >>> whole = Batch(["a", "b", "c"], np.zeros((3, 8, 8, 3), np.uint8), np.arange(3))
    >>> for attempt in runner.attempts(whole, done):
    ...     with attempt:
    ...         attempt.finish = runner.start(attempt.batch)
    >>> [len(images) for images in done]
    [2, 1]

    Args:
        anonymize: what an anonymizer opens into.
        size: images in a batch; None: as many as fit, in batches of equal size.
        share: of a GPU that belongs to this process, in (0, 1].
    """

    def __init__(self, anonymize: AnonymizeFunction, size: int | None, share: float = 1.0) -> None:
        self.device = anonymize if isinstance(anonymize, DeviceAnonymizeFunction) else None
        self.start = partial(_at_once, anonymize) if self.device is None else self.device.start
        self.size = size
        self.share = share
        self.one_size = self.device is not None and self.device.one_size
        self.even = size is None and not self.one_size

    def attempts(
        self, whole: Batch, done: list[Images], unusable: dict[int, str] | None = None
    ) -> Iterator[Attempt]:
        """Cut a batch of any size into batches to start, in its order.

        A batch is finished once the following one has been started.

        Args:
            whole: all images.
            done: gets the anonymized images of each batch.
            unusable: gets why images could not be made, by their places; None: that is an error.

        Raises:
            ConfigError: there is not enough memory for one image.
            BadInputError: an image could not be made, and may not be rejected.
        """
        before: Attempt | None = None
        first = 0
        while first < len(whole):
            size = self._step(whole)
            rows = list(range(first, min(first + size, len(whole))))
            filling = size - len(rows) if self.one_size else 0
            attempt = Attempt(whole.take([*rows, *[rows[-1]] * filling]), len(rows))
            yield attempt
            if attempt.out_of_memory:
                from accelerate.utils.memory import clear_device_cache

                clear_device_cache(garbage_collection=True)
                self.size = len(attempt.batch) // 2
                continue
            if before is not None:
                _take(before, done, unusable)
            before = attempt
            first += len(rows)
        if before is not None:
            _take(before, done, unusable)

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
        size: int | None = None
        with Attempt(whole.take([0]), 1) as attempt:
            size = self.device.largest_batch(attempt.batch, self.share)
        return size or DEFAULT_BATCH


def _at_once(anonymize: AnonymizeFunction, batch: Batch) -> Callable[[], Images]:
    """Anonymize on the CPU, where there is nothing to wait for."""
    try:
        images = anonymize(batch)
    except UnusableImagesError as error:
        return partial(_raise, error)
    return lambda: images


def _raise(error: Exception) -> Images:
    raise error


def _take(attempt: Attempt, done: list[Images], unusable: dict[int, str] | None) -> None:
    """Take the images of a batch, and note which of them are unusable."""
    first = sum(map(len, done))
    images = attempt.finish()[: attempt.count] if unusable is None else attempt.images()
    done.append(images)
    if unusable is not None:
        unusable |= {first + place: reason for place, reason in attempt.reasons.items()}


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
