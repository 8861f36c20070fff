"""Errors of workers reach the driver as the objects that were raised."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.train import ControllerError, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from cldmray.engine.failures import (
    ATTEMPTS,
    reraise_worker_errors,
    retry_on_node_failure,
)
from cldmray.engine.opened import Opened
from cldmray.errors import BadInputError, ConfigError, StorageError

OWN = BadInputError("images: a/b.png: truncated")


def from_task(cause: Exception) -> Exception:
    """What ray.get raises for a task that raised ``cause``."""
    error: Exception = RayTaskError("load", "Traceback ...", cause).as_instanceof_cause()
    return error


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


class TestOwnErrors:
    @pytest.mark.parametrize(
        "error",
        [
            RayTaskError("load", "Traceback ...", OWN),
            from_task(OWN),
            from_task(from_task(OWN)),
            WorkerGroupError("[Rank 1 ...]", {1: OWN}),
            from_task(WorkerGroupError("[Rank 1 ...]", {0: RuntimeError("killed"), 1: OWN})),
            ControllerError(OWN),
            chained(RuntimeError("around it"), from_task(OWN)),
        ],
    )
    def test_the_workers_error_is_raised(self, error: Exception) -> None:
        with pytest.raises(BadInputError) as caught, reraise_worker_errors():
            raise error
        assert type(caught.value) is BadInputError
        assert str(caught.value) == str(OWN)
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize(
        "error",
        [
            WorkerGroupError("...", {0: OSError(28, "Error writing bytes to file.")}),
            ControllerError(OSError(28, "Error writing bytes to file.")),
            from_task(OSError(28, "Error writing bytes to file.")),
        ],
    )
    def test_a_full_disk_of_ray_is_one_of_our_own_errors(self, error: Exception) -> None:
        expected = (
            r"cannot write what a worker keeps \(Error writing bytes to file.\): No space left on "
            "device; make room there, then"
        )
        with pytest.raises(StorageError, match=expected), reraise_worker_errors():
            raise error

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("out of memory"),
            RuntimeError("cldmray.errors.BadInputError: only text"),
            from_task(OSError(2, "No such file or directory")),
            ConfigError("mine already"),
        ],
    )
    def test_other_errors_pass(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, reraise_worker_errors():
            raise error
        assert caught.value is error

    def test_no_error(self) -> None:
        with reraise_worker_errors():
            pass


class Refuses(Opened):
    """A function that cannot be opened."""

    def open(self, reason: str) -> None:
        raise BadInputError(reason)

    def __call__(self, block: Any) -> Any:
        self.ensure_opened()
        return block


def refuse(block: Any) -> Any:
    raise BadInputError("images: none")


def refuse_in_a_task(block: Any) -> Any:
    return ray.get(ray.remote(num_cpus=0)(refuse).remote(block))


def map_rows(function: Any, **options: Any) -> None:
    ray.data.range(2).map_batches(function, num_cpus=0.5, **options).materialize()


def train(folder: Path) -> None:
    TorchTrainer(
        refuse,
        train_loop_config={},
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(storage_path=str(folder)),
    ).fit()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda folder: map_rows(refuse), id="data task"),
        pytest.param(lambda folder: map_rows(refuse_in_a_task), id="task in a data task"),
        pytest.param(
            lambda folder: map_rows(
                Refuses,
                fn_constructor_args=("images: none",),
                compute=ray.data.ActorPoolStrategy(size=1),
            ),
            id="actor",
        ),
        pytest.param(train, id="training worker"),
    ],
)
def test_what_ray_hands_on(function: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught, reraise_worker_errors():
        function(tmp_path)
    assert str(caught.value) == "images: none"


def attempted(function: Callable[[], None]) -> None:
    for attempt in retry_on_node_failure():
        with attempt:
            function()


class TestThroughLosses:
    @pytest.mark.parametrize(
        "error",
        [
            WorkerCrashedError(),
            RayActorError(),
            ObjectLostError("", None, ""),
            ControllerError(RayActorError()),
            ControllerError(RayTaskError("connect", "Traceback ...", RuntimeError("no peer"))),
        ],
    )
    def test_what_was_lost_is_done_again(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        done: list[int] = []

        def function() -> None:
            done.append(1)
            if len(done) < ATTEMPTS:
                raise error

        attempted(function)
        assert len(done) == ATTEMPTS
        assert len(caplog.messages) == ATTEMPTS - 1
        assert type(error).__name__ in caplog.messages[0]

    def test_not_for_ever(self) -> None:
        done: list[int] = []

        def function() -> None:
            done.append(1)
            raise WorkerCrashedError

        with pytest.raises(WorkerCrashedError):
            attempted(function)
        assert len(done) == ATTEMPTS

    @pytest.mark.parametrize("error", [OWN, ControllerError(OWN), WorkerGroupError("", {0: OWN})])
    def test_other_errors_are_raised_at_once(self, error: Exception) -> None:
        done: list[int] = []

        def function() -> None:
            done.append(1)
            raise error

        with pytest.raises(type(error)):
            attempted(function)
        assert done == [1]
