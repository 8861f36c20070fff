"""A training leaves Ctrl-C to the job that runs it."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import Checkpoint
from ray.train.torch import TorchTrainer

from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import last_checkpoint, torch_trainer


@pytest.mark.parametrize("ours", [True, False])
def test_trains_own_handler_of_ctrl_c_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ours: bool
) -> None:
    def fit(self: Any) -> SimpleNamespace:
        self._register_sigint_handler(None)
        return SimpleNamespace(checkpoint=Checkpoint.from_directory(str(tmp_path)))

    monkeypatch.setattr(TorchTrainer, "fit", fit)
    trainer = torch_trainer(lambda config: None, {}, EngineConfig(), str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    try:
        if ours:
            with last_checkpoint(trainer) as folder:
                assert folder == tmp_path
        else:
            trainer.fit()
        assert (signal.getsignal(signal.SIGINT) is before) == ours
    finally:
        signal.signal(signal.SIGINT, before)
