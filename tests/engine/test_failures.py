import pytest
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError

from cldmray.engine.failures import ATTEMPTS, reraise_worker_errors, retry_on_node_failure
from cldmray.errors import BadInputError, ConfigError, StorageError

FROM_RAY = """\x1b[36mray::MapBatches(load)()\x1b[39m (pid=1, ip=127.0.0.1)
cldmray.errors.ConfigError: first of all

The above exception was the direct cause of the following exception:

  File "somewhere.py", line 3, in load
cldmray.errors.BadInputError: images: a/b.png: truncated

ray.exceptions.UserCodeException: UDF failed to process a data block."""


class TestOwnErrors:
    def test_the_last_own_error_is_raised(self) -> None:
        cause = RuntimeError(FROM_RAY)
        expected = pytest.raises(BadInputError, match="^images: a/b.png: truncated$")
        with expected as caught, reraise_worker_errors():
            raise cause
        assert caught.value.__cause__ is cause

    def test_an_error_of_both_classes_loses_the_traceback(self) -> None:
        task = RayTaskError("load", FROM_RAY, BadInputError("images: a/b.png: truncated"))
        both = task.as_instanceof_cause()
        assert isinstance(both, BadInputError)
        with pytest.raises(BadInputError) as caught, reraise_worker_errors():
            raise both
        assert str(caught.value) == "images: a/b.png: truncated"

    def test_a_full_disk_of_ray_is_told_as_our_own(self) -> None:
        text = "ray.train.WorkerGroupError: ...\nOSError: [Errno 28] Error writing bytes to file."
        expected = (
            r"cannot write what a worker keeps \(Error writing bytes to file.\): No space left on "
            "device; make room there, then"
        )
        with pytest.raises(StorageError, match=expected), reraise_worker_errors():
            raise RuntimeError(text)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("out of memory"),
            RuntimeError("cldmray.errors.Unknown: what"),
            RuntimeError("OSError: [Errno 2] No such file or directory: 'x'"),
            RuntimeError("see cldmray.errors.BadInputError: not at the start of a line"),
            ConfigError("cldmray.errors.BadInputError: mine already"),
        ],
    )
    def test_other_errors_pass(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, reraise_worker_errors():
            raise error
        assert caught.value is error

    def test_no_error(self) -> None:
        with reraise_worker_errors():
            pass


class TestThroughLosses:
    @pytest.mark.parametrize(
        "error", [WorkerCrashedError(), RayActorError(), ObjectLostError("", "", "")]
    )
    def test_what_was_lost_is_done_again(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        done: list[int] = []

        def work() -> None:
            done.append(1)
            if len(done) < ATTEMPTS:
                raise error

        retry_on_node_failure(work)
        assert len(done) == ATTEMPTS
        assert len(caplog.messages) == ATTEMPTS - 1
        assert type(error).__name__ in caplog.messages[0]

    def test_not_for_ever(self) -> None:
        done: list[int] = []

        def work() -> None:
            done.append(1)
            raise WorkerCrashedError

        with pytest.raises(WorkerCrashedError):
            retry_on_node_failure(work)
        assert len(done) == ATTEMPTS

    def test_other_errors_are_raised_at_once(self) -> None:
        done: list[int] = []

        def work() -> None:
            done.append(1)
            raise BadInputError("no such faces")

        with pytest.raises(BadInputError):
            retry_on_node_failure(work)
        assert done == [1]
