"""A plain function as an anonymizer."""

import dataclasses
import functools
import linecache
import logging
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from cldmray.anonymizers import Batch, FunctionAnonymizer
from cldmray.anonymizers.base import Seeds
from cldmray.anonymizers.carried import Content
from cldmray.arrays import Images
from cldmray.errors import BadInputError, ConfigError
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


@dataclasses.dataclass(slots=True)
class Slotted:
    kernel: object


class Strength(float):
    pass


class Spread:
    """Has an empty ``__dict__``, and a state that pickle keeps."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Spread, (self.value,)


def numbers(value: int) -> Any:
    array = np.arange(5000)
    array[2500] = value
    return array


@pytest.mark.parametrize(
    "made",
    [
        lambda value: Slotted(numbers(value)),
        random.Random,
        np.random.RandomState,
        lambda value: np.random.default_rng(value).integers,
        Strength,
        Spread,
        lambda value: numbers(value).astype(object),
        lambda value: np.ma.array([1, 2], mask=[value == 8, False]),
        lambda value: pa.table({"a": numbers(value)}),
        lambda value: pd.DataFrame({"a": numbers(value), "b": "text"}),
        lambda value: functools.lru_cache(with_default(value)),
        lambda value: {"a", f"b{value}", "c"},
        lambda value: range(value),
    ],
)
def test_whatever_holds_a_value_counts(made: Callable[[int], Any]) -> None:
    versions = [FunctionAnonymizer(Darkener(made(value)), "mine").version() for value in (2, 8, 2)]
    assert versions[0] == versions[2] != versions[1]


def test_attributes_of_a_function_count() -> None:
    def versions(by: int) -> str:
        def mine(images: Images, seeds: Seeds) -> Images:
            return images // mine.by  # type: ignore[attr-defined, no-any-return]

        mine.by = by  # type: ignore[attr-defined]
        return FunctionAnonymizer(mine).version()

    assert versions(2) == versions(2) != versions(3)


def in_a_notebook(source: str, name: str) -> Any:
    """``mine`` as IPython defines it: in a module without a file, its text in linecache."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"__name__": "a_notebook"}
    exec(compile(source, name, "exec"), scope)
    return scope["mine"]


@pytest.mark.parametrize(
    "source",
    [
        "import functools\ndef changed(function):\n    @functools.wraps(function)\n"
        "    def run(images, seeds):\n        return function(images, seeds) // {}\n"
        "    return run\n@changed\ndef mine(images, seeds):\n    return images\n",
        "class Mine:\n    def __call__(self, images, seeds):\n        return images // {}\n"
        "mine = Mine()\n",
        "class Base:\n    by = {}\nclass Mine(Base):\n"
        "    def __call__(self, images, seeds):\n        return images // self.by\n"
        "mine = Mine()\n",
    ],
    ids=["decorator", "class", "base"],
)
def test_the_source_of_a_notebook_counts(source: str) -> None:
    versions = [
        FunctionAnonymizer(in_a_notebook(source.format(by), f"<cell {place}>"), "mine").version()
        for place, by in enumerate((2, 2, 8))
    ]
    assert versions[0] == versions[1] != versions[2]


def test_the_version_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import cv2, logging, threading\n"
        "from cldmray.anonymizers import FunctionAnonymizer\n"
        "class Mine:\n"
        "    def __init__(self):\n"
        "        self.parts = cv2.createCLAHE(2.0), threading.Lock(), {'a', 'b', 'c'}, object()\n"
        "        self.logger = logging.getLogger('mine')\n"
        "    def __call__(self, images, seeds):\n"
        "        return images\n"
        "print(FunctionAnonymizer(Mine(), 'mine').version())\n"
    )
    command = [sys.executable, str(script)]
    versions = {
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)
    }
    assert len(versions) == 1


def test_of_a_logger_the_name_counts() -> None:
    before = FunctionAnonymizer(Darkener(logging.getLogger("mine"))).version()
    handler = logging.NullHandler()
    logging.getLogger("mine").addHandler(handler)
    assert FunctionAnonymizer(Darkener(logging.getLogger("mine"))).version() == before
    logging.getLogger("mine").removeHandler(handler)
    assert FunctionAnonymizer(Darkener(logging.getLogger("other"))).version() != before


def test_what_is_held_often_is_looked_at_once() -> None:
    value: Any = numbers(1)
    for _ in range(30):
        value = [value, value]
    content = Content()
    assert content.of(value) == Content().of(value)
    assert len(content._described) < 100


def test_what_cannot_be_pickled_counts_by_class_and_attributes() -> None:
    versions = {Content().of(value) for value in (threading.Lock(), threading.Lock())}
    assert len(versions) == 1
    assert Content().of(cv2.createCLAHE(2.0)) not in versions


def test_values_that_are_nested_too_deeply_are_refused() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(ConfigError, match=r"^mine: .* nested too deeply .* version\(\)"):
        FunctionAnonymizer(Darkener(value), "mine").version()
