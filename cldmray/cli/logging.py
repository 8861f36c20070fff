"""How a command shows what the package logs: with bars in a terminal, as plain lines elsewhere.

The package logs to the logger ``cldmray`` and its children, and prints nothing itself. Whoever uses
it as a library configures that logger as any other.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cldmray.errors import redact_text

LOGGER = "cldmray"
STAGE = "stage"
"""Attribute of records that tell of a stage: its key, where the stage begins or ends."""
RUNNING = "running"
"""Attribute of the same records: whether the stage runs from now on, or has ended."""


@contextmanager
def setup_logging() -> Iterator[None]:
    """Within the block, show what is logged on the standard output, without secrets.

    In a terminal every stage that runs has a line that shows for how long; in a job's log each
    record is one plain line, written at once.

    Example:
        >>> with setup_logging():
        ...     logging.getLogger("cldmray").info("faces: 24 rows")
        faces: 24 rows
    """
    logger = logging.getLogger(LOGGER)
    before = logger.level, logger.propagate
    handler = TerminalHandler() if sys.stdout.isatty() else _plain_handler()
    handler.addFilter(mask_secrets)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def mask_secrets(record: logging.LogRecord) -> bool:
    """Filter of a handler: replaces what looks like a secret by ``***``; keeps every record."""
    record.msg, record.args = redact_text(record.getMessage()), ()
    return True


class TerminalHandler(RichHandler):
    """Lines of a terminal, and below them one line with a clock for each stage that runs."""

    def __init__(self) -> None:
        console = Console()
        super().__init__(
            console=console, show_time=False, show_level=False, show_path=False, markup=False
        )
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._progress.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record, unless it only tells that a stage began; move the stage's line."""
        stage = getattr(record, STAGE, None)
        if stage is None:
            return super().emit(record)
        if getattr(record, RUNNING, False):
            title = record.getMessage().removesuffix(" ...")
            self._bars[stage] = self._progress.add_task(title, total=None)
            return None
        if stage in self._bars:
            self._progress.remove_task(self._bars.pop(stage))
        return super().emit(record)

    def close(self) -> None:
        """Take the stages' lines away."""
        self._progress.stop()
        super().close()


def _plain_handler() -> logging.Handler:
    """One line a record; a StreamHandler flushes after each."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
