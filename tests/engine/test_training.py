"""The runner of the one loop: what fails again is not tried again, wherever the folder lies."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cldmray.attackers.nn.training import Call, Trainable, TrainingSchedule, Worker
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import (
    TrainingResult,
    commit_training,
    learning_curve,
    torch_trainer,
    train,
    train_in_process,
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
        loss: Tensor = (call(torch.ones(3, 1)) - 2).pow(2).mean()
        return loss * (float("nan") if self.trouble == "diverges" and step == 1 else 1)

    def state(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(state)


class TestInProcess:
    def test_an_error_of_ours_is_returned(self, tmp_path: Path) -> None:
        outcome = train_in_process(Line(tmp_path / "log", "build 0"))
        assert isinstance(outcome, ConfigError)
        assert str(outcome) == "line.slope: cannot be built"

    def test_what_was_learnt_is_committed_with_its_curve(self, tmp_path: Path) -> None:
        from cldmray.engine.artifacts import Artifact, read_manifest

        outcome = train_in_process(Line(tmp_path / "log"))
        assert isinstance(outcome, TrainingResult)
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
            (1, "build 0", ConfigError, "line.slope: cannot be built"),
            (2, "build 1", ConfigError, "line.slope: cannot be built"),
            (1, "loss", BadInputError, "line: no numbers"),
            (1, "diverges", CldmrayError, "line: the training diverged; lower"),
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
