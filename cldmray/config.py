"""From composed YAML to checked objects: every wrong key or value is named before work starts."""

import dataclasses
import importlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from cldmray.anonymizers.base import Anonymizer, GroupAnonymizer
from cldmray.attackers.ladder import Rung, training_order
from cldmray.errors import ConfigError
from cldmray.faces.source import FaceSource
from cldmray.faces.splits import SplitConfig
from cldmray.gallery.ranking import Gallery, Protocol

TARGET = "_target_"


@dataclass(frozen=True)
class AuditSettings:
    """What is measured, and how surely.

    Attributes:
        title: of the report and of the MLflow run.
        seed: of the pictures and of the confidence intervals.
        attacker_draws: times that the attacker sends each of its photos through an anonymizer.
        protocols, galleries: which of DESIGN section 4 are measured.
        level: of the confidence intervals in tables, in (0, 1). The verdict's intervals are
            widened so that all attacks on one anonymizer hold at this level together.
        resamples: of the bootstrap.
        max_bad_share: share of unusable files, 0..1, above which the audit stops.
        min_clear_rank_1: rank-1 rate on clear photographs, 0..1, that the best encoder must reach
            before "no attack succeeded" counts as privacy.
        allow_trained_identities: whether people may be audited on whom an anonymizer was trained.
        grid_pictures: example pictures in the report.
    """

    title: str = "Face anonymization audit"
    seed: int = 0
    attacker_draws: int = 1
    protocols: list[Protocol] = field(default_factory=lambda: ["full_ref", "few_ref", "single_ref"])
    galleries: list[Gallery] = field(default_factory=lambda: ["source_excluded", "source_included"])
    level: float = 0.95
    resamples: int = 5000
    max_bad_share: float = 0.1
    min_clear_rank_1: float = 0.9
    allow_trained_identities: bool = False
    grid_pictures: int = 8

    def __post_init__(self) -> None:
        if self.attacker_draws < 1:
            raise ValueError(f"attacker_draws: must be at least 1, got {self.attacker_draws}")
        if not self.protocols or not self.galleries:
            raise ValueError("protocols: name at least one protocol and one gallery")
        if not 0 < self.level < 1:
            raise ValueError(f"level: must be in (0, 1), got {self.level}")
        if self.resamples < 100:
            raise ValueError(f"resamples: must be at least 100, got {self.resamples}")
        for key in ("max_bad_share", "min_clear_rank_1"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key}: must be in 0..1, got {getattr(self, key)}")


@dataclass(frozen=True)
class AuditConfig:
    """A whole audit, checked.

    Attributes:
        faces: where the photographs are.
        splits: who trains and who is audited.
        anonymizer: the settings under audit, by key.
        attack: the ladder's rungs, by key.
        engine, tracking: see their classes.
        audit: what is measured.
        output: folder of the report.
        work: folder of the stages' tables, shared by audits.
    """

    faces: FaceSource
    splits: SplitConfig
    anonymizer: dict[str, Any]
    attack: dict[str, Any]
    engine: Any
    tracking: Any
    audit: AuditSettings
    output: str
    work: str

    def __post_init__(self) -> None:
        for kind, base in (("anonymizer", (Anonymizer, GroupAnonymizer)), ("attack", (Rung,))):
            members: dict[str, Any] = getattr(self, kind)
            if not members:
                raise ValueError(f"{kind}: choose at least one, for example {kind}=[...]")
            owners: dict[str, str] = {}
            for key, member in members.items():
                if not isinstance(member, base):
                    names = " or ".join(cls.__name__ for cls in base)
                    raise ValueError(f"{kind}.{key}: {type(member).__name__} is no {names}")
                if owners.setdefault(member.name, key) != key:
                    raise ValueError(
                        f"{kind}.{key}: has the same name {member.name!r} as "
                        f"{kind}.{owners[member.name]}; set its label"
                    )
        try:
            training_order(self.attack)
        except ValueError as error:
            raise ValueError(f"attack.{error}") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain data, interpolations resolved.

    Raises:
        ConfigError: an interpolation fails; the message names its key.
    """
    try:
        data = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).replace("\n", " ")) from error
    return typing.cast(dict[str, Any], data)


def build_audit(config: DictConfig) -> AuditConfig:
    """Check and build a whole audit.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; the message names it.
    """
    audit: AuditConfig = build(plain(config), AuditConfig, "")
    return audit


def build(node: Any, expected: Any, path: str) -> Any:
    """Turn plain data into an object of the expected type.

    Mappings with ``_target_`` become the class of that name, mappings where a dataclass is
    expected become that dataclass, and everything else is checked against the type.

    Args:
        node: mapping, list or scalar.
        expected: a type or type hint.
        path: dotted key of the node, for messages.

    Raises:
        ConfigError: see :func:`build_audit`.
    """
    if node == "???":
        raise ConfigError(f"{path}: must be given, for example {path}=VALUE")
    if isinstance(node, Mapping) and TARGET in node:
        return _construct(_locate(node[TARGET], path), node, path)
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        return _build_union(node, expected, path)
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        if not isinstance(node, Mapping):
            raise ConfigError(f"{path}: expected a group of settings, got {node!r}")
        return _construct(expected, node, path)
    if isinstance(node, Mapping):
        inner = typing.get_args(expected)[1] if origin is dict else Any
        return {str(key): build(item, inner, _join(path, str(key))) for key, item in node.items()}
    if expected is Any:
        return node
    return _check(node, expected, path)


def _build_union(node: Any, expected: Any, path: str) -> Any:
    choices = [choice for choice in typing.get_args(expected) if choice is not type(None)]
    if node is None and type(None) in typing.get_args(expected):
        return None
    if isinstance(node, Mapping):
        return build(node, choices[0], path)
    return _check(node, expected, path)


def _check(node: Any, expected: Any, path: str) -> Any:
    if isinstance(expected, type) and not _is_plain(expected):
        raise ConfigError(
            f"{path}: expected settings of a {expected.__name__} with a {TARGET}, got {node!r}"
        )
    try:
        return TypeAdapter(expected).validate_python(node)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join([path, *(str(part) for part in problem["loc"] if isinstance(part, int))])
        raise ConfigError(f"{where}: {problem['msg']}, got {problem['input']!r}") from error


def _is_plain(expected: type) -> bool:
    return expected in (str, int, float, bool, list, tuple, dict)


def _construct(cls: type, node: Mapping[Any, Any], path: str) -> Any:
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{_join(path, TARGET)}: {cls.__name__} is not a dataclass of settings")
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
    if not isinstance(found, type):
        raise ConfigError(f"{_join(path, TARGET)}: {target!r} is not a class")
    return found


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
