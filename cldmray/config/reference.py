"""The reference of all settings, generated: ``python -m cldmray.config.reference > docs/configuration.md``.

Settings, types and defaults come from the dataclasses, what a setting means from their docstrings,
and the options of a group from the comments of ``conf/``.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.config.attribution import AttributionSettings
from cldmray.config.audit import AuditSettings
from cldmray.config.files import conf_folder, options
from cldmray.config.instantiate import TARGET, _locate, allowed_values
from cldmray.config.reconstruction import ReconstructionSettings
from cldmray.engine.cluster import EngineConfig
from cldmray.faces.splits import SplitConfig
from cldmray.tracking import TrackingConfig

SECTIONS: dict[str, type] = {
    "audit": AuditSettings,
    "splits": SplitConfig,
    "engine": EngineConfig,
    "tracking": TrackingConfig,
    "attribution": AttributionSettings,
    "reconstruction": ReconstructionSettings,
}
"""Groups of settings with one class each, by key."""
GROUPS: dict[str, type | None] = {
    "faces": None,
    "anonymizers": None,
    "attackers": None,
    "encoder": EncoderConfig,
    "training": TrainingConfig,
    "condition": None,
    "recognizer": None,
    "reconstruction_model": None,
    "preset": None,
}
"""Groups with several options; the class of their options where the files name none."""
INTRODUCTION = """# Configuration

This page is generated from the code: `python -m cldmray.config.reference > docs/configuration.md`.

A setting is changed on the command line by its dotted key (`cldmray audit audit.seed=1
anonymizers.blur.sigma=3`), an option of a group is chosen by name (`faces=lfw`,
`anonymizers=[no_op,blur]`), and a setting that a file leaves out is added with a plus
(`+anonymizers.mine._target_=package.Class`). `cldmray list anonymizers` shows the options of a
group with those of installed packages. In Python the same keys are arguments of `cldmray.audit`.

`output` is the folder of the report, `cache_dir` the folder of the artifacts that audits share:
whoever can write there decides what an audit finds. `tracking` may be left out (`~tracking`): nothing
is recorded in MLflow then.
"""


def reference() -> str:
    """The whole page as Markdown.

    >>> "## audit" in reference()
    True
    """
    parts = [INTRODUCTION]
    for key, cls in SECTIONS.items():
        parts += [f"## {key}\n", *_class_tables(cls, key)]
    for group, cls in GROUPS.items():
        parts += [f"## {group}\n", _options_table(group)]
        classes = _classes(group) if cls is None else [cls]
        for item in classes:
            parts += [f"### {item.__name__}\n", *_class_tables(item, "")]
    return "\n".join(parts).rstrip() + "\n"


def attribute_docs(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each attribute, by name.

    >>> attribute_docs(SplitConfig)["seed"]
    'another seed divides the people in another way.'
    """
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, _, section = text.partition("Attributes:\n")
        entries = re.split(r"\n(?=    \w)", re.split(r"\n(?=\S)", section)[0])
        for entry in entries:
            names, colon, meaning = entry.strip().partition(": ")
            if colon:
                for name in names.split(","):
                    docs[name.strip()] = " ".join(meaning.split())
    return docs


def _class_tables(cls: type, path: str) -> Iterator[str]:
    """A table of a class's settings, then those of the classes of its settings."""
    summary = _plain(inspect.cleandoc(cls.__doc__ or "").partition("\n")[0])
    docs = attribute_docs(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    rows, inner = [], []
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        kind, bounds = _type_name(hint), allowed_values(hint)
        if _is_settings(hint) and path:
            inner.append((f"{path}.{item.name}", hint))
        meaning = _plain(docs.get(item.name, ""))
        rows.append((f"`{item.name}`", f"{kind} {bounds}".strip(), _default(item), meaning))
    yield f"{summary}\n"
    if rows:
        yield _table(("key", "type", "default", "meaning"), rows)
    for key, hint in inner:
        yield f"### {key}\n"
        yield from _class_tables(hint, key)


def _options_table(group: str) -> str:
    rows = [(f"`{option.name}`", _plain(option.summary)) for option in options(group)]
    return _table(("option", "what it is"), [row for row, o in zip(rows, options(group)) if not o.origin])


def _classes(group: str) -> list[type]:
    """Classes that the files of a group name, each once."""
    classes: dict[type, None] = {}
    for path in sorted((conf_folder() / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(node, Mapping) and TARGET in node:
            classes[_locate(node[TARGET], group)] = None
    return list(classes)


def _is_settings(hint: Any) -> bool:
    return (
        inspect.isclass(hint) and dataclasses.is_dataclass(hint) and not inspect.isabstract(hint)
    )


def _type_name(hint: Any) -> str:
    """A type in the words of YAML.

    >>> _type_name(dict[str, int] | None), _type_name(typing.Literal["a", "b"])
    ('mapping of int, or null', '`a`, `b`')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        names = [_type_name(argument) for argument in arguments if argument is not type(None)]
        return " or ".join(names) + (", or null" if type(None) in arguments else "")
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is dict:
        return f"mapping of {_type_name(arguments[1])}"
    if origin in (list, tuple):
        return f"list of {_type_name(arguments[0])}"
    if hint is Any:
        return "any"
    return {"str": "text", "float": "number"}.get(hint.__name__, hint.__name__)


def _default(item: "dataclasses.Field[Any]") -> str:
    if item.default is not dataclasses.MISSING:
        value = item.default
    elif item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    else:
        return "required"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return {None: "null", True: "true", False: "false", "": '""'}.get(value, str(value))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join(f"| {line} |" for line in cells) + "\n"


def _plain(text: str) -> str:
    """A docstring's text as Markdown: roles become code."""
    text = re.sub(r":\w+:`~?([^`]*)`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    print(reference(), end="")
