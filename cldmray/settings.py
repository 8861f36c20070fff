"""Settings that pydantic checks, what is wrong with them in one line, and those of the process."""

import dataclasses
import functools
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar, dataclass_transform, overload

from annotated_types import MinLen
from pydantic import ConfigDict, Field, ValidationError
from pydantic import dataclasses as pydantic_dataclasses

NOT_NEGATIVE = "0 or more"
NOT_EMPTY = "not empty"
MULTIPLE = "multiple_of"
SHOULD = re.compile(r"^\w+ should ")
"""How pydantic begins: ``Input should be a valid integer``."""
MISCALLED = {
    "missing": "must be given",
    "missing_argument": "must be given",
    "multiple_argument_values": "is given twice",
    "unexpected_keyword_argument": "there is no such setting",
    "unexpected_positional_argument": "there is no such setting",
}
"""Kinds of pydantic's errors that are a TypeError in Python, as for every other function."""
OWN_WORDS = ("value_error", "assertion_error")
"""Kinds of pydantic's errors that carry the message of a check of ours."""

NonEmpty = Annotated[str, Field(min_length=1)]
"""Text of at least one character."""
Count = Annotated[int, Field(ge=1)]
"""A whole number from 1 on."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, both ends included."""

T = TypeVar("T")


@overload
def checked_dataclass(cls: type[T], /) -> type[T]: ...


@overload
def checked_dataclass(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def checked_dataclass(cls: Any = None, /, *, kw_only: bool = False) -> Any:
    """A frozen dataclass whose values pydantic checks against the type hints, constraints included.

    A wrong value is a ``ValueError`` of one line that begins with the setting, where pydantic's
    own error takes four. Values are converted as pydantic does: a whole number given for a float
    becomes one, a list given for a tuple too. What two fields decide together is checked in
    ``__post_init__``, whose message names the field. Plain dataclasses may be derived.

    Args:
        cls: the class.
        kw_only: whether its fields are given by name only.

    >>> @checked_dataclass
    ... class Blur:
    ...     sigma: Annotated[float, Field(gt=0)] = 4.0
    >>> Blur(sigma=3)
    Blur(sigma=3.0)
    >>> Blur(sigma=-1)
    Traceback (most recent call last):
        ...
    ValueError: sigma: must be above 0, got -1
    """
    if cls is None:
        return functools.partial(checked_dataclass, kw_only=kw_only)
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    made = pydantic_dataclasses.dataclass(cls, frozen=True, kw_only=kw_only, config=config)
    check: Callable[..., None] = made.__init__

    @functools.wraps(check)
    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            check(self, *arguments, **named)
        except ValidationError as error:
            problem = error.errors()[0]
            miscalled = problem["type"] in MISCALLED and len(problem["loc"]) == 1
            raise (TypeError if miscalled else ValueError)(explain(error, type(self))) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return made


def explain(error: ValidationError, cls: Any) -> str:
    """The first problem of a pydantic dataclass in one line that begins with the setting."""
    problem = error.errors()[0]
    if not problem["loc"]:  # of __post_init__, which names the setting itself
        return str(problem.get("ctx", {}).get("error", problem["msg"]))
    key, *inner = (str(part) for part in problem["loc"] if part != "[key]")
    if key.isdecimal():  # an argument that was given by its place
        placed = [item.name for item in dataclasses.fields(cls) if item.init and not item.kw_only]
        key = placed[int(key)] if int(key) < len(placed) else f"argument {key}"
    hint = typing.get_type_hints(cls, include_extras=True).get(key)
    return f"{'.'.join([key, *inner])}: {fault(problem, hint)}"


def fault(problem: Mapping[str, Any], hint: Any) -> str:
    """What is wrong with a value, and the value.

    Args:
        problem: one of pydantic's ``ValidationError.errors()``.
        hint: type hint of the setting.
    """
    kind, text = str(problem["type"]), str(problem["msg"])
    if kind in MISCALLED:
        return MISCALLED[kind]
    if kind in OWN_WORDS:
        text = str(problem["ctx"]["error"])
    elif kind in ("too_short", "string_too_short") and problem["ctx"]["min_length"] == 1:
        text = "must not be empty"
    elif kind.startswith(("greater_than", "less_than")) and (wanted := allowed_values(hint)):
        text = "must not be negative" if wanted == NOT_NEGATIVE else f"must be {wanted}"
    return f"{SHOULD.sub('must ', text)}, got {problem['input']!r}"


def allowed_values(hint: Any) -> str:
    """The bounds in a type hint, in words; empty where there are none.

    >>> allowed_values(Annotated[float, Field(ge=0, le=1)] | None)
    'in 0..1'
    """
    for choice in choices(hint):
        if inner := [text for part in typing.get_args(choice) if (text := allowed_values(part))]:
            return inner[0]
        constraints = [
            constraint
            for item in getattr(choice, "__metadata__", ())
            for constraint in getattr(item, "metadata", (item,))
        ]
        bounds = {
            kind: getattr(constraint, kind)
            for constraint in constraints
            for kind in ("gt", "ge", "lt", "le")
            if hasattr(constraint, kind)
        }
        multiples = [f"a multiple of {c.multiple_of}" for c in constraints if hasattr(c, MULTIPLE)]
        empty = [NOT_EMPTY] if MinLen(1) in constraints else []
        if parts := [*_interval(bounds), *multiples, *empty]:
            return ", ".join(parts)
    return ""


def _interval(bounds: Mapping[str, Any]) -> list[str]:
    """The bounds in words, at most one text."""
    if {"ge", "le"} <= bounds.keys():
        return [f"in {bounds['ge']}..{bounds['le']}"]
    low, high = bounds.keys() & {"gt", "ge"}, bounds.keys() & {"lt", "le"}
    if low and high:
        opening, closing = "[" if "ge" in low else "(", "]" if "le" in high else ")"
        return [f"in {opening}{bounds[low.pop()]}, {bounds[high.pop()]}{closing}"]
    if bounds == {"ge": 0}:
        return [NOT_NEGATIVE]
    relations = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    return [f"{relations[kind]} {bound}" for kind, bound in bounds.items()]


def choices(hint: Any) -> tuple[Any, ...]:
    """The members of a union; any other type hint alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block, also for processes that are started there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
