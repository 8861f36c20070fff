"""Settings are checked by pydantic, and a wrong one is a ValueError of one line with its name."""

import dataclasses
import pickle
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, PositiveFloat

from cldmray.hashing import EXCLUDED_FROM_KEY, canonicalize
from cldmray.settings import NonEmpty, allowed_values, checked_dataclass


def even(number: int) -> int:
    if number % 2:
        raise ValueError("must be even")
    return number


class Part(ABC):
    @abstractmethod
    def size(self) -> int: ...


@checked_dataclass
class Leaf(Part):
    width: Annotated[int, Field(ge=1)] = 1

    def size(self) -> int:
        return self.width


@checked_dataclass(kw_only=True)
class Settings:
    low: Annotated[float, Field(ge=0)] = 0.0
    high: float = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    kind: Literal["rgb", "bgr"] = "rgb"
    name: NonEmpty = "name"
    count: Annotated[int, AfterValidator(even)] = 2
    sides: tuple[int, int] = (1, 2)
    scales: list[Annotated[float, Field(ge=0)]] = field(default_factory=list, hash=False)
    part: Part = field(default_factory=Leaf)
    note: str = field(default="", metadata=EXCLUDED_FROM_KEY)

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high: must be at least low={self.low}, got {self.high}")


@checked_dataclass
class Named:
    model: str


@dataclasses.dataclass(frozen=True)
class Derived(Settings):
    own: int = 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": -1}, "low: must not be negative, got -1"),
        ({"low": float("nan")}, "low: must not be negative, got nan"),
        ({"share": 0}, "share: must be in (0, 1], got 0"),
        ({"share": 2}, "share: must be in (0, 1], got 2"),
        ({"kind": "grb"}, "kind: must be 'rgb' or 'bgr', got 'grb'"),
        ({"name": ""}, "name: must not be empty, got ''"),
        (
            {"low": "many"},
            "low: must be a valid number, unable to parse string as a number, got 'many'",
        ),
        ({"sides": "ab"}, "sides: must be a valid tuple, got 'ab'"),
        ({"count": 3}, "count: must be even, got 3"),
        ({"scales": [0, -1]}, "scales.1: must not be negative, got -1"),
        ({"low": 2}, "high: must be at least low=2.0, got 1.0"),
    ],
)
def test_a_wrong_value_is_one_line_that_begins_with_its_setting(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Settings(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "values", [{"part": 3}, {"low": "many"}, {"sides": [1]}, {"name": None}, {"count": 2.5}]
)
def test_a_value_of_another_type_names_its_setting(values: dict[str, Any]) -> None:
    (key,) = values
    with pytest.raises(ValueError, match=rf"^{key}[.:][^\n]*$"):
        Settings(**values)


def test_arguments_by_place_are_named_too() -> None:
    with pytest.raises(ValueError, match="^width: must be at least 1, got 0$"):
        Leaf(0)


def test_a_wrong_call_is_a_type_error_as_of_any_function() -> None:
    with pytest.raises(TypeError, match="^lo: there is no such setting$"):
        Settings(lo=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="^argument 1: there is no such setting$"):
        Leaf(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="^model: must be given$"):
        Named()  # type: ignore[call-arg]


def test_values_are_converted_so_that_equal_settings_have_equal_keys() -> None:
    written = Settings(low=0, high=3, sides=[1, 2])  # type: ignore[arg-type]
    assert written == Settings(low=0.0, high=3.0)
    assert str(canonicalize(written)) == str(canonicalize(Settings(low=0.0, high=3.0)))
    assert "note" not in canonicalize(written)


def test_they_are_frozen_hashable_and_picklable() -> None:
    settings = Settings(part=Leaf(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.low = 1.0  # type: ignore[misc]
    assert hash(settings) == hash(Settings(part=Leaf(3)))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert dataclasses.replace(settings, high=2).high == 2.0
    with pytest.raises(ValueError, match="^share: "):
        dataclasses.replace(settings, share=-1)


def test_plain_dataclasses_may_be_derived() -> None:
    assert Derived(own=2, share=0.25).share == 0.25
    assert Derived(own=2).part == Leaf()
    with pytest.raises(ValueError, match="^high: "):
        Derived(low=2.0)


def test_bounds_are_told_in_words() -> None:
    assert allowed_values(Annotated[int, Field(ge=1)] | None) == "at least 1"
    assert allowed_values(Annotated[float, Field(ge=0, lt=1)]) == "in [0, 1)"
    assert allowed_values(Annotated[float, Field(gt=0, lt=1)]) == "in (0, 1)"
    assert allowed_values(Annotated[float, Field(gt=0, le=1)]) == "in (0, 1]"
    assert allowed_values(PositiveFloat) == "above 0"
    assert allowed_values(Annotated[int, Field(gt=0, multiple_of=8)]) == "above 0, a multiple of 8"
    assert allowed_values(NonEmpty) == "not empty"
    assert allowed_values(str) == ""
