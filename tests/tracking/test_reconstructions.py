"""A reconstruction study in MLflow: one parent, one child a trial."""

from pathlib import Path

import pyarrow as pa

from cldmray.tracking.layouts import (
    most_identified,
    reconstruction_metrics,
    record_reconstruction,
)
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
    unet, raw = ROWS[:2], ROWS[2:]
    assert reconstruction_metrics(unet) == {
        "queries": 7,
        "rank_1_cross_image": 0.5,
        "gain_over_raw_cross_image": 0.5,
        "rank_1_cross_image_low": 0.4,
        "rank_1_cross_image_high": 0.6,
        "gain_over_raw_cross_image_low": 0.4,
        "gain_over_raw_cross_image_high": 0.6,
    }
    assert reconstruction_metrics(raw) == {"psnr_low": 0.4, "psnr_high": 0.6}
    assert list(reconstruction_metrics(unet, 3))[-1] == "gain_over_raw_cross_image"


def test_the_whole_is_the_most_that_a_model_identifies() -> None:
    better = {**ROWS[0], "reconstructor": "diffusion", "value": 0.7}
    control = {**ROWS[0], "reconstructor": "nearest_neighbor", "value": 0.9}
    gain = {**ROWS[1], "reconstructor": "diffusion"}
    table = pa.Table.from_pylist([*ROWS, better, control, gain])
    assert most_identified(table) == {
        "n_models": 2,
        "rank_1_cross_image": 0.7,
        "rank_1_cross_image/blur": 0.7,
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
    runs = {
        r.data.tags.get("attacker", r.data.tags["kind"]): r
        for r in client.search_runs([experiment.experiment_id])
    }
    assert set(runs) == {"reconstruction", "trial", "unet", "raw"}
    child, parent = runs["trial"], runs["reconstruction"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"training.learning_rate": "0.1", "budget": "5"}
    assert child.data.metrics["queries"] == 5
    assert child.data.tags["best"] == "True"
    history = client.get_metric_history(child.info.run_id, "training/validation_rank_1")
    assert [(point.step, point.value) for point in history] == [(2, 0.1), (4, 0.3)]
    assert parent.data.metrics["rank_1_cross_image"] == 0.5
    model = runs["unet"]
    assert model.data.params == {"anonymizer": "blur", "reconstructor": "unet"}
    assert model.data.metrics["queries"] == 7
    history = client.get_metric_history(model.info.run_id, "training/validation_cosine")
    assert [(point.step, point.value) for point in history] == [(3, 0.1)]
    assert model.data.metrics["training/loss"] == 0.4
    assert parent.data.tags["headline"] == "x"
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["a.json", "tables"]
