"""The whole attribution with a real local Ray, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cldmray.results.attribution import ATTRIBUTION

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "encoder.width=8",
    "training.max_steps=6",
    "training.batch_size=16",
    "training.warmup_steps=2",
]


@pytest.mark.slow
def test_the_job_writes_tables_page_and_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        str(ROOT / "jobs/attribute_leak.py"),
        "faces.n_identities=24",
        "faces.images_per_identity=3",
        "splits.n_evaluation_identities=9",
        "splits.min_images=3",
        "splits.validation_fraction=0.3",
        "anonymizers=[cldm_none,cldm_canny]",
        "anonymizers.cldm_none.num_inference_steps=2",
        "anonymizers.cldm_canny.num_inference_steps=2",
        "attackers=[clean_trained,adaptive_contrastive]",
        *(
            f"attackers.{attacker}.{item}"
            for attacker in ("clean_trained", "adaptive_contrastive")
            for item in TINY
        ),
        "audit.n_bootstrap=100",
        "engine.progress=false",
        "attribution.scales=[0,1]",
        "attribution.swap={anonymizers:[cldm_canny],strengths:[0.6]}",
        "attribution.operating_point.scales=[1]",
        "attribution.operating_point.coarseness=[1,4]",
        "attribution.operating_point.strengths=[null]",
        "attribution.operating_point.target_k=2",
        f"cache_dir={tmp_path}/work",
        f"output={out}",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=590
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    table = pq.read_table(out / "attribution.parquet")
    assert table.schema.equals(ATTRIBUTION)
    rows = table.to_pylist()
    settings = {"cldm-none", "cldm-canny-1.0", "cldm-canny-1.0-img2img-0.6",
                "cldm-canny-1.0-coarse4"}  # fmt: skip
    attackers = {"clean_trained", "adaptive_contrastive"}
    rates = [r for r in rows if (r["question"], r["measure"]) == ("ablation", "rank_1")]
    assert {(r["anonymizer"], r["attacker"]) for r in rates} == {
        (anonymizer, attacker) for anonymizer in settings for attacker in attackers
    }
    assert {r["subset"] for r in rows if r["question"] == "region"} == {
        "region=face",
        "region=surroundings",
    }
    swapped = [r for r in rows if r["question"] == "swap"]
    assert {r["anonymizer"] for r in swapped} == {"cldm-canny-1.0-img2img-0.6"}
    assert {(r["attacker"], r["gallery"]) for r in swapped} == {
        (attacker, gallery)
        for attacker in attackers
        for gallery in ("source_excluded", "source_included")
    }
    assert {r["n_probes"] for r in swapped} == {27}
    searched = [r for r in rows if r["question"] == "operating_point"]
    assert {r["anonymizer"] for r in searched} == {"cldm-canny-1.0", "cldm-canny-1.0-coarse4"}
    assert {r["measure"] for r in searched} == {"rank_1", "ssim", "edge_f1"}
    bounded = [r for r in rows if r["ci_low"] is not None]
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in bounded)
    assert all(r["reason"] for r in rows if r["ci_low"] is None)

    whole = json.loads((out / "attribution.json").read_text())
    assert any(text.startswith("Of 2 settings searched") for text in whole["statements"])
    assert whole["headline"] in " ".join(done.stdout.split())
    assert "What carries the leak" in (out / "attribution.html").read_text()

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cldmray").experiment_id])  # type: ignore[union-attr]
    assert run.info.status == "FINISHED"
    assert run.data.tags["headline"] == whole["headline"]
    assert "operating_point/cldm-canny-1.0/ssim" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "attribution.html", "attribution.json", "attribution.parquet", "tables",
    }  # fmt: skip
