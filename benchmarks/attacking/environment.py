"""Starts a benchmark again in the environment that the engine gives to its workers."""

import os
import sys

from cldmray.engine.cluster import WORKER_ENVIRONMENT


def enter(*names: str) -> None:
    """Replace this process by itself with ``WORKER_ENVIRONMENT`` set; return where it is.

    OpenMP and the allocator read it when the process starts. Threads that spin would be counted
    as CPU seconds, and memory that is given back after every step slows training down.

    Args:
        names: of the variables; all of them where none is given.
    """
    wanted = {name: WORKER_ENVIRONMENT[name] for name in names or WORKER_ENVIRONMENT}
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    sys.stdout.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted})
