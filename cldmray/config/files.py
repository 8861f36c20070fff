"""Where the shipped configuration lies, what its groups offer, and what packages add to them."""

import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

import cldmray

PLUGIN_GROUPS = {
    "anonymizers": "cldmray.anonymizers",
    "attackers": "cldmray.attackers",
    "recognizer": "cldmray.recognizers",
}
"""Configuration groups to which installed packages add options, with their entry points' group."""

LISTED_GROUPS = {
    "anonymizers": "anonymizers",
    "attackers": "attackers",
    "conditions": "condition",
    "recognizers": "recognizer",
    "faces": "faces",
}
"""What ``cldmray list`` shows: folder of ``conf/`` by the word on the command line."""

PACKAGE_LINE = re.compile(r"# @package .*")


class Option(NamedTuple):
    """One option of a configuration group.

    Attributes:
        name: as on the command line.
        summary: what it is, in a sentence.
        origin: the installed package that brings it; empty: it is shipped.
    """

    name: str
    summary: str
    origin: str


def conf_folder() -> Path:
    """The shipped configuration: ``conf/`` of a checkout, which travels in the wheel."""
    return Path(cldmray.__file__).resolve().parent / "conf"


def shipped(group: str, name: str) -> bool:
    """Whether an option of a group is a file of the shipped configuration.

    >>> shipped("faces", "lfw"), shipped("faces", "./lfw")
    (True, False)
    """
    return "/" not in name and (conf_folder() / group / f"{name}.yaml").is_file()


def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points that installed packages offer for a configuration group, by name.

    >>> plugins("faces")
    {}
    """
    if group not in PLUGIN_GROUPS:
        return {}
    return {point.name: point for point in entry_points(group=PLUGIN_GROUPS[group])}


def register_plugins() -> None:
    """Make the entry points of installed packages options of Hydra's groups.

    ``anonymizers=[name]`` then works as it does for a shipped one: the option holds the class as
    ``_target_``. A shipped option of the same name stays.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group in PLUGIN_GROUPS:
        for name, point in plugins(group).items():
            if shipped(group, name):
                continue
            node = {"_target_": f"{point.module}.{point.attr}"}
            package = "_group_" if group == "recognizer" else f"{group}.{name}"
            store.store(group=group, name=name, node=node, package=package, provider=point.module)


def options(group: str) -> list[Option]:
    """What a configuration group offers: its files, then what installed packages add.

    Args:
        group: folder of ``conf/``.
    """
    files = sorted((conf_folder() / group).glob("*.yaml"))
    listed = [Option(path.stem, _summary(path), "") for path in files]
    names = {option.name for option in listed}
    return listed + [option for option in _plugin_options(group) if option.name not in names]


def _plugin_options(group: str) -> Iterator[Option]:
    for name, point in sorted(plugins(group).items()):
        origin = point.dist.name if point.dist is not None else point.module
        try:
            doc = getattr(point.load(), "__doc__", None) or ""
        except (ImportError, AttributeError) as error:
            yield Option(name, f"cannot be loaded: {error}", origin)
            continue
        yield Option(name, doc.strip().partition("\n")[0], origin)


def _summary(path: Path) -> str:
    """The first sentence of a file's comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment: list[str] = []
    for line in lines:
        if PACKAGE_LINE.fullmatch(line):
            continue
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return re.split(r"(?<!\bal)\.(?=\s|$)", " ".join(comment), maxsplit=1)[0]
