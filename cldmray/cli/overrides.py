"""Overrides as people type them at a shell, made into those that Hydra's grammar takes.

Hydra reads ``~``, ``=``, ``,``, ``[`` and ``2020_01`` in a value as signs of its own. A value that
is a path or a name is quoted here, so that it is taken as it was typed.
"""

import logging
import re
import shlex
from collections.abc import Sequence

from cldmray import storage
from cldmray.config.files import shipped

logger = logging.getLogger(__name__)

TEXT_KEYS = {
    "root",
    "table",
    "groups_file",
    "output",
    "cache_dir",
    "evaluation",
    "attacker",
    "auxiliary",
    "celeba_partition",
    "identity_pattern",
    "title",
}
"""Last parts of keys whose values are paths or names, whatever is in them."""
LEFT_ALONE = re.compile(r"""^(null|\?\?\?|)$|^(['"]).*\2$|\$\{""", re.DOTALL)
"""Values that mean something to OmegaConf, or are quoted already."""
SWEEP = {"-m", "--multirun"}
OTHER_FACES = {
    "gallery.faces": "distractors",
    "gallery.references": "references",
    "audit.training_faces": "training_faces",
}
"""Keys of further sources of faces, and the names that these get: no two of an audit are equal."""


def place_of_faces(arguments: Sequence[str], key: str = "faces") -> str | None:
    """The folder or file of ``faces=DIR``; None where ``faces`` is an option, or is not given.

    Args:
        arguments: overrides.
        key: of the source of faces.

    >>> place_of_faces(["faces=folder"]), place_of_faces(["audit.seed=1", "faces=~/my faces"])
    (None, '~/my faces')
    """
    for argument in arguments:
        name, _, value = argument.partition("=")
        value = value.strip("'\"")
        if name != key or shipped("faces", value):
            continue
        if "/" in value or "~" in value or "." in value or storage.exists(value):
            return value
    return None


def with_recognized_faces(arguments: Sequence[str]) -> list[str]:
    """Arguments with ``faces=DIR`` replaced by the option and the settings that read the folder.

    The same for the keys of :data:`OTHER_FACES`.

    Raises:
        BadInputError: nothing is there, or no layout fits.
    """
    changed = list(arguments)
    for key in ("faces", *OTHER_FACES):
        place = place_of_faces(changed, key)
        if place is not None:
            settings = _recognized(place, key)
            changed = [
                each
                for argument in changed
                for each in (settings if argument.startswith(f"{key}=") else [argument])
            ]
    return changed


def _recognized(place: str, key: str) -> list[str]:
    """The overrides by which a source of faces with some key reads a place."""
    from cldmray.faces.sources.survey import recognize

    layout = recognize(place)
    overrides = layout.overrides
    if key != "faces":
        settings = [setting.replace("faces.", f"{key}.", 1) for setting in overrides[1:]]
        overrides = [f"+faces@{key}={layout.option}", *settings, f"{key}.name={OTHER_FACES[key]}"]
    logger.info("%s: %s, read by %s", place, layout.description, shlex.join(overrides))
    return overrides


def quoted(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command, with quotes around values that would be read otherwise than typed.

    Values of keys that take a path or name are quoted always, others only where Hydra's grammar
    refuses them. In a sweep (``-m``) a comma still divides values.

    >>> quoted(["faces.root=~/faces", "output=2020_01", "anonymizers=[blur]", "audit.seed=1"])
    ["faces.root='~/faces'", "output='2020_01'", 'anonymizers=[blur]', 'audit.seed=1']
    """
    sweeps = not SWEEP.isdisjoint(arguments)
    return [_quoted(argument, sweeps) for argument in arguments]


def _quoted(argument: str, sweeps: bool) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-") or LEFT_ALONE.search(value):
        return argument
    is_text = re.split(r"[.@/]", key)[-1] in TEXT_KEYS and not (sweeps and "," in value)
    if not is_text and _parses(argument):
        return argument
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    text = f"{key}='{escaped}'"
    return text if _parses(text) else argument


def _parses(override: str) -> bool:
    """Whether Hydra's grammar takes an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
