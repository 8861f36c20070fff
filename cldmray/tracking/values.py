"""How settings, metrics and tags are called and written in MLflow, the same in every run."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cldmray.errors import HIDDEN, is_secret_key, redact, redact_text

LONGEST_VALUE = 500
LONGEST_KEY = 250
FORBIDDEN_IN_KEY = re.compile(r"[^\w\-. ]", re.ASCII)


def flat_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as one text per dotted key, without secrets.

    Lists become JSON; values longer than 500 characters are cut and end with their hash, so that
    two different ones still differ.

    >>> flat_params({"faces": {"name": "lfw"}, "hub": {"token": "secret"}})
    {'faces.name': 'lfw', 'hub.token': '***'}
    """
    flat: dict[str, str] = {}
    _flatten(redact(settings), "", flat)
    return flat


def flat_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as short texts without secrets."""
    return {
        clean_key(key): HIDDEN if is_secret_key(key) else shortened(redact_text(str(value)))
        for key, value in tags.items()
    }


def clean_key(key: str) -> str:
    """A key with the characters and the length that MLflow accepts, and without secrets."""
    return shortened(FORBIDDEN_IN_KEY.sub("_", redact_text(key)), LONGEST_KEY)


def clean_metric(name: str) -> str:
    """A metric's name as MLflow accepts it: the parts between slashes as :func:`clean_key`."""
    return "/".join(clean_key(part) for part in name.split("/"))


def shortened(text: str, longest: int = LONGEST_VALUE) -> str:
    """Text of at most ``longest`` characters; a longer one is cut and ends with its hash."""
    if len(text) <= longest:
        return text
    ending = f"...{_short_hash(text)}"
    return text[: longest - len(ending)] + ending


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _flatten(value: Any, key: str, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            _flatten(item, f"{key}.{name}" if key else str(name), flat)
    if not key or (isinstance(value, Mapping) and value):
        return
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    flat[clean_key(key)] = shortened(text)
