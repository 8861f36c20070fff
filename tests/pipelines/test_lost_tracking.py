"""A real MLflow server that is down at the start, or dies while the audit works."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.small_audit import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import os, runpy, signal, sys
import cldmray.pipelines.audit
work = cldmray.pipelines.audit.Audit.run
def run(self, versions):
    if server := os.environ.get("DOOMED"):
        os.killpg(int(server), signal.SIGKILL)
    return work(self, versions)
cldmray.pipelines.audit.Audit.run = run
job = sys.argv.pop(1)
sys.argv[0] = job
runpy.run_path(job, run_name="__main__")
"""
SETTINGS = [
    *SMALL,
    "anonymizers=[no_op]",
    "attackers=[condition_match]",
    "audit.attribution=false",
    "audit.utility=[]",
    "engine.cpus=2",
    "engine.actors=1",
    "engine.object_store_mb=100",
    "cache_dir=cache",
    "output=out",
]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts a server over the same database on a port, and waits until it answers."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> subprocess.Popen[bytes]:
        store = f"sqlite:///{tmp_path}/server.db"
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
        command += ["--backend-store-uri", store, "--artifacts-destination", f"{tmp_path}/kept"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = (tmp_path / "server.log").open("ab")
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        started.append(server)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            try:
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                    return server
            except requests.RequestException:
                time.sleep(0.5)
        raise AssertionError((tmp_path / "server.log").read_text()[-3000:])

    yield start
    for server in started:
        try:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            server.wait()


def audit(folder: Path, port: int, **variables: str) -> subprocess.CompletedProcess[str]:
    """A small audit, which kills the server ``DOOMED`` after its run was opened there."""
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", **variables}
    job = str(ROOT / "jobs/full_audit.py")
    return subprocess.run(
        [sys.executable, "-c", JOB, job, f"tracking.uri=http://127.0.0.1:{port}", *SETTINGS],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=1000,
    )  # fmt: skip


def runs(port: int) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("cldmray")
    assert experiment is not None
    return list(
        client.search_runs(
            [experiment.experiment_id],
            filter_string="tags.kind = 'audit'",
            order_by=["attribute.start_time"],
        )
    )


def test_a_server_that_is_down_is_named_before_any_work(tmp_path: Path) -> None:
    port = free_port()
    result = audit(tmp_path, port)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"TrackingError: MLflow at http://127.0.0.1:{port} cannot be used: no answer within 5 s "
        "(ConnectionError); start the server, or set tracking.uri or MLFLOW_TRACKING_URI to "
        "another place"
    )
    assert "CLDMRAY_VERDICT" not in result.stdout
    assert not list((tmp_path / "cache").iterdir())


def test_a_server_that_dies_takes_no_result_along(
    tmp_path: Path, cache_dir: Path, serve: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    port = free_port()
    server = serve(port)
    result = audit(tmp_path, port, DOOMED=str(server.pid))
    assert server.wait(60) == -signal.SIGKILL
    assert result.returncode == 1, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert result.stdout.splitlines()[-1].startswith("CLDMRAY_VERDICT {")
    assert {"report.html", "verdict.json", "results.parquet"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    complaint = result.stderr.splitlines()[-1]
    assert complaint.startswith(
        f"TrackingError: the results are complete in out, but not in MLflow. MLflow at "
        f"http://127.0.0.1:{port} cannot be used: "
    )
    assert complaint.endswith(
        "To record them, run the same command again: what is finished is reused"
    )

    serve(port)
    again = audit(tmp_path, port)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "read synthetic ..." not in result.stdout, "its images were there before"
    for stage in ("anonymize by no_op", "embed by condition_match"):
        assert f"{stage} ..." in result.stdout
        assert f"{stage} ..." not in again.stdout
    lost, recorded = runs(port)
    assert lost.info.status == "KILLED"
    assert lost.data.tags["continued_by"] == recorded.info.run_id
    assert recorded.info.status == "FINISHED"
    assert recorded.data.tags["recommended"] == "none"
    assert "recommended" not in lost.data.tags
