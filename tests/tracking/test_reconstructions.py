"""A reconstruction study in MLflow: one parent, one child a trial."""

from pathlib import Path

import pyarrow as pa

from cldmray.tracking.layouts import reconstruction_metrics, record_reconstruction
from cldmray.tracking.runs import Tracker, TrackingConfig

ROWS = [
    {"anonymizer": "blur", "reconstructor": "unet", "gallery": "source_excluded",
     "measure": measure, "compared_with": other,
     "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "queries": 7}
    for measure, other in (("rank_1", ""), ("rank_1_gain", "raw"))
]  # fmt: skip
ROWS.append({**ROWS[0], "reconstructor": "raw", "gallery": "", "measure": "psnr", "queries": 0,
             "value": float("inf")})  # fmt: skip


def test_metrics() -> None:
    assert reconstruction_metrics(pa.Table.from_pylist(ROWS)) == {
        "blur/unet/source_excluded/rank_1": 0.5,
        "blur/unet/source_excluded/rank_1_ci_low": 0.4,
        "blur/unet/source_excluded/rank_1_ci_high": 0.6,
        "blur/unet/source_excluded/rank_1_gain_over_raw": 0.5,
        "blur/unet/source_excluded/rank_1_gain_over_raw_ci_low": 0.4,
        "blur/unet/source_excluded/rank_1_gain_over_raw_ci_high": 0.6,
        "blur/unet/queries": 7,
        "blur/raw/psnr_ci_low": 0.4,
        "blur/raw/psnr_ci_high": 0.6,
    }


def test_every_trial_is_a_child(tmp_path: Path) -> None:
    tracker = Tracker(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    tracker.check()
    trial = {
        "anonymizer": "blur", "trial": "t1", "status": "stopped", "best": True,
        "settings": {"training.learning_rate": 0.1, "budget": 5},
        "curve": [{"step": 2.0, "loss": float("nan"), "validation_rank_1": 0.1},
                  {"step": 4.0, "loss": 0.5, "validation_rank_1": 0.3}],
        "queries": 5, "steps": 4, "objective": 0.2, "seconds": 3.0,
        "validation_rank_1": 0.3, "validation_cosine": 0.2,
    }  # fmt: skip
    learning = {
        "anonymizer": "blur", "reconstructor": "unet",
        "points": [{"step": 3.0, "validation_cosine": 0.1}, {"step": 6.0, "loss": 0.4}],
    }  # fmt: skip
    with tracker.job_run("reconstruction", "name", {"a": 1}, seeds={"audit": 0}) as run:
        rows = pa.Table.from_pylist(ROWS)
        files = {"a.json": b"{}"}
        record_reconstruction(
            tracker,
            run,
            rows=rows,
            learning=[learning],
            trials=[trial],
            tags={"headline": "x"},
            files=files,
        )
    client = tracker.client
    (experiment,) = [e for e in client.search_experiments() if e.name == "cldmray"]
    runs = {r.data.tags["kind"]: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"reconstruction", "trial"}
    child, parent = runs["trial"], runs["reconstruction"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"training.learning_rate": "0.1", "budget": "5"}
    assert child.data.metrics["queries"] == 5
    assert child.data.tags["best"] == "True"
    history = client.get_metric_history(child.info.run_id, "training/validation_rank_1")
    assert [(point.step, point.value) for point in history] == [(2, 0.1), (4, 0.3)]
    assert parent.data.metrics["blur/unet/queries"] == 7
    history = client.get_metric_history(parent.info.run_id, "blur/unet/training/validation_cosine")
    assert [(point.step, point.value) for point in history] == [(3, 0.1)]
    assert parent.data.metrics["blur/unet/training/loss"] == 0.4
    assert parent.data.tags["headline"] == "x"
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["a.json", "tables"]
