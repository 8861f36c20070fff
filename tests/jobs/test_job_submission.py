"""`ray job submit` against a head of our own: the log, the exit status, a stop and what goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util import get_node_ip_address

from cldmray.engine.cluster import KEEP_WORKERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 1200
"""Seconds that a step may take on a machine that is busy with other work."""
AUDIT = [
    "python", "jobs/full_audit.py", "faces.n_identities=18", "faces.images_per_identity=3",
    "splits.n_evaluation_identities=6", "splits.min_images=3", "splits.validation_fraction=0.3",
    "anonymizers=[no_op,blur]", "attackers=[condition_match]", "audit.utility=[]",
    "audit.attribution=false", "audit.n_bootstrap=100", "engine.actors=1",
]  # fmt: skip


class Head(NamedTuple):
    """Address of its dashboard, its environment, and where its jobs' stages and runs go."""

    address: str
    environment: dict[str, str]
    storage: Path
    tracking: str

    @property
    def client(self) -> JobSubmissionClient:
        return JobSubmissionClient(self.address)

    def ray_job(self, *formatting: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "ray", "job", formatting[0], "--address", self.address, *formatting[1:]],
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def submit(
        self, name: str, *overrides: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        given = ["--submission-id", name, "--working-dir", str(ROOT), *options]
        return self.ray_job("submit", *given, "--", *AUDIT, *overrides)


def run_status(tracking: str, title: str) -> list[str]:
    """Of the runs with a title."""
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("cldmray")
    assert experiment is not None
    result = client.search_runs([experiment.experiment_id])
    return [run.info.status for run in result if run.info.run_name == title]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A head that is up; several tries: Ray gives itself 30 s, too few where much else runs."""
    for _ in range(8):
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        while process.poll() is None:
            up = "Ray runtime started" in log.read_text()
            time.sleep(3)  # it ends soon where one of its servers did not come up
            if up and process.poll() is None:
                return process
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head --block`, ended by SIGTERM to it; the path of its sockets must be short."""
    folder = tmp_path_factory.mktemp("head")
    short = tempfile.TemporaryDirectory(prefix="cr", dir="/tmp", ignore_cleanup_errors=True)
    storage, tracking = folder / "storage", f"sqlite:///{folder}/runs.db"
    dropped = ("PYTHONPATH", "RAY_ADDRESS")
    environment = {key: value for key, value in os.environ.items() if key not in dropped} | {
        "CLDMRAY_STORAGE": str(storage),
        "MLFLOW_TRACKING_URI": tracking,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_TMPDIR": short.name,
        "RAY_worker_niceness": "0",
        **KEEP_WORKERS,
    }
    port = free_port()
    start = [
        "start", "--head", "--block", "--port=0", f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={short.name}", "--num-cpus=2",
        f"--ray-client-server-port={free_port()}", "--object-store-memory=200000000",
        "--disable-usage-stats",
    ]  # fmt: skip
    with short, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        process = started([str(BIN / "ray"), *start], environment, folder / "head.log")
        try:
            yield Head(f"http://127.0.0.1:{port}", environment, storage, tracking)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


class Placeless(NamedTuple):
    """Options of a job that says no place, and the folder in its home that it then takes."""

    options: list[str]
    kept: Path

    def run_status(self, title: str) -> list[str]:
        return run_status(f"sqlite:///{self.kept}/mlflow.db", title)


@pytest.fixture(scope="module")
def placeless(tmp_path_factory: pytest.TempPathFactory) -> Placeless:
    home = tmp_path_factory.mktemp("home")
    variables = {"CLDMRAY_STORAGE": "", "MLFLOW_TRACKING_URI": "", "HOME": str(home)}
    runtime_env = json.dumps({"env_vars": variables})
    return Placeless(["--runtime-env-json", runtime_env], home / "cldmray")


@pytest.fixture(scope="module")
def undisturbed(head: Head, placeless: Placeless) -> subprocess.CompletedProcess[str]:
    """The audit that the others are compared with."""
    return head.submit("undisturbed", "audit.title=undisturbed", options=placeless.options)


def stages(cache_dir: Path) -> dict[str, dict[str, object]]:
    """Content and number of rows of every finished stage, by the name of its folder."""
    results = {}
    for path in cache_dir.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        rows = sum(manifest["files"].values())
        results[path.parent.name] = {"content": manifest["content"], "rows": rows}
    return results


def test_an_audit_that_ran(
    head: Head, placeless: Placeless, undisturbed: subprocess.CompletedProcess[str]
) -> None:
    log = undisturbed.stdout
    assert undisturbed.returncode == 0, log[-3000:] + undisturbed.stderr[-3000:]
    lines = [f"runs go to {placeless.kept} on ", "read synthetic ...", "read synthetic: 54 rows",
             "anonymize by no_op ...", "anonymize by blur: 18 rows", "embed by condition_match",
             "Report: ", f"MLflow: sqlite:///{placeless.kept}/mlflow.db, run ",
             "CLDMRAY_VERDICT {"]  # fmt: skip
    places = [log.find(line) for line in lines]
    assert -1 not in places and places == sorted(places)
    assert "Traceback" not in log
    assert "Note: output" not in log
    assert head.client.get_job_status("undisturbed") == JobStatus.SUCCEEDED
    assert placeless.run_status("undisturbed") == ["FINISHED"]
    assert len(list(placeless.kept.glob("*/report.html"))) == 1
    names = {folder.rpartition("-")[0] for folder in stages(placeless.kept / "cache")}
    assert names == {"faces", "near-duplicates", "anonymize-no_op", "anonymize-blur", "pixels",
                     "embed-condition_match"}  # fmt: skip


def test_the_dashboard_listens_on_loopback_only(head: Head) -> None:
    outside = get_node_ip_address()
    if outside.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    with socket.socket() as probe:
        assert probe.connect_ex((outside, int(head.address.rsplit(":", 1)[1]))) != 0


@pytest.mark.usefixtures("undisturbed")
def test_an_audit_whose_gate_fails(head: Head, placeless: Placeless) -> None:
    """A second job without a place shares that of the first."""
    overrides = ["audit.title=gate", "audit.fail_on=inconclusive", "output=runs/gate"]
    done = head.submit("gate", *overrides, options=placeless.options)
    assert done.returncode == 1
    assert f"runs go to {placeless.kept} on " in done.stdout
    assert "read synthetic: 54 rows, found" in done.stdout
    assert "Note: output: in Ray's copy of the project" in done.stdout
    assert '"gate":{"outcome":"failed"' in done.stdout
    status = head.ray_job("status", "gate").stdout
    assert "Job 'gate' failed" in status
    assert "failed with exit code 3" in status
    assert head.client.get_job_info("gate").driver_exit_code == 3
    assert placeless.run_status("gate") == placeless.run_status("undisturbed") == ["FINISHED"]


@pytest.mark.usefixtures("undisturbed")
def test_an_audit_that_is_stopped_goes_on_when_submitted_again(
    head: Head, placeless: Placeless
) -> None:
    """Its places are those that the environment of the cluster names."""
    cache_dir, output = head.storage / "cache", head.storage / "report"
    overrides = ["audit.title=stopped", f"output={output}"]
    client = head.client
    client.submit_job(
        entrypoint=" ".join([*AUDIT, *overrides]),
        submission_id="stopped",
        runtime_env={"working_dir": str(ROOT)},
    )
    until = time.monotonic() + PATIENCE
    while "anonymize by no_op: " not in (log := client.get_job_logs("stopped")):
        assert not client.get_job_status("stopped").is_terminal(), log
        assert time.monotonic() < until, log
        time.sleep(0.2)
    assert client.stop_job("stopped")
    until = time.monotonic() + PATIENCE
    while not client.get_job_status("stopped").is_terminal():
        assert time.monotonic() < until
        time.sleep(0.2)
    assert client.get_job_status("stopped") == JobStatus.STOPPED
    log = client.get_job_logs("stopped")
    assert "Stopped by SIGTERM. The same command goes on from what is finished.\n" in log
    assert "Traceback" not in log
    assert "CLDMRAY_VERDICT" not in log
    assert not list(output.iterdir())
    assert run_status(head.tracking, "stopped") == ["KILLED"]
    finished = stages(cache_dir)
    whole = stages(placeless.kept / "cache")
    assert 2 <= len(finished) < len(whole)
    assert finished.items() <= whole.items()

    again = head.submit("again", *overrides)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "read synthetic: 54 rows, found" in again.stdout
    assert "anonymize by no_op: 18 rows, found" in again.stdout
    assert sorted(run_status(head.tracking, "stopped")) == ["FINISHED", "KILLED"]
    assert stages(cache_dir) == whole
    (undisturbed,) = placeless.kept.glob("*/results.parquet")
    tables = [pq.read_table(file) for file in (output / "results.parquet", undisturbed)]
    assert tables[0].num_rows > 0
    assert tables[0].equals(tables[1])
