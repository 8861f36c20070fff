"""A training in MLflow: curves by phase, artifacts, status."""

from pathlib import Path

import pytest

from cldmray.tracking import Tracker
from cldmray.tracking.layouts import record_training


def test_a_finished_training(tracker: Tracker) -> None:
    curves = {
        "autoencoder": [{"step": 2.0, "loss": 0.5}, {"step": 4.0, "loss": 0.25}],
        "diffusion": [{"step": 3.0, "loss": 0.75}],
    }
    with tracker.job_run("training", "small", {"training": {"seed": 3}}) as run:
        record_training(run, curves, {"README.md": b"a card", "samples.png": b"\x89PNG"})
    stored = tracker.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "small"
    assert stored.data.tags["kind"] == "training"
    assert stored.data.tags["version.torch"]
    assert stored.data.params["training.seed"] == "3"
    history = tracker.client.get_metric_history(run.run_id, "autoencoder/loss")
    assert [(point.step, point.value) for point in history] == [(2, 0.5), (4, 0.25)]
    assert stored.data.metrics == {"autoencoder/loss": 0.25, "diffusion/loss": 0.75}
    names = {item.path for item in tracker.client.list_artifacts(run.run_id)}
    assert names == {"README.md", "samples.png"}
    local = tracker.client.download_artifacts(run.run_id, "README.md")
    assert Path(local).read_bytes() == b"a card"


def test_an_interrupted_training(tracker: Tracker) -> None:
    with pytest.raises(KeyboardInterrupt), tracker.job_run("training", "cut", {}) as run:
        raise KeyboardInterrupt
    assert tracker.client.get_run(run.run_id).info.status == "KILLED"
