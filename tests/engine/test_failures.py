import pytest
from ray.exceptions import RayTaskError

from cldmray.engine.failures import own_errors
from cldmray.errors import BadInputError, ConfigError, StorageError

FROM_RAY = """\x1b[36mray::MapBatches(load)()\x1b[39m (pid=1, ip=127.0.0.1)
cldmray.errors.ConfigError: first of all

The above exception was the direct cause of the following exception:

  File "somewhere.py", line 3, in load
cldmray.errors.BadInputError: pictures: a/b.png: truncated

ray.exceptions.UserCodeException: UDF failed to process a data block."""


class TestOwnErrors:
    def test_the_last_own_error_is_raised(self) -> None:
        cause = RuntimeError(FROM_RAY)
        expected = pytest.raises(BadInputError, match="^pictures: a/b.png: truncated$")
        with expected as caught, own_errors():
            raise cause
        assert caught.value.__cause__ is cause

    def test_an_error_of_both_classes_loses_the_traceback(self) -> None:
        task = RayTaskError("load", FROM_RAY, BadInputError("pictures: a/b.png: truncated"))
        both = task.as_instanceof_cause()
        assert isinstance(both, BadInputError)
        with pytest.raises(BadInputError) as caught, own_errors():
            raise both
        assert str(caught.value) == "pictures: a/b.png: truncated"

    def test_a_full_disk_of_ray_is_told_as_our_own(self) -> None:
        text = "ray.train.WorkerGroupError: ...\nOSError: [Errno 28] Error writing bytes to file."
        expected = (
            r"cannot write what a worker keeps \(Error writing bytes to file.\): No space left on "
            "device; make room there, then"
        )
        with pytest.raises(StorageError, match=expected), own_errors():
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
        with pytest.raises(type(error)) as caught, own_errors():
            raise error
        assert caught.value is error

    def test_no_error(self) -> None:
        with own_errors():
            pass
