"""Two audits written to a real MLflow server, and read back from it as its pages do."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cldmray.tracking import Tracker, TrackingConfig
from cldmray.tracking.audit_layout import MOST_METRICS
from tests.tracking.test_audits import ATTACKS, children_of, paths, table, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A tracker on a server that answers."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    command += ["--artifacts-destination", f"{folder}/kept"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while not _answers(uri):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        tracker = Tracker(TrackingConfig(uri=uri, timeout=60))
        tracker.check()
        yield tracker
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(uri: str) -> bool:
    try:
        return requests.get(f"{uri}/health", timeout=5).ok
    except requests.RequestException:
        return False


def test_two_audits_are_compared_on_a_server(server: Tracker) -> None:
    parents = []
    for title in ("first", "second"):
        with server.job_run("audit", title, {"audit": {"title": title}}) as run:
            write(server, run)
        parents.append(run.run_id)
    first, second = (server.client.get_run(run_id) for run_id in parents)
    assert first.data.metrics == second.data.metrics
    assert first.data.params["audit.title"] == "first"
    assert first.data.tags["mlflow.note.content"].startswith("**blur leaks identity.**")
    assert "report.html" in paths(server, parents[0])
    assert len(table(server, parents[0], "attacks")) == len(ATTACKS)
    page = server.client.download_artifacts(parents[0], "report.html")
    assert Path(page).read_text() == "<html>without people"

    children = [children_of(server, run_id) for run_id in parents]
    for attack in ATTACKS:
        child, other = (runs[attack] for runs in children)
        assert child.data.metrics == other.data.metrics
        assert child.data.params == other.data.params
        assert child.data.params["anonymizer"] == attack[0]
        assert 0 < len(child.data.metrics) <= MOST_METRICS
        assert child.inputs.dataset_inputs[0].dataset.digest == "abcd0123"
    curve = server.client.get_metric_history(children[0][ATTACKS[1]].info.run_id, "training/loss")
    assert [(point.step, point.value) for point in curve] == [(40, 3.0), (80, 1.5)]
    weak = server.client.search_runs(
        [first.info.experiment_id],
        "params.anonymizer = 'blur' and metrics.rank_1_cross_image > 0.15",
    )
    assert [run.data.params["attacker"] for run in weak] == ["clean_trained"] * 2
