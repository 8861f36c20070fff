"""Whole audits with a real local Ray: on synthetic faces, on LFW, through the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from cldmray.cli import jobs
from cldmray.cli.runtime import run_or_exit
from cldmray.config.audit import AuditConfig
from cldmray.engine import cluster
from cldmray.errors import BadInputError
from cldmray.faces.records import decode_images
from cldmray.hashing import identity_hash
from cldmray.pipelines.audit import Audit
from cldmray.results.table import RESULTS
from tests.small_audit import CLDM_CANNY, CONF, K_SAME, SMALL, configured, weak

ROOT = Path(__file__).resolve().parents[2]
ATTACKERS = ("clean_trained", "condition_only", "adaptive_contrastive")


def run_audit(config: AuditConfig) -> Any:
    return Audit(config, {}).run({"cldmray": "test"})


def images_of(cache_dir: Path, anonymizer: str) -> np.ndarray:
    (folder,) = cache_dir.glob(f"anonymize-{anonymizer}-*")
    table = pq.ParquetDataset(sorted(map(str, folder.glob("part-*.parquet")))).read()
    table = table.sort_by([("sample_id", "ascending"), ("sample", "ascending")])
    return decode_images(table["image"].to_pylist())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_job_writes_report_tables_and_runs(
    tmp_path: Path,
    cache_dir: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    overrides = [*SMALL, *weak(*ATTACKERS), "attackers.score_fusion.min_identities=2"]
    overrides += ["anonymizers=[no_op,k_same,cldm_canny]", K_SAME, CLDM_CANNY]
    overrides += [f"cache_dir={cache_dir}", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
    overrides += ["engine.actors=1", "engine.train_workers=1"]
    first = subprocess.run(
        [sys.executable, str(ROOT / "jobs/full_audit.py"), *overrides, f"output={out}"],
        cwd=tmp_path, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert "cldm-canny-1.0" in first.stdout and "report.html" in first.stdout

    table = pq.read_table(out / "results.parquet")
    assert table.schema.names == RESULTS.names
    assert json.loads((out / "results.json").read_text())["rows"] == table.to_pylist()
    settings = {"no_op", "k_same", "cldm-canny-1.0"}
    results = {(row["anonymizer"], row["attacker"]) for row in table.to_pylist()}
    attackers = {"pretrained", "condition_match", *ATTACKERS, "score_fusion"}
    expected = {(anonymizer, attacker) for anonymizer in settings for attacker in attackers}
    assert results == expected - {("no_op", "adaptive_contrastive")}, (
        "there is nothing to learn from copies"
    )
    included = [
        row["value"]
        for row in table.to_pylist()
        if row["anonymizer"] == "no_op" and row["gallery"] == "source_included"
        and row["measure"] == "rank_1"
        and row["attacker"] in ("pretrained", "condition_match", "clean_trained")
    ]  # fmt: skip
    assert min(included) == 1.0
    useful = pq.read_table(out / "utility.parquet").to_pylist()
    assert json.loads((out / "utility.json").read_text())["rows"] == useful
    kinds = {"sex", "age", "skin_tone"}
    measures = {"ssim", "edge_f1", "face_detection_rate", "pose_consistency", "frechet_pretrained"}
    measures |= {f"{kind}_agreement" for kind in kinds}
    assert {(row["anonymizer"], row["measure"]) for row in useful} == {
        (anonymizer, measure) for anonymizer in settings for measure in measures
    }
    page = (out / "report.html").read_text()
    assert "What privacy costs" in page
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["severity"] in {"leak", "inconclusive", "no_leak_found"}
    assert {entry["anonymizer"] for entry in verdict["settings"]} == settings
    assert "data:image/png;base64" in page and "cldm-canny-1.0" in page
    why = json.loads((out / "attribution.json").read_text())
    assert why["headline"] in " ".join(first.stdout.split())
    assert {row["question"] for row in why["rows"]} == {"swap", "ablation", "proxy"}
    assert {row["anonymizer"] for row in why["rows"] if row["question"] == "swap"} == {
        "cldm-canny-1.0-img2img-0.8"
    }

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("cldmray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags["kind"] == "audit"]
    assert len(parents) == 1 and len(runs) == 1 + len(results)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parents[0].data.tags["data_fingerprint"]
    assert parents[0].data.metrics["utility_kept/no_op"] == pytest.approx(1.0)
    assert "| no_op | (control) |" in parents[0].data.tags["mlflow.note.content"]
    children = [run for run in runs if run.data.tags["kind"] == "attack"]
    assert all("rank_1_cross_image" in run.data.metrics for run in children)
    assert {run.data.params["anonymizer"] for run in children} == settings

    def run_again(output: str) -> list[str]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("audit", [*overrides, f"output={tmp_path}/{output}"])
        capfd.readouterr()
        run_or_exit(jobs.audit, composed)
        printed = capfd.readouterr().out.splitlines()
        stages = [line for line in printed if line.endswith(" rows, found")]
        assert len(stages) == len([line for line in printed if " rows, " in line]) > 10
        first_bytes = (out / "results.parquet").read_bytes()
        assert (tmp_path / output / "results.parquet").read_bytes() == first_bytes
        return printed

    line = "compute the statistics: found"
    (kept,) = (cache_dir / "reports").iterdir()
    shutil.rmtree(kept)
    assert line not in run_again("computed")
    monkeypatch.setattr(cluster, "start", lambda: pytest.fail("Ray was asked for"))
    assert line in run_again("found")
    computed, again = (
        {
            (run.data.params["anonymizer"], run.data.params["attacker"]): run.data.metrics
            for run in client.search_runs(
                [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
            )
        }
        for parent in client.search_runs(
            [experiment.experiment_id],
            "tags.kind = 'audit'",
            order_by=["attributes.start_time DESC"],
            max_results=2,
        )
    )
    assert again == computed and set(again) == results


@pytest.mark.slow
def test_a_report_is_found_where_nothing_changed(tmp_path: Path, cache_dir: Path) -> None:
    overrides = [*SMALL, "anonymizers=[blur]", "attackers=[condition_match]"]
    overrides += ["audit.utility=[]", "audit.n_inference_images=0", f"cache_dir={cache_dir}"]

    def kept(*others: str, versions: str = "1") -> set[str]:
        config = configured(tmp_path, *overrides, *others)
        outcome = Audit(config, {"audit": others}).run({"cldmray": versions, "commit": "a"})
        assert outcome.report.created and outcome.report.settings == {"audit": others}
        return {folder.name for folder in (cache_dir / "reports").iterdir()}

    before = kept()
    assert kept() == before
    reports = [before]
    for others in (["audit.target_k=7"], ["report.evidence=false"]):
        reports.append(kept(*others))
        assert len(reports[-1] - reports[-2]) == 1
    assert len(kept(versions="2") - reports[-1]) == 1


@pytest.mark.slow
def test_repeating_and_resizing_change_nothing(tmp_path: Path, cache_dir: Path) -> None:
    """The first of the audits goes on from originals that are there, the second from nothing."""
    overrides = [*SMALL, "anonymizers=[blur,k_same,cldm_canny]", K_SAME, CLDM_CANNY]
    overrides += ["attackers=[clean_trained]", *weak("clean_trained")]
    overrides += ["audit.utility=[]", "audit.attribution=false", "audit.n_inference_images=0"]
    for folder in cache_dir.glob("anonymize-*"):
        shutil.rmtree(folder)
    first = run_audit(configured(tmp_path, *overrides)).report
    second = run_audit(configured(tmp_path / "second", *overrides)).report
    assert first.results.num_rows > 0
    assert first.results.equals(second.results)
    assert {stage.name for stage in first.stages if stage.reused} >= {"faces", "near-duplicates"}
    assert not any(stage.reused for stage in second.stages)

    engine = ["engine.batch_size=7", "engine.actors=1", "engine.block_rows=50"]
    preparation = Audit(configured(tmp_path / "resized", *overrides, *engine), {}).preparation
    faces = preparation.run(preparation.listing()).faces
    assert first.data_fingerprint == faces.manifest.content[:16]
    for anonymizer in ("blur", "k_same", "cldm-canny-1.0"):
        folders = [cache_dir, tmp_path / "second/cache", tmp_path / "resized/cache"]
        images, repeated, resized = (images_of(folder, anonymizer) for folder in folders)
        assert np.array_equal(images, repeated)
        difference = images.astype(int) - resized
        assert np.abs(difference).max() <= (1 if anonymizer.startswith("cldm") else 0)


def test_a_claim_that_cannot_be_tested_is_refused_before_work(tmp_path: Path) -> None:
    config = configured(tmp_path, *SMALL, "anonymizers=no_op", "audit.fail_on='k<7 or leak'")
    with pytest.raises(BadInputError, match="audit.fail_on: k<7 cannot be tested on 6 people"):
        run_audit(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_people_whom_the_model_was_trained_on_are_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, *SMALL, "anonymizers=cldm_none")
    hashes = {identity_hash(name) for name in config.faces.listing()["identity"].to_pylist()}
    anonymizer = config.anonymizers["cldm_none"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(anonymizer), "trained_on", lambda self: frozenset(hashes))
        with pytest.raises(BadInputError, match="allow_trained_identities=true"):
            run_audit(config)


@pytest.mark.slow
@pytest.mark.lfw
@pytest.mark.usefixtures("local_ray")
def test_an_audit_of_real_faces_survives_bad_files(tmp_path: Path, lfw_root: Path) -> None:
    root = tmp_path / "images"
    identities = [p for p in sorted(lfw_root.iterdir()) if 4 <= len(list(p.iterdir())) <= 8][:40]
    for identity in identities:
        folder = root / identity.name
        folder.mkdir(parents=True)
        for image in identity.iterdir():
            (folder / image.name).symlink_to(image)
    victim = root / identities[0].name
    (victim / "empty.jpg").write_bytes(b"")
    (victim / "not an image.jpg").write_text("hello")
    whole = next(identities[0].iterdir()).read_bytes()
    (victim / "truncated.jpg").write_bytes(whole[: len(whole) // 2])

    config = configured(
        tmp_path,
        "faces=lfw",
        f"faces.root={root}",
        "splits.n_evaluation_identities=15",
        "splits.min_images=4",
        "splits.validation_fraction=0.3",
        "anonymizers=[no_op,pixelate]",
        "attackers=[pretrained,clean_trained]",
        "audit.n_bootstrap=100",
        "audit.n_inference_images=0",
        "engine.progress=false",
        *weak("clean_trained"),
    )
    report = run_audit(config).report
    reasons = {row["reason"] for row in report.rejected.to_pylist()}
    assert reasons == {"empty file", "not an image", "truncated"}
    rows = report.results.to_pylist()
    copies = [
        row for row in rows
        if row["anonymizer"] == "no_op" and row["measure"] == "rank_1"
        and row["gallery"] == "source_included" and row["attacker"] == "clean_trained"
    ]  # fmt: skip
    assert [row["value"] for row in copies] == 6 * [1.0]  # three protocols, two levels
    bounded = [row for row in rows if row["ci_low"] is not None]
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in bounded)
    assert all(row["reason"] for row in rows if row["ci_low"] is None)
    whole = [row for row in rows if not row["measure"].startswith("rank_1_at_gallery_")]
    assert {row["gallery_size"] for row in whole} == {15}
