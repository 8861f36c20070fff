"""A small audit as a process of its own, and what it leaves behind."""

import atexit
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "faces.n_identities=24",
    "faces.images_per_identity=3",
    "splits.min_images=3",
    "splits.n_evaluation_identities=8",
    "splits.validation_fraction=0.3",
    "anonymizers=[blur,k_same,cldm_canny]",
    "anonymizers.k_same.k=4",
    "anonymizers.cldm_canny.num_inference_steps=24",
    "attackers=[condition_match,clean_trained]",
    "attackers.clean_trained.encoder.width=8",
    "attackers.clean_trained.training.max_steps=60",
    "attackers.clean_trained.training.batch_size=16",
    "attackers.clean_trained.training.warmup_steps=2",
    "attackers.clean_trained.training.validate_every=5",
    "audit.n_bootstrap=200",
    "audit.n_example_images=2",
    "audit.utility=[]",
    "audit.attribution=false",
    "engine.progress=false",
    "engine.block_rows=8",
    "engine.train_failures=20",
)
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
}
BEGUN = re.compile(r"^(.+) \.\.\.$")
ENDED = re.compile(r"^(.+): \d+ rows, ")
KEPT = (".parquet", ".safetensors", "manifest.json")
"""Endings of the files that two audits have to have in common."""


def environment() -> dict[str, str]:
    """That of this process with what clusters and drivers need."""
    return {**os.environ, **ENVIRONMENT}


class Driver:
    """A running ``jobs/full_audit.py``.

    Args:
        folder: gets ``cache_dir``, ``out`` and ``log``; what a killed driver left is there.
        address: of the cluster.
        environment: of the process.
        overrides: of the audit's settings, beside :data:`SETTINGS`.

    Attributes:
        seconds: that each stage took, by its title, in the order in which they ended.
        begun: when each running stage began (``time.monotonic``), by its title.
    """

    def __init__(
        self, folder: Path, address: str, environment: Mapping[str, str], *overrides: str
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "jobs/full_audit.py"), *SETTINGS]
        command += [
            f"engine.address={address}",
            f"cache_dir={folder}/cache_dir",
            f"output={folder}/out",
        ]
        command += [f"tracking.uri=sqlite:///{folder.parent}/mlflow.db", *overrides]
        self.seconds: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.process.kill)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with (self.folder / "log").open("a") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                if match := BEGUN.match(line):
                    self.begun[match[1]] = time.monotonic()
                elif (match := ENDED.match(line)) and match[1] in self.begun:
                    self.seconds[match[1]] = time.monotonic() - self.begun.pop(match[1])
        self.begun = {}

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill -9 the process."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()

    def finish(self, seconds: float) -> int:
        """Exit status of the audit, which is killed after so many seconds (then -9)."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join()
        return self.process.wait()


def kept_files(folder: Path) -> dict[str, str]:
    """Hash of every table, manifest and encoder of an audit, by its path below the folder."""
    results = folder / "out" / "results.parquet"
    stages = (path for stage in (folder / "cache_dir").glob("*") for path in stage.glob("*"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted([*stages, *([results] if results.exists() else [])])
        if path.name.endswith(KEPT)
    }


def measures(folder: Path) -> dict[tuple[str, ...], float | None]:
    """Every value of an audit's results, by what it measures; None is one that is not supported."""
    keys = ("anonymizer", "attacker", "protocol", "gallery", "level", "subset", "measure")
    rows = pq.read_table(folder / "out" / "results.parquet").to_pylist()
    return {tuple(row[key] for key in keys): row["value"] for row in rows}
