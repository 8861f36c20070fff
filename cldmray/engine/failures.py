"""What workers raise and what the cluster loses: told to the user, or worked around."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

from cldmray import errors, storage

logger = logging.getLogger(__name__)

LOSSES = (NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError)
"""What Ray raises where something was lost that it cannot bring back itself."""
ATTEMPTS = 5
OWN = re.compile(rf"^{re.escape(errors.__name__)}\.(\w+): (.+)$", re.MULTILINE)
SYSTEM = re.compile(r"^OSError: \[Errno (\d+)\] (.+)$", re.MULTILINE)


@contextmanager
def reraise_worker_errors() -> Iterator[None]:
    """Raise cldmray's own error where a worker's traceback ends in one.

    Ray hands on an exception of a data task, an actor or a training worker as text inside one of
    its own, which may be of the worker's class as well. What Ray itself cannot write, such as the
    checkpoint of a training, it tells in the same way.

    Raises:
        CldmrayError: of the class, and with the first line of the message, that the worker raised.
        StorageError: Ray found a storage full or read-only.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, errors.CldmrayError) and not isinstance(error, RayError):
            raise
        raised = [
            (kind, message)
            for name, message in OWN.findall(str(error))
            if isinstance(kind := getattr(errors, name, None), type)
        ]
        if raised:
            kind, message = raised[-1]
            raise kind(message) from error
        for code, reason in SYSTEM.findall(str(error)):
            if int(code) in (*storage.FULL, errno.EROFS):
                place = f"what a worker keeps ({reason})"
                raise storage.unwritable(place, int(code), reason) from error
        raise


def retry_on_node_failure(work: Callable[[], None]) -> None:
    """Do the work, and again where the cluster lost something that Ray cannot bring back.

    Ray repeats tasks, restarts actors and computes lost blocks again by itself. What remains are
    actors of its own that it does not restart, and losses that follow each other too quickly.

    Raises:
        RayError: the last of ``ATTEMPTS`` losses.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            return work()
        except LOSSES as error:
            if not left:
                raise
            logger.warning("lost a part of the cluster (%s), once more ...", type(error).__name__)
