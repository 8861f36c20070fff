"""What every job does around its work."""

import sys
from collections.abc import Callable

from omegaconf import DictConfig

from cldmray.errors import CldmrayError


def run_or_exit(main: Callable[[DictConfig], None], composed: DictConfig) -> None:
    """Run a job; an error that the user can mend ends it with one line and exit status 1."""
    try:
        main(composed)
    except CldmrayError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def announce(line: str) -> None:
    """Print a line of progress at once, so that job logs follow the work."""
    print(line, flush=True)
