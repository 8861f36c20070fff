"""How the audit's job ends: exit status, last line and MLflow, with an audit that does no work."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = """
import runpy, sys
from pathlib import Path
import numpy as np
import cldmray.pipelines.audit, cldmray.engine.cluster
from cldmray.errors import BadInputError
from cldmray.pipelines.attack_runner import AttackResults
from cldmray.faces.records import REJECTED
from cldmray.results.audit import AnonymizerRisk, Grid, AuditReport
from cldmray.results.table import RESULTS
from cldmray.evaluation.decision import decide
from cldmray.report.verdict import state_verdict

class Stub:
    def __init__(self, config, settings):
        self.config = config
    def run(self, versions):
        if self.config.audit.title == "broken":
            raise BadInputError("no such faces")
        risk = AnonymizerRisk(
            *("blur", 0.5, 0.4, 0.6, "adaptive_contrastive"),
            *("full_ref", "source_excluded", 0.01, 2, 0.95, 100),
        )
        verdict = state_verdict(decide([risk], {"no_op"}, self.config.audit.policy))
        grid = Grid(np.zeros((0, 8, 8, 3), np.uint8), [])
        report = AuditReport(
            "t", "2026-01-01T00:00:00", verdict, [risk], RESULTS.empty_table(), [], grid,
            REJECTED.empty_table(), 0, {}, {}, [], [],
        )
        return cldmray.pipelines.audit.AuditOutcome(report, AttackResults())

cldmray.pipelines.audit.Audit = Stub
cldmray.engine.cluster.connect = lambda engine: None
job = sys.argv.pop(1)
sys.argv[0] = job
runpy.run_path(job, run_name="__main__")
"""


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-c", STUB, str(ROOT / "jobs/full_audit.py"), "output=out", *overrides],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def only_run(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("cldmray")
    assert experiment is not None
    (result,) = client.search_runs([experiment.experiment_id])
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail_on", "status", "gate"),
    [
        ("null", 0, "none"),
        ('"k<2 or rank_1>0.4"', 0, "passed"),
        ('["k<20",leak]', 3, "failed"),
    ],
)
def test_an_audit_that_ran(tmp_path: Path, fail_on: str, status: int, gate: str) -> None:
    result = run(tmp_path, f"audit.fail_on={fail_on}")
    assert result.returncode == status, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    marker, _, text = result.stdout.splitlines()[-1].partition(" ")
    assert marker == "CLDMRAY_VERDICT"
    record = json.loads(text)
    assert record == json.loads((tmp_path / "out/verdict.json").read_text())
    assert record["gate"]["outcome"] == gate
    assert [reason[:11] for reason in record["gate"]["reasons"]] == (
        ["blur: k<20:", "blur: leak:"] if status else []
    )
    assert (tmp_path / "out/report.html").exists()
    tracked = only_run(tmp_path)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["gate"] == gate
    assert ("gate_reasons" in tracked.data.tags) == (status == 3)
    assert tracked.data.tags["recommended"] == "none"


@pytest.mark.slow
def test_an_audit_that_could_not_run(tmp_path: Path) -> None:
    result = run(tmp_path, "audit.title=broken", "audit.fail_on=leak")
    assert result.returncode == 1
    assert result.stderr.endswith("BadInputError: no such faces\n")
    assert "CLDMRAY_VERDICT" not in result.stdout
    assert only_run(tmp_path).info.status == "FAILED"


def test_help_tells_the_exit_statuses(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "jobs/full_audit.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0
    assert "3 the audit ran and audit.fail_on holds" in result.stdout
    assert "CLDMRAY_VERDICT {...}" in result.stdout
