"""The whole attribution job with a real local Ray."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from cldmray.cli.jobs import attribute
from cldmray.cli.runtime import run_or_exit
from cldmray.results.attribution import ATTRIBUTION
from tests.small_audit import CLDM_CANNY, CONF, IMAGES, N_EVALUATED, SMALL, weak


@pytest.mark.slow
def test_the_job_writes_tables_page_and_run(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    overrides = [
        *SMALL,
        "anonymizers=[cldm_none,cldm_canny]",
        "anonymizers.cldm_none.num_inference_steps=2",
        CLDM_CANNY,
        "attackers=[clean_trained,adaptive_contrastive]",
        *weak("clean_trained", "adaptive_contrastive"),
        "attribution.scales=[0,1]",
        "attribution.swap={anonymizers:[cldm_canny],strengths:[0.6]}",
        "attribution.operating_point.scales=[1]",
        "attribution.operating_point.coarseness=[1,4]",
        "attribution.operating_point.strengths=[null]",
        "attribution.operating_point.target_k=2",
        "engine.actors=1",
        "engine.train_workers=1",
        f"cache_dir={cache_dir}",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        f"output={out}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("attribute", overrides)
    run_or_exit(attribute, composed)
    printed = " ".join(capsys.readouterr().out.split())

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
    assert {r["n_probes"] for r in swapped} == {N_EVALUATED * IMAGES}
    searched = [r for r in rows if r["question"] == "operating_point"]
    assert {r["anonymizer"] for r in searched} == {"cldm-canny-1.0", "cldm-canny-1.0-coarse4"}
    assert {r["measure"] for r in searched} == {"rank_1", "ssim", "edge_f1"}
    bounded = [r for r in rows if r["ci_low"] is not None]
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in bounded)
    assert all(r["reason"] for r in rows if r["ci_low"] is None)

    whole = json.loads((out / "attribution.json").read_text())
    assert any(text.startswith("Of 2 settings searched") for text in whole["statements"])
    assert whole["headline"] in printed
    assert "What carries the leak" in (out / "attribution.html").read_text()

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cldmray").experiment_id])  # type: ignore[union-attr]
    assert run.info.status == "FINISHED"
    assert run.data.tags["headline"] == whole["headline"]
    assert "operating_point/ssim" in run.data.metrics and len(run.data.metrics) <= 40
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "attribution.html", "attribution.json", "attribution.parquet", "tables",
    }  # fmt: skip
