"""MLflow: the one place that names params, metrics and tags, and the only one that imports it."""

from cldmray.errors import redact, redact_text
from cldmray.tracking.connection import TrackingError
from cldmray.tracking.deferred_errors import DeferredErrors
from cldmray.tracking.run import Run
from cldmray.tracking.runs import Tracker, TrackingConfig
from cldmray.tracking.versions import code_commit, git_commit, package_versions

__all__ = [
    "DeferredErrors",
    "Run",
    "Tracker",
    "TrackingConfig",
    "TrackingError",
    "code_commit",
    "git_commit",
    "package_versions",
    "redact",
    "redact_text",
]
