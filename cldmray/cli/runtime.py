"""What every job does around its work."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig, OmegaConf

from cldmray import storage
from cldmray.cli.logging import setup_logging
from cldmray.config.files import conf_folder, register_plugins
from cldmray.config.retired import refuse_retired_overrides
from cldmray.errors import CldmrayError, ConfigError

Task = Callable[[DictConfig], int | None]
"""A job: it takes the composed configuration and returns the exit status, or None for 0."""

logger = logging.getLogger(__name__)

STOPS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what ``ray job stop`` and a node that goes away send."""

STDERR = 2


def run_or_exit(main: Task, composed: DictConfig) -> None:
    """Run a job and end with the exit status that it returns, if it returns one.

    An error that the user can mend ends it with one line and exit status 1. Ctrl-C and SIGTERM
    stop it: the job sees KeyboardInterrupt, so that its MLflow runs are closed as KILLED, and ends
    with 128 and the signal's number: 130 or 143.
    """
    with setup_logging(), _stoppable() as received:
        if root := storage.use_job_root():
            logger.info("%s", job_root_note(root))
        if note := storage_note(composed):
            logger.warning(note)
        try:
            status = main(composed)
        except BaseException as error:
            if received or isinstance(error, KeyboardInterrupt):
                sys.exit(128 + (received or [signal.SIGINT])[0])
            if isinstance(error, CldmrayError):
                sys.exit(f"{type(error).__name__}: {error}")
            raise
    if status:
        sys.exit(status)


def job_root_note(root: str) -> str:
    """Where the results of a submitted job go that says nothing else, as a line for the user."""
    return (
        f"{storage.ROOT_VARIABLE} is not set: reports, artifacts and, without an MLflow server, "
        f"runs go to {root} on {socket.gethostname()}"
    )


def storage_note(composed: DictConfig) -> str:
    """What a job that ``ray job submit`` runs would leave in Ray's copy of the project.

    Returns:
        A line for the user; empty where everything lies elsewhere, or for a job started otherwise.
    """
    from cldmray.tracking.connection import resolve_uri, sqlite_path

    if not storage.in_job_package():
        return ""
    here = Path.cwd()
    named = {
        key: OmegaConf.select(composed, key, throw_on_resolution_failure=False)
        for key in ("output", "cache_dir", "tracking.uri")
    }
    places = named | {"tracking.uri": sqlite_path(resolve_uri(named["tracking.uri"]))}
    lost = [
        key
        for key, place in places.items()
        if place is not None
        and "://" not in str(place)
        and (here / Path(place).expanduser()).is_relative_to(here)
    ]
    if not lost:
        return ""
    return (
        f"Note: {', '.join(lost)}: in Ray's copy of the project, {here}, which other nodes do not "
        "see and Ray deletes in time. Set CLDMRAY_STORAGE and MLFLOW_TRACKING_URI, or give other "
        "places (s3://, gs://, http://, absolute paths)."
    )


def run_job(task: Task, config_name: str) -> None:
    """Compose the configuration from the command line and run a job with it.

    The arguments are Hydra's: overrides, ``--config-name``, ``--config-dir`` and its other flags.

    Args:
        task: the job; it returns the exit status, or None for 0.
        config_name: the file at the top of ``conf/`` to start from.
    """
    import hydra

    try:
        refuse_retired_overrides(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"ConfigError: {error}")
    register_plugins()

    def run(composed: DictConfig) -> None:
        run_or_exit(task, composed)

    hydra.main(config_path=str(conf_folder()), config_name=config_name, version_base="1.3")(run)()


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Within the block the first of ``STOPS`` raises KeyboardInterrupt; further ones do nothing.

    KeyboardInterrupt, because Ray passes it on from within its own code as it is.

    Yields:
        The number of the signal, once it has come.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received:
            return
        received.append(number)
        name = signal.Signals(number).name
        line = f"Stopped by {name}. The same command goes on from what is finished.\n"
        os.write(STDERR, line.encode())  # print() may have been interrupted
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
