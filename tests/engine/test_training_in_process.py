"""A training in the job's own process: killed at any time, it goes on from its last checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cldmray.attackers.nn.training import Call, Trainable, TrainingSchedule, Worker
from cldmray.engine import training
from cldmray.engine.training import CHECKPOINT_FILE, train_in_process, training_task
from cldmray.errors import CldmrayError


class Line(Trainable):
    """Fits a line to another one, on points that depend on the step only."""

    name = "line"

    def __init__(self, max_steps: int, slope: float = 2.0) -> None:
        self.schedule = TrainingSchedule(
            max_steps=max_steps, validate_every=2, precision="fp32", warmup_steps=1, ema=0.5,
            learning_rate=0.1, decay_from=0.9,
        )  # fmt: skip
        self.slope = slope
        self.steps: list[int] = []

    def build(self, worker: Worker) -> nn.Module:
        torch.manual_seed(0)
        self.network = nn.Linear(1, 1)
        return self.network

    def loss(self, step: int, call: Call) -> Tensor:
        self.steps.append(step)
        points = torch.arange(4.0)[:, None] + step
        loss: Tensor = (call(points) - self.slope * points).square().mean()
        return loss

    def state(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(state)


def test_a_killed_training_repeats_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_in_process(Line(6))
    save = training.TrainingLoop.save

    def killed(self: Any, folder: Path) -> None:
        save(self, folder)
        if self.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.TrainingLoop, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train_in_process(Line(6), checkpoints=str(tmp_path))
    monkeypatch.undo()
    line = Line(6)
    result = train_in_process(line, checkpoints=str(tmp_path))
    assert line.steps == [2, 3, 4, 5]
    assert result.weights == whole.weights
    assert result.curve == whole.curve
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_a_finished_training_takes_no_step_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    folder = f"file://{tmp_path}"
    first = train_in_process(Line(4), checkpoints=folder)
    for steps in (4, 1):
        line = Line(steps)
        assert train_in_process(line, checkpoints=folder) == first
        assert line.steps == []
    line = Line(7)
    longer = train_in_process(line, checkpoints=folder)
    assert line.steps == [4, 5, 6]
    assert [point["step"] for point in longer.curve] == [2, 4, 6, 7]


@pytest.mark.parametrize(
    ("error", "is_returned"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x1 and 2x2)"), True),
        (RuntimeError("Error(s) in loading state_dict for Linear"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), False),
        (RuntimeError("can't start new thread"), False),
        (ConnectionError("reset by peer"), False),
    ],
)
def test_a_task_returns_what_would_fail_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_returned: bool
) -> None:
    def broken(self: Line, step: int, call: Call) -> Tensor:
        raise error

    monkeypatch.setattr(Line, "loss", broken)
    if not is_returned:
        with pytest.raises(type(error), match=str(error)):
            training_task(Line(2), 1, None)
        return
    outcome = training_task(Line(2), 1, None)
    assert isinstance(outcome, RuntimeError) and str(outcome).endswith(str(error))


def test_a_diverged_training_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(CldmrayError, match="^line: the training diverged"):
            train_in_process(Line(4, slope=float("nan")), checkpoints=str(tmp_path))
