"""The command line refuses a wrong configuration at once, in a line or two, and does no work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"


def run(job: str, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, str(JOBS / job), *overrides],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("job", "override", "words"),
    [
        ("full_audit.py", "faces.rot=x", "Could not override 'faces.rot'"),
        ("full_audit.py", "anonymizer=nosuch", "Could not find 'anonymizer/nosuch'"),
        (
            "full_audit.py",
            "anonymizer.blur.sigma=-1",
            "ConfigError: anonymizer.blur.sigma must be above 0, not -1.0",
        ),
        pytest.param(
            "full_audit.py",
            "faces=folder",
            "ConfigError: faces.root: must be given, for example faces.root=VALUE",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "invert.py",
            "inversion.budget=0",
            "ConfigError: inversion.budget: must be at least 1, got 0",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "train_cldm.py",
            "training.diffusion.warmup=0",
            "ConfigError: training.diffusion.warmup: must be at least 1, got 0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_error_names_the_key(tmp_path: Path, job: str, override: str, words: str) -> None:
    found = run(job, tmp_path, override)
    assert found.returncode == 1
    assert found.stdout == ""
    assert words in found.stderr
    assert "Traceback" not in found.stderr
    if words.startswith("ConfigError"):
        assert found.stderr == f"{words}\n"
    assert list(tmp_path.iterdir()) == []
