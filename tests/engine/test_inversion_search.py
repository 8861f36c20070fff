"""The search: what is drawn, and that a killed driver costs no trial and doubles none."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.attackers.nn.training import Worker
from cldmray.attackers.reconstruction.controls import MeanFace
from cldmray.attackers.reconstruction.pairs import Queried, ReconstructionPairs
from cldmray.attackers.reconstruction.training import ReconstructionTrainable
from cldmray.engine.tuning import (
    DIVERGED,
    OBJECTIVE,
    REASON,
    SearchConfig,
    SearchData,
    SearchDimension,
    TrialSpec,
    _row,
    objective_at,
    train_trial,
)
from cldmray.engine.tuning import (
    TRIALS as COLUMNS,
)
from cldmray.errors import ConfigError
from cldmray.recognizers.sface import SFace

ROOT = Path(__file__).resolve().parents[2]
TRIALS, STEPS = 3, 3


class TestSpace:
    def test_values(self) -> None:
        listed = SearchDimension(choices=[None, [8, 16], {"a": 1}])
        texts = listed.domain().categories
        assert [listed.value(text) for text in texts] == listed.extremes == listed.choices
        whole = SearchDimension(low=1, high=4, integer=True)
        assert whole.extremes == [1, 4] and whole.value(3.0) == 3
        assert (whole.domain().lower, whole.domain().upper) == (1, 5)
        spread = SearchDimension(low=0.1, high=10, log=True)
        assert (spread.domain().lower, spread.domain().upper) == (0.1, 10)
        assert {whole.value(item) for item in whole.domain().sample(size=200)} == {1, 2, 3, 4}

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"choices": []},
            {"choices": [1], "low": 1.0},
            {"low": 2.0, "high": 1.0},
            {"low": 0.0, "high": 1.0, "log": True},
            {"high": 1.0},
        ],
    )
    def test_errors(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"^(choices|low): "):
            SearchDimension(**wrong)

    @pytest.mark.parametrize(
        ("wrong", "key"),
        [
            ({"trials": -1}, "trials"),
            ({"trials": 1}, "space"),
            ({"max_concurrent_trials": 0}, "max_concurrent_trials"),
            ({"grace_period": 0}, "grace_period"),
            ({"reduction_factor": 1}, "reduction_factor"),
            ({"cpus": 0.0}, "cpus"),
        ],
    )
    def test_settings(self, wrong: dict[str, Any], key: str) -> None:
        with pytest.raises(ValueError, match=f"^{key}: "):
            SearchConfig(**wrong)


@pytest.mark.parametrize(
    ("settings", "there", "at_once"),
    [
        ({}, {"CPU": 8.0}, 8),
        ({"cpus": 0.5}, {"CPU": 2.0}, 4),
        ({"gpus": 0.5}, {"CPU": 8.0, "GPU": 2.0}, 4),
        ({"gpus": 1.0}, {"CPU": 8.0}, 1),
        ({"max_concurrent_trials": 3}, {"CPU": 8.0}, 3),
    ],
)
def test_trials_fill_the_cluster_unless_said_otherwise(
    settings: dict[str, Any], there: dict[str, float], at_once: int
) -> None:
    assert SearchConfig(**settings).trials_at_once(there) == at_once


def test_the_average_face_is_no_objective() -> None:
    assert SearchConfig().objective == "margin"


class TestTrialsThatFail:
    """One that would fail again ends with the reason; all others are Ray Tune's to repeat."""

    def reported(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[dict[str, Any]]:
        def broken(self: ReconstructionTrainable, worker: Worker) -> None:
            raise error

        reports: list[dict[str, Any]] = []
        monkeypatch.setattr(ReconstructionTrainable, "build", broken)
        monkeypatch.setattr("ray.tune.report", lambda metrics, **more: reports.append(metrics))
        monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)
        images = np.zeros((2, 8, 8, 3), np.uint8)
        codes = np.arange(2)
        pairs = ReconstructionPairs(images, codes, codes, images, codes)
        data = SearchData(Queried(pairs, ["a", "b"]), pairs, SFace())
        train_trial({}, data, lambda config: TrialSpec(MeanFace(), None), "margin", 1, gpu=False)
        return reports

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ConfigError("model.widths: too few"), "model.widths: too few"),
            (RuntimeError("shapes cannot be multiplied"), "RuntimeError: shapes cannot be"),
        ],
    )
    def test_for_good(self, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
        (metrics,) = self.reported(monkeypatch, error)
        assert metrics[OBJECTIVE] == DIVERGED
        assert metrics[REASON].startswith(reason)
        result = SimpleNamespace(
            metrics={**metrics, "trial_id": "t1"}, config={}, checkpoint=None, error=None
        )
        row = _row(result, lambda config: TrialSpec(MeanFace(), None), "margin")
        assert row["status"] == "failed" and row["reason"] == metrics[REASON]
        assert pa.Table.from_pylist([row], COLUMNS).num_rows == 1

    def test_for_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConnectionError):
            self.reported(monkeypatch, ConnectionError("reset by peer"))

    def test_what_ray_tune_has_given_up(self) -> None:
        error = RuntimeError("Traceback ...\nConnectionError: reset by peer")
        result = SimpleNamespace(
            metrics={"trial_id": "t1"}, config={}, checkpoint=None, error=error
        )
        row = _row(result, lambda config: TrialSpec(MeanFace(), None), "margin")
        assert row["status"] == "failed" and row["reason"] == "ConnectionError: reset by peer"


def test_a_diverged_training_is_the_worst() -> None:
    point = {"step": 2.0, "loss": 0.5, "validation_cosine": 0.25, "validation_rank_1": 0.5}
    assert objective_at(point, "cosine") == 0.25
    assert objective_at(point, "rank_1") == 0.5
    assert objective_at({**point, "validation_margin": -1.5}, "margin") == -1.5 > DIVERGED
    assert objective_at({**point, "loss": float("nan")}, "cosine") == DIVERGED
    assert objective_at({**point, "loss": float("nan"), "step": 0.0}, "cosine") == 0.25


def start(tmp_path: Path, pause: float) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PAUSE": str(pause)}
    return subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("search_driver.py")),
            str(tmp_path / "work"),
            str(tmp_path / "log"),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def steps_taken(log: Path) -> Counter[str]:
    return Counter(log.read_text().split()) if log.exists() else Counter()


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra tune")
    log = tmp_path / "log"
    driver = start(tmp_path, pause=3)
    deadline = time.monotonic() + 280
    try:
        while len(steps_taken(log)) < 2 or steps_taken(log).total() < STEPS + 2:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline, "no second trial was started"
            time.sleep(0.2)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before = steps_taken(log)
    assert len(before) == 2, "it is killed in the second of three trials"
    again = start(tmp_path, pause=0)
    printed, errors = again.communicate(timeout=290)
    assert again.returncode == 0, printed[-2000:] + errors[-2000:]
    (line,) = [line for line in printed.splitlines() if line.startswith("TRIALS ")]
    trials = json.loads(line.removeprefix("TRIALS "))
    assert len(trials) == len({trial["trial"] for trial in trials}) == TRIALS
    assert [trial["objective"] for trial in trials] == sorted(
        (trial["objective"] for trial in trials), reverse=True
    )
    for trial in trials:
        assert trial["status"] == "finished"
        assert [point["step"] for point in json.loads(trial["curve"])] == [1, 2, 3]
    after = steps_taken(log)
    rates = {str(json.loads(t["settings"])["training.learning_rate"]) for t in trials}
    assert set(after) == rates, "no trial was lost and none was tried that does not count"
    first = log.read_text().split()[0]
    assert after[first] == STEPS, "what had ended was not run again"
    assert all(STEPS <= count <= STEPS + 2 for count in after.values())
