"""Composing a configuration from the shipped files without a command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from cldmray import storage
from cldmray.config.choices import refuse_wrong_options
from cldmray.config.files import conf_folder, register_plugins
from cldmray.config.instantiate import to_container
from cldmray.config.retired import refuse_retired_keys, refuse_retired_overrides
from cldmray.errors import ConfigError


def compose(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A shipped configuration as plain data, interpolations resolved.

    Args:
        name: file at the top of ``conf/``.
        overrides: as on the command line.

    Raises:
        ConfigError: an override names no key or option, or a retired one.

    >>> compose("audit", ["anonymizers=[blur]", "audit.seed=7"])["anonymizers"]["blur"]["sigma"]
    4.0
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    refuse_retired_overrides(overrides)
    refuse_wrong_options(overrides)
    register_plugins()
    storage.use_job_root()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return to_container(hydra_compose(name, list(overrides)))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def updated(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some changed; what is not named stays.

    Args:
        settings: nested mappings.
        changes: by key, which may be dotted; a mapping changes only what it names.

    Raises:
        ConfigError: a key is retired, or lies within something that is no group of settings.

    >>> updated({"audit": {"seed": 0, "title": "a"}}, {"audit.seed": 1, "output": "here"})
    {'audit': {'seed': 1, 'title': 'a'}, 'output': 'here'}
    """
    refuse_retired_keys(changes)
    result = dict(settings)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        before = result.get(first)
        if rest or (isinstance(value, Mapping) and isinstance(before, Mapping)):
            inner = {rest: value} if rest else value
            if before is not None and not isinstance(before, Mapping):
                raise ConfigError(f"{key}: {first} is no group of settings, but {before!r}")
            result[first] = updated(before or {}, inner)
        else:
            result[first] = value
    return result
