"""The runner of the one loop: what fails again is not tried again, wherever the folder lies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor, nn

from cldmray.attackers.nn.training import Call, Trainable, TrainingSchedule, Worker
from cldmray.engine import training
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.failures import retry_on_node_failure
from cldmray.engine.training import (
    commit_training,
    learning_curve,
    torch_trainer,
    train,
    train_in_process,
    training_task,
)
from cldmray.errors import BadInputError, CldmrayError, ConfigError


class Line(Trainable):
    """Learns one number; every start is a line of ``log``, and ``trouble`` says what goes wrong."""

    name = "line"
    schedule = TrainingSchedule(
        max_steps=4, warmup_steps=1, learning_rate=0.1, precision="fp32", validate_every=2
    )

    def __init__(self, log: Path, trouble: str = "") -> None:
        self.log = log
        self.trouble = trouble

    def build(self, worker: Worker) -> nn.Module:
        with self.log.open("a") as lines:
            lines.write(f"{worker.rank}\n")
        if self.trouble == f"build {worker.rank}":
            raise ConfigError("line.slope: cannot be built")
        torch.manual_seed(self.schedule.seed)
        self.network = nn.Linear(1, 1)
        return self.network

    def loss(self, step: int, call: Call) -> Tensor:
        if self.trouble == "loss" and step == 1:
            raise BadInputError("line: no numbers")
        if self.trouble == "bug":
            raise KeyError("no such column")
        if self.trouble == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.trouble == "connection":
            raise ConnectionError("reset by peer")
        loss: Tensor = (call(torch.ones(3, 1)) - 2).pow(2).mean()
        return loss * (float("nan") if self.trouble == "diverges" and step == 1 else 1)

    def state(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(state)


@dataclass
class LosesPeerOnce(TorchConfig):
    """A worker of the first group finds its peer gone while they connect.

    Attributes:
        marker: file that says that it was done.
    """

    marker: str = ""

    @property
    def backend_cls(self) -> type["LosingBackend"]:
        return LosingBackend


class LosingBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, group: Any, config: LosesPeerOnce) -> None:
        if not Path(config.marker).exists():
            Path(config.marker).touch()
            group.execute_single(1, lose_peer)
        super().on_start(group, config)


def lose_peer() -> None:
    raise RuntimeError("Connection closed by peer")


class TestInProcess:
    def test_a_task_returns_an_error_of_ours(self, tmp_path: Path) -> None:
        outcome = training_task(Line(tmp_path / "log", "build 0"), 1, None)
        assert isinstance(outcome, ConfigError)
        assert str(outcome) == "line.slope: cannot be built"

    def test_a_task_returns_what_would_fail_again(self, tmp_path: Path) -> None:
        bug = training_task(Line(tmp_path / "log", "bug"), 1, None)
        assert isinstance(bug, RuntimeError)
        assert str(bug).endswith("KeyError: 'no such column'") and "in loss" in str(bug)
        memory = training_task(Line(tmp_path / "log", "memory"), 1, None)
        assert isinstance(memory, ConfigError)
        assert str(memory).startswith("line: a training step does not fit into memory; lower its")

    def test_a_task_raises_what_may_pass_so_that_ray_tries_again(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectionError):
            training_task(Line(tmp_path / "log", "connection"), 1, None)

    @pytest.mark.parametrize(("trouble", "kind"), [("bug", RuntimeError), ("loss", BadInputError)])
    def test_a_worker_of_several_fails_once_and_the_next_ends_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, kind: Any
    ) -> None:
        trainable = Line(tmp_path / "log", trouble)
        monkeypatch.setattr(training, "this_worker", lambda: Worker(1, 2))
        monkeypatch.setattr(training.ray, "get", lambda reference: reference)
        monkeypatch.setattr(training.ray.train, "get_checkpoint", lambda: None)
        monkeypatch.setattr(training, "_wrap_with", lambda trainable: None)
        monkeypatch.setattr(
            torch.distributed, "all_gather_object", lambda errors, error: [None, None]
        )
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
        monkeypatch.setattr(training.ray.train, "report", lambda point, checkpoint: None)
        error = str(tmp_path / "error.json")
        config = {"trainable": trainable, "threads": 1, "error": error}
        with pytest.raises((KeyError, BadInputError)):
            training.train_worker(config)
        training.train_worker(config)
        assert len((tmp_path / "log").read_text().split()) == 1
        with pytest.raises(kind, match="no such column|no numbers"), training._error_in(error):
            raise ConnectionError("what Ray Train makes of it")

    def test_what_was_learnt_is_committed_with_its_curve(self, tmp_path: Path) -> None:
        from cldmray.engine.artifacts import Artifact, read_manifest

        outcome = train_in_process(Line(tmp_path / "log"))
        assert set(outcome.state) == {"weight", "bias"}
        commit_training(str(tmp_path), "line.safetensors", outcome)
        manifest = read_manifest(str(tmp_path))
        assert manifest is not None
        curve = learning_curve(Artifact(str(tmp_path), manifest, "line"))
        assert [point["step"] for point in curve] == [2, 4]
        assert curve[1]["loss"] < curve[0]["loss"]
        assert (tmp_path / "line.safetensors").read_bytes() == outcome.weights


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_checkpoints_lie_where_the_folder_does(scheme: str, tmp_path: Path) -> None:
    trainer = torch_trainer(lambda config: None, {}, EngineConfig(), f"{scheme}{tmp_path}")
    assert trainer.run_config.storage_path == str(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestOnRay:
    @pytest.mark.parametrize(
        ("workers", "trouble", "kind", "message"),
        [
            pytest.param(
                *(1, "build 0", ConfigError, "line.slope: cannot be built"),
                marks=pytest.mark.nightly,
            ),
            (2, "build 1", ConfigError, "line.slope: cannot be built"),
            (1, "loss", BadInputError, "line: no numbers"),
            (2, "loss", BadInputError, "line: no numbers"),
            pytest.param(
                *(1, "diverges", CldmrayError, "line: the training diverged; lower"),
                marks=pytest.mark.nightly,
            ),
        ],
    )
    def test_what_would_fail_again_is_not_tried_again(
        self,
        engine: EngineConfig,
        tmp_path: Path,
        workers: int,
        trouble: str,
        kind: Any,
        message: str,
    ) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
        log = tmp_path / "log"
        with pytest.raises(kind, match=f"^{message}"):
            train(
                Line(log, trouble), replace(engine, train_workers=workers), str(tmp_path / "folder")
            )
        assert len(log.read_text().split()) == workers

    @pytest.mark.nightly  # Ray keeps the first group's place until the session ends
    def test_a_group_that_was_not_complete_is_set_up_again(
        self,
        engine: EngineConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
        log, folder, marker = tmp_path / "log", str(tmp_path / "folder"), tmp_path / "killed"
        trainer = "cldmray.engine.training.TorchTrainer"
        monkeypatch.setattr(
            trainer, partial(TorchTrainer, torch_config=LosesPeerOnce(marker=str(marker)))
        )
        small = replace(engine, train_workers=2, cpus_per_train_worker=0.1)
        for attempt in retry_on_node_failure():
            with attempt:
                result = train(Line(log), small, folder)
        assert marker.exists()
        (loss,) = caplog.messages
        assert loss.startswith("lost a part of the cluster (ControllerError)")
        assert len(log.read_text().split()) == 2, "the second group alone came to train"
        assert [point["step"] for point in result.curve] == [2, 4]
