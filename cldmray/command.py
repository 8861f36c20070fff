"""What every job does around its work."""

import sys
from collections.abc import Callable

from omegaconf import DictConfig

from cldmray.errors import CldmrayError

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


def announce(line: str) -> None:
    """Print a line of progress at once, so that job logs follow the work."""
    print(line, flush=True)
