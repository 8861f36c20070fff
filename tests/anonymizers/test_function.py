"""A plain function as an anonymizer."""

import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.anonymizers import Batch, FunctionAnonymizer
from cldmray.anonymizers.base import Seeds
from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.hashing import canonicalize, fingerprint


def noisy(images: Images, seeds: Seeds) -> Images:
    return np.stack(
        [
            np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)
            for image, seed in zip(images, seeds, strict=True)
        ]
    )


def batch(count: int = 3) -> Batch:
    images = np.full((count, 4, 6, 3), 7, np.uint8)
    return Batch([str(row) for row in range(count)], images, np.arange(count))


def test_images_and_seeds_reach_the_function() -> None:
    anonymizer = FunctionAnonymizer(noisy)
    anonymized = anonymizer.open()(batch())
    assert anonymizer.name == "noisy"
    assert anonymized.shape == (3, 4, 6, 3)
    np.testing.assert_array_equal(anonymized[1], noisy(batch().images[:1], np.array([1]))[0])


def test_it_travels_to_other_processes() -> None:
    anonymizer = FunctionAnonymizer(noisy)
    assert pickle.loads(pickle.dumps(anonymizer)) == anonymizer


def test_names() -> None:
    assert FunctionAnonymizer(lambda images, seeds: images).name == "function"
    assert FunctionAnonymizer(noisy, label="mine").name == "mine"
    with pytest.raises(ValueError, match="^label: "):
        FunctionAnonymizer(noisy, label="../up")
    with pytest.raises(ValueError, match="^function: must be callable, got 3"):
        FunctionAnonymizer(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images, seeds: images[:1],
        lambda images, seeds: images.astype(float),
        lambda images, seeds: None,
    ],
)
def test_other_results_are_refused(wrong: object) -> None:
    with pytest.raises(BadInputError, match=r"^function: .* uint8 images of shape \(3, 4, 6, 3\)"):
        FunctionAnonymizer(wrong).open()(batch())  # type: ignore[arg-type]


def test_what_changes_its_images_changes_its_key() -> None:
    def added(amount: object) -> FunctionAnonymizer:
        return FunctionAnonymizer(lambda images, seeds: images + amount)  # type: ignore[operator]

    keys = [
        fingerprint(canonicalize(anonymizer))
        for anonymizer in (
            FunctionAnonymizer(noisy),
            FunctionAnonymizer(noisy, "mine"),
            added(1),
            added(2),
            added(np.arange(5000)),
            added(np.arange(5000) * 2),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert keys[2] == fingerprint(canonicalize(added(1)))


def darkened(images: Images, seeds: Seeds, *, by: int = 1) -> Images:
    return images // (by + 1)


class Darkener:
    """Carries what it does in its attributes, and itself."""

    def __init__(self, by: object) -> None:
        self.by = by
        self.me = self

    def __call__(self, images: Images, seeds: Seeds) -> Images:
        return images // self.by  # type: ignore[operator]

    def run(self, images: Images, seeds: Seeds) -> Images:
        return self(images, seeds)


def with_default(value: int) -> Any:
    def inner(images: Images, seeds: Seeds, *, by: int = value) -> Images:
        return images // by

    return inner


def with_helper(value: int) -> Any:
    def helper() -> int:
        return value

    return lambda images, seeds: images // helper()


@pytest.mark.parametrize(
    "made",
    [
        lambda value: functools.partial(darkened, by=value),
        Darkener,
        lambda value: Darkener(value).run,
        with_default,
        with_helper,
        lambda value: Darkener(torch.arange(5000) * value),
        lambda value: Darkener([np.arange(5000) * value]),
        lambda value: Darkener({"deep": {value, "other"}}),
    ],
)
def test_what_a_function_carries_counts(made: Callable[[int], Any]) -> None:
    versions = [FunctionAnonymizer(made(value), "mine").version() for value in (2, 8, 2)]
    assert versions[0] == versions[2] != versions[1]
