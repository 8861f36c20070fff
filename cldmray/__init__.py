"""cldmray: do anonymized face images still leak identity?

The public API. Nothing heavy is imported before it is used.

>>> import cldmray
>>> result = cldmray.audit(faces="faces/", anonymizers=["blur"])  # doctest: +SKIP
>>> result.verdict.sentence  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cldmray.anonymizers.base import Anonymizer
    from cldmray.attackers.base import Attacker
    from cldmray.config.audit import AuditConfig
    from cldmray.pipelines.api import attribute, audit, invert
    from cldmray.pipelines.jobs import AuditResult
    from cldmray.recognizers.base import Recognizer

__version__ = "0.2.0"
__all__ = [
    "Anonymizer",
    "Attacker",
    "AuditConfig",
    "AuditResult",
    "Recognizer",
    "attribute",
    "audit",
    "invert",
]

_MODULES = {
    "Anonymizer": "cldmray.anonymizers.base",
    "Attacker": "cldmray.attackers.base",
    "AuditConfig": "cldmray.config.audit",
    "AuditResult": "cldmray.pipelines.jobs",
    "Recognizer": "cldmray.recognizers.base",
    "attribute": "cldmray.pipelines.api",
    "audit": "cldmray.pipelines.api",
    "invert": "cldmray.pipelines.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'cldmray' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
