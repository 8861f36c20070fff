"""Errors that a user can act on, and the one function that masks secrets in what is shown.

Each error's message names the key, file or package at fault. :func:`redact` and
:func:`redact_text` keep secrets out of errors, logs, MLflow, the terminal and the report: by key,
by the shape of the value, and by the environment.
"""

import os
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


class CldmrayError(Exception):
    """Base of every error that cldmray raises on purpose; its message shows no secret.

    >>> print(CldmrayError("cannot open s3://AKIA:wJalr/XUt@bucket/faces"))
    cannot open s3://***@bucket/faces
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(redact_text(a) if isinstance(a, str) else a for a in arguments))


class ConfigError(CldmrayError):
    """A configuration key or value is wrong; the message names the key."""


class BadInputError(CldmrayError):
    """Input data cannot be audited; the message names the file, table or identity."""


class MissingDependencyError(CldmrayError):
    """An optional package is needed and absent; the message says what to install."""


class StorageError(CldmrayError):
    """Files cannot be written; the message names the place, the reason and what to do."""


HIDDEN = "***"
"""What stands for a secret wherever one was."""
SECRET_PARTS = ("token(?!iz)", "secret", "passw", "passphrase", "credential", "bearer", "apikey")
"""A key that one of these patterns matches anywhere is secret; a tokenizer is none."""
SECRET_WORDS = {"key", "keys", "pwd", "pass", "auth", "authorization", "signature", "sig", "sas"}
"""A key that has one of these as a whole word is secret."""
SECRET_KEY = re.compile("|".join(SECRET_PARTS), re.IGNORECASE)
USERINFO = re.compile(r"(?<=://)(?:[^\s/@:]*:\S*|[^/\s?#]*)@")
ASSIGNED = re.compile(
    r"(?<![\w.-])(?!keys?:\s)"
    rf"([\w.-]*(?:{'|'.join(SECRET_PARTS)})[\w.-]*"
    rf"|(?:[\w.-]*[._-])?(?:{'|'.join(sorted(SECRET_WORDS))})(?![A-Za-z0-9]))"
    r"([\"']?\s*[=:]\s*[\"']?)((?:(?:basic|bearer|digest)\s+)?[^\s&;,\"'}]+)",
    re.IGNORECASE,
)
"""``name=value`` or ``name: value`` under a secret name. ``key: `` and ``keys: `` alone are prose
of our own messages, which say which key of the configuration is wrong."""
SHAPES = (
    re.compile(
        r"\b(?:hf_[A-Za-z0-9]{16,}|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
        r"|sk-[\w-]{20,}|dapi[0-9a-f]{32}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}"
        r"|xox[a-z]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    ),
    re.compile(r"\bbearer\s+[\w.~+/-]{8,}=*", re.IGNORECASE),
    re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    ),
)
"""Tokens of well-known services, bearer tokens and private keys; three patterns take half the time
of one."""
FLAG = re.compile(r"(?<=\s)(--[\w.-]+)(\s+)([^\s-]\S*)")
SHORTEST_SECRET = 8
"""Shorter values of environment variables are not searched for: they occur by chance."""
ENVIRONMENT_AGE = 1.0
"""Seconds after which changed values of the environment's variables are looked at again."""


def is_secret_key(key: str) -> bool:
    """Whether a setting's key says that its value is a secret: ``hub.token``, ``awsAccessKeyId``.

    A dotted key is secret if any part of it is.

    >>> is_secret_key("hub.token"), is_secret_key("faces.keypoints")
    (True, False)
    """
    if SECRET_KEY.search(key):
        return True
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    return not SECRET_WORDS.isdisjoint(re.split(r"[^a-z0-9]+", spaced.lower()))


def redact_text(text: str) -> str:
    """Text without secrets, as far as they can be told.

    Hidden are user names and passwords in URLs, values assigned to secret names (``?token=...``,
    ``password: ...``, ``--api-key ...``), tokens of well-known shapes, private keys, and the values
    of this process's environment variables with a secret name.

    >>> redact_text("https://me:hunter2@host/runs?token=abc&page=2")
    'https://***@host/runs?token=***&page=2'
    """
    return _redacted(text, len(os.environ), int(time.monotonic() / ENVIRONMENT_AGE))


@lru_cache(maxsize=4096)
def _redacted(text: str, size: int, moment: int) -> str:
    """See :func:`redact_text`, and :func:`_environment_pattern` of the other arguments.

    The page of an audit has 183,000 expressions, most of them the same few words.
    """
    pattern = _environment_pattern(size, moment)
    if pattern is not None:
        text = pattern.sub(HIDDEN, text)
    for shape in SHAPES:
        text = shape.sub(HIDDEN, text)
    if "://" in text:
        text = USERINFO.sub(f"{HIDDEN}@", text)
    if "=" in text or ":" in text:
        text = ASSIGNED.sub(rf"\1\2{HIDDEN}", text)
    return FLAG.sub(_flag, text) if "--" in text else text


def redact(value: Any, key: str = "") -> Any:
    """A JSON-like value with its secrets replaced by ``***``; nested mappings and lists are copied.

    Args:
        value: mappings, sequences and scalars.
        key: under which the value stands; None and empty values stay to tell that none was set.

    >>> redact({"hub": {"token": "abc", "revision": "main"}, "password": None})
    {'hub': {'token': '***', 'revision': 'main'}, 'password': None}
    """
    if isinstance(value, Mapping):
        return {
            redact_text(str(name)): redact(item, f"{key}.{name}" if key else str(name))
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, key) for item in value]
    if value is None or value == "" or isinstance(value, bool):
        return value
    if is_secret_key(key):
        return HIDDEN
    if isinstance(value, int | float):
        return value
    return redact_text(str(value))


@lru_cache(maxsize=1)
def _environment_pattern(size: int, moment: int) -> re.Pattern[str] | None:
    """All secret values of the environment in one pattern; None where there are none.

    Reading and searching the environment for each text took 5 s of an audit's 48,000 metric names.
    The arguments only tell the cache when to read it again: a variable was set or removed, or
    ``ENVIRONMENT_AGE`` has passed.
    """
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST_SECRET and _is_secret_variable(name)
    }
    if not values:
        return None
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return re.compile("|".join(map(re.escape, longest_first)))


def _is_secret_variable(name: str) -> bool:
    """Narrower than a setting's key: ``RAY_AUTH_MODE=disabled`` must not hide a common word."""
    lower = name.lower()
    if lower in ("pwd", "oldpwd"):
        return False
    return bool(SECRET_KEY.search(lower)) or lower.endswith(("key", "keys", "pwd"))


def _flag(match: re.Match[str]) -> str:
    flag, space, value = match.groups()
    return f"{flag}{space}{HIDDEN if is_secret_key(flag) else value}"
