"""What workers raise and what the cluster loses: raised again in the driver, or worked around."""

import errno
import logging
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from cldmray import storage
from cldmray.errors import CldmrayError, ConfigError

logger = logging.getLogger(__name__)

LOSSES = (NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError)
"""What Ray raises where something was lost that it cannot bring back itself."""
FINAL = (
    CldmrayError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What settings, data and code raise, and would raise again."""
PASSING = ("can't start new thread", "CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS")
"""What bare RuntimeErrors say that the state of the machine has caused."""
ATTEMPTS = 5
RAY_DATA_NOTE = "\nFailed to apply UDF transform"
"""Where the note begins that Ray Data adds to the message of a task's error."""


@contextmanager
def reraise_worker_errors() -> Iterator[None]:
    """Raise what a worker raised, instead of what Ray wraps it in.

    Ray hands on an exception of a data task, an actor or a training worker inside one of its own.
    Errors of cldmray come out as themselves. An operating system's error comes out as one of
    cldmray's where a storage is full or read-only, whoever has written there.

    Raises:
        CldmrayError: the one that a worker raised.
        StorageError: Ray found a storage full or read-only.

    Example:
        >>> import ray
        >>> from cldmray.errors import BadInputError
        >>> wrapped = ray.exceptions.RayTaskError("load", "Traceback ...", BadInputError("no face"))
        >>> with reraise_worker_errors():
        ...     raise wrapped.as_instanceof_cause()
        Traceback (most recent call last):
        cldmray.errors.BadInputError: no face
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, CldmrayError) and not isinstance(error, RayError):
            raise
        causes = _causes(error)
        for cause in causes:
            if isinstance(cause, CldmrayError) and not isinstance(cause, RayError):
                cause.args = (str(cause).partition(RAY_DATA_NOTE)[0],)
                raise cause from error
        for cause in causes:
            if isinstance(cause, OSError) and cause.errno in (*storage.FULL, errno.EROFS):
                reason = str(cause.strerror).partition(RAY_DATA_NOTE)[0]
                place = f"what a worker keeps ({reason})"
                raise storage.unwritable(place, cause.errno, reason) from error
        raise


def _causes(error: BaseException) -> list[BaseException]:
    """The errors that Ray's error holds, and those inside of them, the innermost first."""
    causes: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or any(cause is other for other in causes):
            continue
        causes.append(cause)
        waiting += [
            getattr(cause, "cause", None),
            getattr(cause, "controller_failure", None),
            *(getattr(cause, "worker_failures", None) or {}).values(),
            cause.__cause__,
        ]
    return causes[::-1]


def is_final(error: BaseException) -> bool:
    """Whether the same work would end in the same error again, so that no retry can help.

    Memory that has run out is final: whoever can do with less has tried that before.

    >>> is_final(KeyError("image")), is_final(ConnectionError("reset by peer"))
    (True, False)
    """
    from cldmray.anonymizers.memory import is_out_of_memory

    return isinstance(error, FINAL) or is_out_of_memory(error)


def is_final_alone(error: BaseException) -> bool:
    """:func:`is_final` of work of a process that waits for no other one.

    A bare RuntimeError is torch's there, on shapes or weights that do not fit. Elsewhere it may
    come from a collective whose other side is gone.

    >>> is_final_alone(RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"))
    True
    >>> is_final_alone(RuntimeError("CUDA error: unspecified launch failure"))
    False
    """
    if is_final(error):
        return True
    return type(error) is RuntimeError and not any(text in str(error) for text in PASSING)


def final_error(error: Exception, name: str) -> Exception:
    """A training's final error, see :func:`is_final`, as the driver raises it; it can be pickled.

    Args:
        error: that a worker has caught.
        name: of what was trained.

    Returns:
        The error itself where it is one of cldmray's; a ConfigError where memory has run out; else
        a RuntimeError with the worker's traceback.
    """
    from cldmray.anonymizers.memory import is_out_of_memory

    if isinstance(error, CldmrayError):
        return error
    if is_out_of_memory(error):
        return ConfigError(
            f"{name}: a training step does not fit into memory; lower its training.batch_size, or "
            "an encoder's training.micro_batch_size, which leaves the gradient as it is"
        )
    return RuntimeError("".join(traceback.format_exception(error)).strip())


def _is_loss(error: Exception) -> bool:
    """Whether something was lost that Ray cannot bring back itself.

    Ray Train replaces workers that fail while they train. Where one is lost while the group is set
    up, the call of that worker, or of one that waits for it, fails; Ray Train takes that for a
    failure of its controller, and ends.
    """
    failed_call = getattr(error, "controller_failure", None)
    return isinstance(error, LOSSES) or isinstance(failed_call, (*LOSSES, RayTaskError))


def retry_on_node_failure() -> Iterator[AbstractContextManager[None]]:
    """Attempts at a piece of work, until one loses nothing that Ray cannot bring back.

    Ray repeats tasks, restarts actors and computes lost blocks again by itself. What remains are
    actors of its own that it does not restart, training workers that are lost while they are set
    up, and losses that follow each other too quickly.

    Yields:
        Context managers for the work, which swallow a loss unless it is the last of ``ATTEMPTS``.

    Raises:
        RayError: the last loss.

    Example:
        >>> for attempt in retry_on_node_failure():
        ...     with attempt:
        ...         print("done")
        done
    """
    lost: list[Exception] = []

    @contextmanager
    def attempt() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not _is_loss(error):
                raise
            lost.append(error)
            if len(lost) == ATTEMPTS:
                raise
            logger.warning("lost a part of the cluster (%s), once more ...", type(error).__name__)

    for number in range(ATTEMPTS):
        if number == len(lost):
            yield attempt()
