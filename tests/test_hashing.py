import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from cldmray import hashing
from cldmray.anonymizers.baselines import Blur
from cldmray.attackers.contrastive import ConditionOnly


@dataclass(frozen=True)
class Weights:
    path: str
    content: str = "first"

    def version(self) -> str:
        return self.content


@dataclass(frozen=True)
class Settings:
    numbers: tuple[int, ...] = (1, 2)
    inner: Blur = field(default_factory=Blur)


@pytest.mark.parametrize(
    ("location", "ending"),
    [
        ("Ann/1.JPG", ".JPG"),
        ("Ann/1.Lee.webp", ".webp"),
        ("Ann/A.Lee", ""),
        ("Ann/1", ""),
        ("Ann/.png", ".png"),
        ("png", ""),
    ],
)
def test_locations_name_nobody(location: str, ending: str) -> None:
    folders, _, name = location.rpartition("/")
    parts = [*filter(None, [folders]), name.removesuffix(ending)]
    assert hashing.safe_location(location) == "/".join(map(hashing.identity_hash, parts)) + ending


class TestIds:
    def test_are_these_ones_for_ever(self) -> None:
        assert hashing.digest("a", "b") == (
            "f04cdced9736a69da6103f08a4daaf8c485dd481217d218a1b4993c8c3968e13"
        )
        assert hashing.sample_id("lfw", "Ada/1") == "37014e186d9069fa"
        assert hashing.identity_hash("Ada") == "50e9c21627f3"
        assert hashing.image_seed("ab", 1, 7) == 1512085507781328365

    def test_parts_are_not_run_together(self) -> None:
        assert hashing.digest("ab", "c") != hashing.digest("a", "bc")
        assert hashing.sample_id("a", "bc") != hashing.sample_id("ab", "c")

    def test_names_that_are_no_utf8_have_an_id(self) -> None:
        name = b"\xff\xfe.jpg".decode("utf-8", "surrogateescape")
        assert len(hashing.sample_id("folder", name)) == 16
        assert hashing.fingerprint_rows([name])


class TestSeeds:
    def test_fit_signed_64_bits_and_differ(self) -> None:
        seeds = [
            hashing.image_seed(f"{place:016x}", sample, audit)
            for place in range(50)
            for sample in range(3)
            for audit in range(3)
        ]
        assert all(0 <= seed < 2**63 for seed in seeds)
        assert len(set(seeds)) == len(seeds)
        assert max(seeds) > 2**62

    def test_unit_hash_is_uniform(self) -> None:
        values = np.array([hashing.unit_hash("identity", number) for number in range(4000)])
        assert values.min() >= 0
        assert values.max() < 1
        counts, _ = np.histogram(values, 10, (0, 1))
        assert np.square(counts - 400).sum() / 400 < 28  # chi squared, 9 degrees, p = 0.001


class TestFingerprint:
    def test_ignores_key_order_only(self) -> None:
        assert hashing.fingerprint({"a": 1, "b": [2, 3]}) == hashing.fingerprint(
            {"b": [2, 3], "a": 1}
        )
        distinct = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {}]
        assert len({hashing.fingerprint(value) for value in distinct}) == len(distinct)
        assert hashing.fingerprint([1, 2]) != hashing.fingerprint([2, 1])

    def test_of_rows_ignores_their_order_but_not_their_number(self) -> None:
        assert hashing.fingerprint_rows(["x", "y"]) == hashing.fingerprint_rows(iter("yx"))
        assert hashing.fingerprint_rows(["x"]) != hashing.fingerprint_rows(["x", "x"])
        assert hashing.fingerprint_rows(["xy"]) != hashing.fingerprint_rows(["x", "y"])


class TestCanonicalize:
    def test_names_class_and_settings(self) -> None:
        described = hashing.canonicalize(Settings())
        assert described["numbers"] == [1, 2]
        assert described["inner"]["sigma"] == 4.0
        assert described["inner"]["_target_"] == "cldmray.anonymizers.baselines.Blur"

    def test_outside_content_counts(self) -> None:
        first, second = (
            hashing.canonicalize(Weights("w")),
            hashing.canonicalize(Weights("w", "second")),
        )
        assert first["_version_"] == "first"
        assert hashing.fingerprint(first) != hashing.fingerprint(second)

    def test_arrays_count_by_their_content(self) -> None:
        masks = [np.zeros((64, 64)), np.zeros((64, 64)), np.zeros((64, 64), np.float32)]
        masks[1][30, 30] = 1
        keys = [hashing.fingerprint(hashing.canonicalize({"mask": mask})) for mask in masks]
        assert len(set(keys)) == 3
        again = hashing.canonicalize({"mask": np.zeros((64, 64))})
        assert keys[0] == hashing.fingerprint(again)
        tensors = [torch.tensor([0.1234567890]), torch.tensor([0.1234567])]
        assert len({str(hashing.canonicalize(tensor)) for tensor in tensors}) == 2

    def test_reaches_into_mappings_and_sequences(self) -> None:
        described = hashing.canonicalize({"attackers": [ConditionOnly()], 3: Path("x")})
        assert described["attackers"][0]["condition"]["high"] == 160
        assert json.loads(json.dumps(described, default=str))["3"] == "x"

    @pytest.mark.parametrize("value", [{"b", "a", "c"}, frozenset("hello world")])
    def test_sets_have_the_same_fingerprint_in_every_process(self, value: set[str]) -> None:
        code = (
            "from cldmray.hashing import canonicalize, fingerprint;"
            f"print(fingerprint(canonicalize({value!r})))"
        )
        fingerprints = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={"PYTHONHASHSEED": seed},
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(fingerprints) == 1
