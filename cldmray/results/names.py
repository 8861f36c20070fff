"""Names that a setting of an anonymizer or attacker may carry in tables, paths and run names."""

import re
from typing import Annotated

from pydantic import AfterValidator

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
ALLOWED = "may hold letters, digits and . _ + - only"


def _allowed(label: str) -> str:
    if not LABEL.fullmatch(label):
        raise ValueError(ALLOWED)
    return label


Label = Annotated[str, AfterValidator(_allowed)]
"""Text that :func:`check_label` accepts."""


def as_label(text: str) -> str:
    """The text with other characters than a label may hold replaced by ``-``.

    >>> as_label("../my model")
    'my-model'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip("._+-")[:80] or "unnamed"


def check_label(label: str | None) -> None:
    """Check a name given by the user; None stands for the default one.

    Raises:
        ValueError: it has other characters than letters, digits and ``. _ + -``, does not begin
            with a letter or digit, or is longer than 80.

    >>> check_label("canny-weak")
    """
    if label is not None and not LABEL.fullmatch(label):
        raise ValueError(f"label: {ALLOWED}, got {label!r}")
