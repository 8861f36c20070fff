"""Errors that a user can act on: each message names the key, file or package at fault.

Keeps secrets out of what is logged: by key, by shape of the value, and by the environment.
"""

import os
import re
from collections.abc import Mapping
from typing import Any


class CldmrayError(Exception):
    """Base of every error that cldmray raises on purpose."""


class ConfigError(CldmrayError):
    """A configuration key or value is wrong; the message names the key."""


class BadInputError(CldmrayError):
    """Input data cannot be audited; the message names the file, table or identity."""


class MissingDependencyError(CldmrayError):
    """An optional package is needed and absent; the message says what to install."""


class StorageError(CldmrayError):
    """Files cannot be written; the message names the place, the reason and what to do."""


HIDDEN = "***"
SECRET_PARTS = ("token", "secret", "passw", "passphrase", "credential", "bearer", "apikey")
SECRET_WORDS = {"key", "keys", "pwd", "pass", "auth", "authorization", "signature", "sig", "sas"}
USERINFO = re.compile(r"(?<=://)(?:[^\s/@:]*:\S*|[^/\s?#]*)@")
ASSIGNED = re.compile(
    r"(?<![\w.-])"
    rf"([\w.-]*(?:{'|'.join(SECRET_PARTS)})[\w.-]*"
    rf"|(?:[\w.-]*[._-])?(?:{'|'.join(sorted(SECRET_WORDS))})(?![A-Za-z0-9]))"
    r"([\"']?\s*[=:]\s*[\"']?)([^\s&;,\"'}]+)",
    re.IGNORECASE,
)
SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{20,}|dapi[0-9a-f]{32}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[a-z]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)|(?i:\bbearer\s+[\w.~+/-]{8,}=*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
FLAG = re.compile(r"(?<=\s)(--[\w.-]+)(\s+)([^\s-]\S*)")
SHORTEST_SECRET = 8


def is_secret_key(key: str) -> bool:
    """Whether a setting's key says that its value is a secret: ``hub.token``, ``awsAccessKeyId``.

    A dotted key is secret if any part of it is.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    formatting = re.split(r"[^a-z0-9]+", spaced.lower())
    lower = key.lower()
    return any(part in lower for part in SECRET_PARTS) or not SECRET_WORDS.isdisjoint(formatting)


def redact_text(text: str) -> str:
    """Text without secrets, as far as they can be told.

    Hidden are user names and passwords in URLs, values assigned to secret names (``?token=...``,
    ``password: ...``, ``--api-key ...``), tokens of well-known shapes, private keys, and the values
    of this process's environment variables with a secret name.
    """
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _is_secret_variable(name):
            text = text.replace(value, HIDDEN)
    text = SHAPES.sub(HIDDEN, text)
    text = USERINFO.sub(f"{HIDDEN}@", text)
    text = ASSIGNED.sub(rf"\1\2{HIDDEN}", text)
    return FLAG.sub(_flag, text)


def redact(value: Any, key: str = "") -> Any:
    """A JSON-like value with its secrets replaced by ``***``; nested mappings and lists are copied.

    Args:
        value: mappings, sequences and scalars.
        key: under which the value stands; None and empty values stay to tell that none was set.
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


def _is_secret_variable(name: str) -> bool:
    """Narrower than a setting's key: ``RAY_AUTH_MODE=disabled`` must not hide a common word."""
    lower = name.lower()
    if lower in ("pwd", "oldpwd"):
        return False
    return any(part in lower for part in SECRET_PARTS) or lower.endswith(("key", "keys", "pwd"))


def _flag(match: re.Match[str]) -> str:
    flag, space, value = match.groups()
    return f"{flag}{space}{HIDDEN if is_secret_key(flag) else value}"
