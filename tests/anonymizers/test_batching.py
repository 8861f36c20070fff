"""Batches: their sizes, their order, and what happens where memory runs out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.anonymizers import memory
from cldmray.anonymizers.base import Batch, UnusableImagesError
from cldmray.anonymizers.batching import DEFAULT_BATCH, BatchedRunner
from cldmray.arrays import Images
from cldmray.errors import BadInputError, ConfigError


def batch(count: int) -> Batch:
    """Images of one pixel, which is their number."""
    images = np.arange(3 * count, dtype=np.uint8).reshape(count, 1, 1, 3)
    return Batch([str(i) for i in range(count)], images, np.arange(count), {"map": images + 1})


def drawn(some: Batch) -> Images:
    assert [str(seed) for seed in some.seeds] == some.sample_ids
    return np.asarray(255 - some.images // 2 - some.conditions["map"] // 4)


def run(runner: BatchedRunner, whole: Batch) -> Images:
    done: list[Images] = []
    for attempt in runner.attempts(whole, done):
        with attempt:
            attempt.finish = runner.start(attempt.batch)
    return np.concatenate(done)


@dataclass
class Limited:
    """Runs out of memory above a size; the error is of CUDA's class."""

    most: int
    sizes: list[int] = field(default_factory=list)
    error: type[Exception] = torch.OutOfMemoryError

    def __call__(self, some: Batch) -> Images:
        self.sizes.append(len(some))
        if len(some) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 GiB")
        return drawn(some)


def partly(some: Batch) -> Images:
    """Cannot make the images of odd numbers."""
    odd = np.array([int(sample) % 2 == 1 for sample in some.sample_ids])
    if odd.any():
        raise UnusableImagesError("odd", drawn(some), odd)
    return drawn(some)


def test_images_that_cannot_be_made_are_told_from_the_others() -> None:
    whole, unusable, done = batch(7), dict[int, str](), list[Images]()
    runner = BatchedRunner(partly, 3)
    for attempt in runner.attempts(whole, done, unusable):
        with attempt:
            attempt.finish = runner.start(attempt.batch)
    assert unusable == {1: "odd", 3: "odd", 5: "odd"}
    np.testing.assert_array_equal(np.concatenate(done)[::2], drawn(whole)[::2])
    with pytest.raises(BadInputError, match="^odd$"):
        run(BatchedRunner(partly, 3), whole)


@dataclass
class OnDevice:
    """Leaves its images on a device that holds two batches at once."""

    most: int
    one_size: bool = False
    tells: int | None = None
    log: list[str] = field(default_factory=list)
    waiting: int = 0

    def __call__(self, some: Batch) -> Images:
        return self.start(some)()

    def largest_batch(self, example: Batch, share: float) -> int | None:
        assert len(example) == 1
        if self.most < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.log.append(f"asked {share}")
        return self.tells

    def start(self, some: Batch) -> Callable[[], Images]:
        self.log.append(f"start {len(some)}")
        if len(some) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.waiting += 1
        assert self.waiting <= 2

        def finish() -> Images:
            self.waiting -= 1
            self.log.append(f"finish {len(some)}")
            return drawn(some)

        return finish


class TestSizes:
    def test_a_given_size(self) -> None:
        anonymize = Limited(99)
        np.testing.assert_array_equal(run(BatchedRunner(anonymize, 4), batch(10)), drawn(batch(10)))
        assert anonymize.sizes == [4, 4, 2]

    def test_without_one_batches_are_even(self) -> None:
        anonymize = Limited(99)
        np.testing.assert_array_equal(
            run(BatchedRunner(anonymize, None), batch(70)), drawn(batch(70))
        )
        assert DEFAULT_BATCH == 64
        assert anonymize.sizes == [35, 35]

    def test_no_images(self) -> None:
        anonymize = Limited(99)
        assert not list(BatchedRunner(anonymize, None).attempts(batch(0), []))
        assert anonymize.sizes == []

    def test_the_device_tells_once(self) -> None:
        anonymize = OnDevice(99, tells=4)
        batches = BatchedRunner(anonymize, None, 0.5)
        for count in (10, 3):
            np.testing.assert_array_equal(run(batches, batch(count)), drawn(batch(count)))
        assert [line for line in anonymize.log if "finish" not in line] == [
            "asked 0.5",
            *["start 4", "start 4", "start 2", "start 3"],
        ]

    def test_a_batch_is_started_before_the_last_one_is_fetched(self) -> None:
        anonymize = OnDevice(99)
        np.testing.assert_array_equal(run(BatchedRunner(anonymize, 4), batch(10)), drawn(batch(10)))
        assert anonymize.log == [
            "start 4",
            "start 4",
            "finish 4",
            "start 2",
            "finish 4",
            "finish 2",
        ]

    def test_one_size_by_filling_up(self) -> None:
        anonymize = OnDevice(99, one_size=True)
        batches = BatchedRunner(anonymize, 4)
        for count in (10, 1):
            np.testing.assert_array_equal(run(batches, batch(count)), drawn(batch(count)))
        assert {line for line in anonymize.log if "start" in line} == {"start 4"}

    def test_one_size_that_suits_the_first_block(self) -> None:
        anonymize = OnDevice(99, one_size=True, tells=16)
        batches = BatchedRunner(anonymize, None)
        for count in (27, 5, 30):
            np.testing.assert_array_equal(run(batches, batch(count)), drawn(batch(count)))
        starts = [line for line in anonymize.log if "start" in line]
        assert starts == ["start 14"] * 6


class TestOutOfMemory:
    @pytest.mark.parametrize("size", [16, None])
    def test_halved_and_nothing_lost(self, size: int | None) -> None:
        anonymize = Limited(5)
        batches = BatchedRunner(anonymize, size)
        np.testing.assert_array_equal(run(batches, batch(21)), drawn(batch(21)))
        assert anonymize.sizes[:3] == ([16, 8, 4] if size else [21, 7, 3])
        before = len(anonymize.sizes)
        np.testing.assert_array_equal(run(batches, batch(12)), drawn(batch(12)))
        assert max(anonymize.sizes[before:]) <= 5

    def test_in_the_middle_on_a_device(self) -> None:
        anonymize = OnDevice(8)
        batches = BatchedRunner(anonymize, 8)
        run(batches, batch(8))
        anonymize.most = 3
        np.testing.assert_array_equal(run(batches, batch(21)), drawn(batch(21)))
        assert batches.size == 2

    def test_one_size_stays_one(self) -> None:
        anonymize = OnDevice(5, one_size=True)
        batches = BatchedRunner(anonymize, 8)
        np.testing.assert_array_equal(run(batches, batch(1)), drawn(batch(1)))
        assert anonymize.log == ["start 8", "start 4", "finish 4"]

    @pytest.mark.parametrize("anonymize", [Limited(0), OnDevice(0), OnDevice(0, one_size=True)])
    @pytest.mark.parametrize("size", [4, None])
    def test_not_even_one(self, anonymize: Any, size: int | None) -> None:
        with pytest.raises(ConfigError, match=r"^engine.batch_size: not even one image of 1x1"):
            run(BatchedRunner(anonymize, size), batch(3))

    def test_other_errors_are_not_caught(self) -> None:
        for kind in (RuntimeError, BadInputError):
            anonymize = Limited(2, error=kind)
            with pytest.raises(kind, match="out of memory"):
                run(BatchedRunner(anonymize, 4), batch(4))
            assert anonymize.sizes == [4]

    def test_what_counts_as_it(self) -> None:
        assert memory.is_out_of_memory(torch.OutOfMemoryError("x"))
        assert memory.is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
        assert memory.is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"))
        assert memory.is_out_of_memory(RuntimeError("MPS backend out of memory (8 GB)"))
        assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))
        assert not memory.is_out_of_memory(ValueError("ALLOC_FAILED"))


class TestMemory:
    def test_extrapolation(self) -> None:
        gib = 2**30
        assert memory.extrapolate(4 * gib, 5 * gib, 20 * gib) == 15
        assert memory.extrapolate(4 * gib, 5 * gib, 4 * gib) == 1
        assert memory.extrapolate(4 * gib, 4 * gib, 40 * gib) == memory.MOST
        assert memory.extrapolate(4 * gib, 5 * gib, 500 * gib) == memory.MOST

    @pytest.mark.parametrize(("share", "expected"), [(1.0, 25), (0.5, 7), (0.1, 1)])
    def test_measured_on_a_pretended_gpu(
        self, monkeypatch: pytest.MonkeyPatch, share: float, expected: int
    ) -> None:
        counts: list[int] = []
        peaks = {1: 30, 2: 32}
        for name, message in (
            ("empty_cache", lambda: None),
            ("reset_peak_memory_stats", lambda device: None),
            ("max_memory_allocated", lambda device: peaks[counts[-1]]),
            ("memory_reserved", lambda device: 26),
            ("mem_get_info", lambda device: (62, 96)),
        ):
            monkeypatch.setattr(torch.cuda, name, message)
        assert memory.largest_batch(counts.append, torch.device("cuda"), share) == expected
        assert counts == [1, 2]

    @pytest.mark.parametrize("most", [0, 1])
    def test_little_memory(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        for name in ("empty_cache", "reset_peak_memory_stats", "max_memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: 1)

        def draw(count: int) -> None:
            if count > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

        if most:
            assert memory.largest_batch(draw, torch.device("cuda"), 1.0) == 1
        else:
            with pytest.raises(torch.OutOfMemoryError):
                memory.largest_batch(draw, torch.device("cuda"), 1.0)

    def test_a_share_of_a_gpu_is_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits: list[float] = []
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        for share in (0.0, 0.25, 1.0, 2.0):
            memory.limit(share)
        assert limits == [0.25]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        memory.limit(0.25)
        assert limits == [0.25]

    def test_a_tensor_of_the_cpu_is_there_at_once(self) -> None:
        tensor = torch.arange(3)
        assert memory.to_host(tensor)() is tensor
