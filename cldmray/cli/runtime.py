"""What every job does around its work."""

import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

from omegaconf import DictConfig, OmegaConf

from cldmray import storage
from cldmray.cli.logging import setup_logging
from cldmray.cli.overrides import SWEEP, quoted, with_recognized_faces
from cldmray.config.choices import refuse_wrong_options
from cldmray.config.files import conf_folder, register_plugins
from cldmray.config.retired import refuse_retired_overrides
from cldmray.errors import CldmrayError

Task = Callable[[DictConfig], int | None]
"""A job: it takes the composed configuration and returns the exit status, or None for 0."""

logger = logging.getLogger(__name__)

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what ``ray job stop`` and a node that goes away send, and the end of a terminal."""

STDERR = 2
FAILED = 1
"""Exit status of a job that could not run."""
GONE = (errno.EPIPE, errno.EIO)
"""Numbers of the errors of writing to a program or terminal that has ended."""


def run_or_exit(main: Task, composed: DictConfig) -> None:
    """Run a job and end with the exit status that it returns, if it returns one.

    An error that the user can mend ends it with one line and exit status 1. Ctrl-C, SIGTERM and
    the end of the terminal stop it: the job sees KeyboardInterrupt, so that its MLflow runs are
    closed as KILLED, and ends with 128 and the signal's number: 130, 143 or 129. The end of the
    program that reads the output, as in ``cldmray audit | head``, stops nothing.
    """
    with _lasting_output(), setup_logging(), _stoppable() as received:
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

    The arguments are Hydra's: overrides, ``--config-name``, ``--config-dir`` and its other flags. A
    sweep (``-m``) runs all its jobs and ends with the worst of their exit statuses, which is 1
    where one could not run.

    Args:
        task: the job; it returns the exit status, or None for 0.
        config_name: the file at the top of ``conf/`` to start from.
    """
    import hydra

    try:
        refuse_retired_overrides(sys.argv[1:])
        with setup_logging():
            sys.argv[1:] = quoted(with_recognized_faces(sys.argv[1:]))
        refuse_wrong_options(sys.argv[1:])
    except CldmrayError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    register_plugins()
    statuses: list[int] = []

    def run(composed: DictConfig) -> None:
        if SWEEP.isdisjoint(sys.argv):
            run_or_exit(task, composed)
        else:
            OmegaConf.clear_cache(composed)  # Hydra hands the first job's time, and output, on
            statuses.append(_status_in_sweep(task, composed))

    hydra.main(config_path=str(conf_folder()), config_name=config_name, version_base="1.3")(run)()
    if any(statuses):
        sys.exit(FAILED if FAILED in statuses else max(statuses))


def _status_in_sweep(task: Task, composed: DictConfig) -> int:
    """Exit status of one job of a sweep, whose error is shown; a signal ends the whole sweep."""
    try:
        run_or_exit(task, composed)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return FAILED
        status = int(stop.code or 0)
        if status > 128:
            raise
        return status
    return 0


class _LastingOutput:
    """A stream that is written to nowhere once its reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Let what is still buffered, and all that follows, go to the null device."""
        if error.errno not in GONE:
            raise error
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _lasting_output() -> Iterator[None]:
    """Within the block no job ends because nobody reads its output any more."""
    before = sys.stdout, sys.stderr
    lasting = [cast(TextIO, _LastingOutput(stream)) for stream in before]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            stream.flush()
        sys.stdout, sys.stderr = before


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
        with suppress(OSError):  # the terminal may be gone
            os.write(STDERR, line.encode())  # print() may have been interrupted
        raise KeyboardInterrupt

    heeded = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}  # nohup ignores SIGHUP
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
