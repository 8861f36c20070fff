"""From plain data to checked objects: every wrong key or value is named."""

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from cldmray.errors import ConfigError

TARGET = "_target_"
PLAIN = (str, int, float, bool, list, tuple, dict)


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain data, interpolations resolved.

    Raises:
        ConfigError: an interpolation fails; the message names its key.
    """
    try:
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    return typing.cast(dict[str, Any], data)


def build(node: Any, expected: Any, path: str) -> Any:
    """Turn plain data into an object of the expected type.

    Mappings with ``_target_`` become the dataclass of that name, mappings where a dataclass is
    expected become that dataclass, and everything else is checked against the type.

    Args:
        node: mapping, list or scalar.
        expected: a type or type hint.
        path: dotted key of the node, for messages.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; the message names it.
    """
    if isinstance(node, str) and node == "???":
        raise ConfigError(f"{path}: must be given, for example {path}=VALUE")
    choices = _choices(expected)
    if node is None and type(None) in choices:
        return None
    objects = [choice for choice in choices if _is_object(choice)]
    if isinstance(node, Mapping) and TARGET in node:
        cls = _locate(node[TARGET], path)
        if expected is not Any and not issubclass(cls, tuple(objects)):
            raise ConfigError(f"{_join(path, TARGET)}: {cls.__name__} is no {_names(choices)}")
        return _construct(cls, node, path)
    if objects:
        only = objects[0]
        if isinstance(node, Mapping) and _is_settings(only) and not inspect.isabstract(only):
            return _construct(only, node, path)
        raise ConfigError(
            f"{path}: expected a group of settings whose {TARGET} is a class of "
            f"{_names(objects)}, got {node!r}"
        )
    if isinstance(node, Mapping) and (expected is Any or typing.get_origin(expected) is dict):
        inner = Any if expected is Any else typing.get_args(expected)[1]
        return {str(key): build(item, inner, _join(path, str(key))) for key, item in node.items()}
    return node if expected is Any else _check(node, expected, path)


def _choices(expected: Any) -> tuple[Any, ...]:
    """The members of a union; any other type hint alone."""
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return typing.get_args(expected)
    return (expected,)


def _is_object(expected: Any) -> bool:
    """Whether a type hint is a class of our own, not a scalar or a container."""
    return inspect.isclass(expected) and expected not in (*PLAIN, type(None))


def _is_settings(cls: Any) -> bool:
    return isinstance(cls, type) and dataclasses.is_dataclass(cls)


def _names(choices: typing.Iterable[Any]) -> str:
    return " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)


def _check(node: Any, expected: Any, path: str) -> Any:
    if isinstance(node, bool) and bool not in _choices(expected):
        raise ConfigError(f"{path}: expected {_names(_choices(expected))}, got {node!r}")
    try:
        return TypeAdapter(expected).validate_python(node)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join([path, *(str(part) for part in problem["loc"] if isinstance(part, int))])
        raise ConfigError(f"{where}: {problem['msg']}, got {problem['input']!r}") from error


def _construct(cls: type, node: Mapping[Any, Any], path: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, item in node.items():
        if key == TARGET:
            continue
        if key not in fields:
            known = ", ".join(sorted(fields)) or "none"
            raise ConfigError(
                f"{_join(path, str(key))}: {cls.__name__} has no such setting; it has: {known}"
            )
        values[key] = build(item, hints[key], _join(path, str(key)))
    for name, item in fields.items():
        optional = (
            item.default is not dataclasses.MISSING
            or item.default_factory is not dataclasses.MISSING
        )
        if name not in values and not optional:
            raise ConfigError(f"{_join(path, name)}: must be given, {cls.__name__} needs it")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(_join(path, str(error))) from error


def _locate(target: Any, path: str) -> type:
    module, _, name = str(target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{_join(path, TARGET)}: cannot find {target!r}: {error}") from error
    if not _is_settings(found):
        raise ConfigError(f"{_join(path, TARGET)}: {target!r} is not a dataclass of settings")
    if inspect.isabstract(found):
        raise ConfigError(f"{_join(path, TARGET)}: {target!r} is abstract; name a subclass")
    return typing.cast(type, found)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
