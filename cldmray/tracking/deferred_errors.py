"""Deferred tracking errors: results that are written outlive an MLflow that fails afterwards."""

from types import TracebackType

from cldmray.tracking.connection import TrackingError


class DeferredErrors:
    """Holds back MLflow's failure once the results are written, so that they are shown first.

    In ``with DeferredErrors() as deferred, tracker.job_run(...) as run:`` every error passes
    until :meth:`written` was called in the block. From then on a ``TrackingError`` ends the block
    quietly, and :meth:`end` raises it.

    >>> with DeferredErrors() as deferred:
    ...     deferred.written("runs/1")
    ...     raise TrackingError("MLflow is gone")
    >>> deferred.end()
    Traceback (most recent call last):
    ...
    cldmray.tracking.connection.TrackingError: the results are complete in runs/1, ...
    """

    def __init__(self) -> None:
        self._place = ""
        self._error: TrackingError | None = None

    def __enter__(self) -> "DeferredErrors":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not (self._place and isinstance(error, TrackingError)):
            return False
        self._error = error
        return True

    def written(self, place: str) -> None:
        """Note that everything but MLflow's records lies safely in a folder or file."""
        self._place = place

    def end(self) -> None:
        """Raise what was held back, if anything was.

        Raises:
            TrackingError: MLflow failed; the message says where the results are and how they are
                recorded later.
        """
        if self._error is not None:
            raise TrackingError(
                f"the results are complete in {self._place}, but not in MLflow. {self._error}. To "
                "record them, run the same command again: what is finished is reused"
            ) from None
