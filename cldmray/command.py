"""What every job does around its work."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cldmray.errors import CldmrayError

if TYPE_CHECKING:
    from cldmray.engine.cluster import EngineConfig
    from cldmray.tracking import Tracker, TrackingConfig

GATE_FAILED = 3
"""Exit status of an audit that ran and whose ``audit.fail_on`` holds."""


def run_or_exit(main: Callable[[DictConfig], int | None], composed: DictConfig) -> None:
    """Run a job and end with the exit status that it returns, if it returns one.

    An error that the user can mend ends it with one line and exit status 1.
    """
    try:
        status = main(composed)
    except CldmrayError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if status:
        sys.exit(status)


def connected(tracking: "TrackingConfig", engine: "EngineConfig", **folders: str) -> "Tracker":
    """The tracker of a job, which is found to work before the job connects to its cluster.

    Args:
        folders: where the job will write, by the settings that name them; found writable first.

    Raises:
        StorageError: a folder cannot be written.
        TrackingError: MLflow cannot be used.
        ConfigError: see :func:`cldmray.engine.cluster.connect`.
    """
    from cldmray import storage
    from cldmray.engine.cluster import connect
    from cldmray.tracking import Tracker

    for key, folder in folders.items():
        storage.check_writable(key, folder)
    tracker = Tracker(tracking)
    tracker.check()
    connect(engine)
    return tracker


def announce(line: str) -> None:
    """Print a line of progress at once, so that job logs follow the work."""
    print(line, flush=True)
