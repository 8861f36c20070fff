"""Options of configuration groups on the command line, checked before Hydra composes.

Hydra ends in a traceback where a group gets ``null``, and does not say what there is.
"""

import re
from collections.abc import Iterator, Sequence

from cldmray.config.files import LISTED_GROUPS, conf_folder, options
from cldmray.config.retired import VALUED
from cldmray.errors import ConfigError

PLAIN = re.compile(r"\[?[\w.\-, ]*\]?")
"""A value that names options and nothing else."""
OWN_FILES = ("--config-dir", "-cd", "hydra.searchpath")
"""How arguments begin that add options which are not listed."""
NULL = {
    "tracking": "to record nothing write ~tracking",
    "anonymizers": "choose at least one, for example anonymizers=[blur]",
    "attackers": "choose at least one, for example attackers=[pretrained]",
}
"""What is written instead of ``null``, by the group."""


def refuse_wrong_options(overrides: Sequence[str]) -> None:
    """Check which options overrides choose.

    Args:
        overrides: as on the command line.

    Raises:
        ConfigError: a group gets null, or a listed group an option that there is not; the message
            begins with the group.

    >>> refuse_wrong_options(["anonymizers=[blur]", "tracking=sqlite", "splits.evaluation=null"])
    >>> refuse_wrong_options(["tracking=null"])
    Traceback (most recent call last):
    cldmray.errors.ConfigError: tracking: to record nothing write ~tracking
    """
    has_own = any(override.startswith(OWN_FILES) for override in overrides)
    nouns = {group: noun for noun, group in LISTED_GROUPS.items()}
    for key, group, value in _choices(overrides):
        see = f"; see cldmray list {nouns[group]}" if group in nouns else ""
        if value == "null":
            cure = NULL.get(group, f"must be named, for example {key}={options(group)[0].name}")
            raise ConfigError(f"{key}: {cure}{see}")
        if not see or has_own or not PLAIN.fullmatch(value):
            continue
        names = {option.name for option in options(group)}
        for name in re.findall(r"[\w.-]+", value):
            if name not in names:
                raise ConfigError(f"{key}: there is no {name}{see}")


def _choices(overrides: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Key, group and value of each override that chooses options."""
    before = ""
    for override in overrides:
        is_value, before = before in VALUED, override
        key, equals, value = override.lstrip("+").partition("=")
        group = key.partition("@")[0]
        is_group = bool(re.fullmatch(r"\w+", group)) and (conf_folder() / group).is_dir()
        if equals and not is_value and is_group:
            yield key, group, value.strip()
