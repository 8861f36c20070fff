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
from hydra import compose, initialize_config_dir

from cldmray.cli import jobs
from cldmray.cli.runtime import run_or_exit
from cldmray.pipelines.audit import Audit, AuditOutcome
from tests.small_audit import CONF, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SETTINGS = [
    *SMALL,
    "anonymizers=[no_op]",
    "attackers=[condition_match]",
    "audit.attribution=false",
    "audit.utility=[]",
]


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow gives a server that is away up after one more request."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


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


def audit(folder: Path, port: int) -> None:
    """A small audit, by its job."""
    places = [f"cache_dir={folder}/cache", f"output={folder}/out"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("audit", [*SETTINGS, f"tracking.uri=http://127.0.0.1:{port}", *places])
    run_or_exit(jobs.audit, composed)


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


def test_a_server_that_is_down_is_named_before_any_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with pytest.raises(SystemExit) as end:
        audit(tmp_path, port)
    assert end.value.code == (
        f"TrackingError: MLflow at http://127.0.0.1:{port} cannot be used: no answer within 5 s "
        "(ConnectionError); start the server, or set tracking.uri or MLFLOW_TRACKING_URI to "
        "another place"
    )
    assert "CLDMRAY_VERDICT" not in capfd.readouterr().out
    assert not list((tmp_path / "cache").iterdir())


def test_a_server_that_dies_takes_no_result_along(
    tmp_path: Path,
    cache_dir: Path,
    serve: Callable[[int], subprocess.Popen[bytes]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    server = serve(port)
    run = Audit.run

    def without_server(self: Audit, versions: dict[str, str]) -> AuditOutcome:
        """The work of an audit whose run is open at a server that is no more."""
        os.killpg(server.pid, signal.SIGKILL)
        return run(self, versions)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(Audit, "run", without_server)
        audit(tmp_path, port)
    assert server.wait(60) == -signal.SIGKILL
    result = capfd.readouterr()
    assert "Traceback" not in result.err
    assert result.out.splitlines()[-1].startswith("CLDMRAY_VERDICT {")
    assert {"report.html", "verdict.json", "results.parquet"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    complaint = str(end.value.code)
    assert complaint.startswith(
        f"TrackingError: the results are complete in {tmp_path}/out, but not in MLflow. MLflow at "
        f"http://127.0.0.1:{port} cannot be used: "
    )
    assert complaint.endswith(
        "To record them, run the same command again: what is finished is reused"
    )

    serve(port)
    audit(tmp_path, port)
    again = capfd.readouterr().out
    assert "embed by condition_match ..." in result.out
    for stage in ("read synthetic", "anonymize by no_op", "embed by condition_match"):
        assert f"{stage}: " in again
        assert f"{stage} ..." not in again
    lost, recorded = runs(port)
    assert lost.info.status == "KILLED"
    assert lost.data.tags["continued_by"] == recorded.info.run_id
    assert recorded.info.status == "FINISHED"
    assert recorded.data.tags["recommended"] == "none"
    assert "recommended" not in lost.data.tags
