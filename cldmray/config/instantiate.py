"""From plain data to checked objects: every wrong key or value is named.

As Hydra's ``instantiate`` does, a mapping with ``_target_`` becomes an object of that class. Other
than there, a class must be a dataclass of the kind that is expected in its place, so that a wrong
name calls nothing; mappings without ``_target_`` become the dataclass that the type hints name;
and an error begins with the dotted key. Values are checked as
:func:`cldmray.settings.checked_dataclass` does.
"""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from cldmray.errors import ConfigError
from cldmray.settings import choices, explain, fault

TARGET = "_target_"
BUILTIN_TYPES = (str, int, float, bool, list, tuple, dict)


def to_container(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """A composed configuration as plain data, interpolations resolved.

    Raises:
        ConfigError: an interpolation fails; the message names its key.
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    try:
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    return typing.cast(dict[str, Any], data)


def build(node: Any, expected: Any, path: str) -> Any:
    """Turn plain data into an object of the expected type.

    Mappings with ``_target_`` become the dataclass of that name, mappings where a dataclass is
    expected become that dataclass, objects of the expected class stay, and everything else is
    checked against the type.

    Args:
        node: mapping, list, scalar or object.
        expected: a type or type hint.
        path: dotted key of the node, for messages.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; the message names it.
    """
    if isinstance(node, str) and node == "???":
        raise ConfigError(f"{path}: must be given, for example {path}=VALUE")
    members = choices(expected)
    if node is None and type(None) in members:
        return None
    objects = [choice for choice in members if _is_object(choice)]
    if isinstance(node, Mapping) and TARGET in node:
        cls = find_class(node[TARGET], path)
        if expected is not Any and not issubclass(cls, tuple(objects)):
            raise ConfigError(f"{_join(path, TARGET)}: {cls.__name__} is no {_names(members)}")
        return _construct(cls, node, path)
    if objects and isinstance(node, tuple(objects)):
        return node
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


def _is_object(expected: Any) -> bool:
    """Whether a type hint is a class of our own, not a scalar or a container."""
    return inspect.isclass(expected) and expected not in (*BUILTIN_TYPES, type(None))


def _is_settings(cls: Any) -> bool:
    return isinstance(cls, type) and dataclasses.is_dataclass(cls)


def _names(hints: typing.Iterable[Any]) -> str:
    plain_types = [getattr(choice, "__origin__", choice) for choice in hints]
    return " or ".join(getattr(choice, "__name__", str(choice)) for choice in plain_types)


def _check(node: Any, expected: Any, path: str) -> Any:
    if isinstance(node, bool) and bool not in choices(expected) and expected is not Any:
        raise ConfigError(f"{path}: expected {_names(choices(expected))}, got {node!r}")
    try:
        return TypeAdapter(expected).validate_python(node)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join([path, *(str(part) for part in problem["loc"] if isinstance(part, int))])
        raise ConfigError(f"{where}: {fault(problem, expected)}") from error


def _construct(cls: type, node: Mapping[Any, Any], path: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for key, item in node.items():
        if key == TARGET:
            continue
        if key not in fields:
            settings = ", ".join(sorted(fields)) or "none"
            raise ConfigError(
                f"{_join(path, str(key))}: {cls.__name__} has no such setting; it has: {settings}"
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
    except ValidationError as error:
        raise ConfigError(_join(path, explain(error, cls))) from error
    except ValueError as error:
        raise ConfigError(_join(path, str(error))) from error


def settings_of(value: Any) -> Any:
    """An object of settings as the plain data that :func:`build` makes it of.

    >>> from cldmray.conditions.none import NoCondition
    >>> settings_of({"condition": NoCondition()})
    {'condition': {'_target_': 'cldmray.conditions.none.NoCondition'}}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        settings = {
            item.name: settings_of(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
        return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **settings}
    if isinstance(value, Mapping):
        return {key: settings_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settings_of(item) for item in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value


def find_class(target: Any, path: str) -> type:
    module, _, name = str(target).rpartition(".")
    try:
        target_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{_join(path, TARGET)}: cannot find {target!r}: {error}") from error
    if not _is_settings(target_class):
        raise ConfigError(f"{_join(path, TARGET)}: {target!r} is not a dataclass of settings")
    if inspect.isabstract(target_class):
        raise ConfigError(f"{_join(path, TARGET)}: {target!r} is abstract; name a subclass")
    return typing.cast(type, target_class)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
