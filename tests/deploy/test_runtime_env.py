"""deploy/runtime-env.yaml brings a job's environment to a cluster that has Ray alone."""

import os
import re
import socket
import subprocess
import tempfile
import time
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "runtime-env.yaml"
PATIENCE = 3000
"""Seconds that an installation may take on a machine that is busy with other work."""
AUDIT = [
    "faces.n_identities=12", "faces.images_per_identity=3", "splits.n_evaluation_identities=6",
    "splits.min_images=3", "anonymizers=[blur]", "attackers=[condition_match]", "audit.utility=[]",
    "audit.attribution=false", "audit.n_bootstrap=100", "engine.actors=1",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(
    command: list[str], environment: dict[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    """A head that is up; several tries, since Ray gives itself 30 s."""
    for _ in range(8):
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        while process.poll() is None:
            up = "Ray runtime started" in log.read_text()
            time.sleep(3)
            if up and process.poll() is None:
                return process
    raise AssertionError(log.read_text())


def test_ray_accepts_it() -> None:
    environment = RuntimeEnv(**yaml.safe_load(FILE.read_text(encoding="utf-8")))
    assert environment.has_pip()


def test_it_installs_the_project_with_its_constraints(pins: dict[str, str]) -> None:
    text = FILE.read_text(encoding="utf-8")
    packages = yaml.safe_load(text)["pip"]["packages"]
    folder = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
    assert packages[0] == f"-c {folder}/constraints.txt"
    assert packages[2] == f"torch=={pins['torch']}"
    assert f"ray[default]=={pins['ray']}" in text
    extras = re.fullmatch(re.escape(folder) + r"\[(.*)\]", packages[1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3 * PATIENCE)
def test_a_job_runs_on_a_bare_head(tmp_path: Path, pins: dict[str, str]) -> None:
    """The file's first lines, in an environment that holds ``ray[default]`` only."""
    venv.create(tmp_path / "bare", with_pip=True)
    programs = tmp_path / "bare" / "bin"
    packages = [f"ray[default]=={pins['ray']}", "-c", str(ROOT / "constraints.txt")]
    installed = subprocess.run(
        [programs / "pip", "install", "--quiet", *packages],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"pip reaches no index here: {installed.stderr[-200:]}")
    short = tempfile.TemporaryDirectory(prefix="cr", dir="/tmp", ignore_cleanup_errors=True)
    dropped = ("PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in dropped} | {
        "CLDMRAY_STORAGE": str(tmp_path / "storage"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": short.name,
    }
    port = free_port()
    start = [
        "start", "--head", "--block", "--port=0", f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={short.name}", "--num-cpus=2",
        f"--ray-client-server-port={free_port()}", "--object-store-memory=200000000",
        "--disable-usage-stats",
    ]  # fmt: skip
    with short:
        head = started([str(programs / "ray"), *start], environment, tmp_path / "head.log")
        try:
            job = subprocess.run(
                [
                    programs / "ray", "job", "submit", "--address", f"http://127.0.0.1:{port}",
                    "--runtime-env", FILE, "--working-dir", ".", "--",
                    "python", "jobs/full_audit.py", *AUDIT, f"output={tmp_path}/report",
                ],
                cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
        finally:
            head.terminate()
            head.wait(60)
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    assert "CLDMRAY_VERDICT" in job.stdout
    assert (tmp_path / "report" / "report.html").exists()
