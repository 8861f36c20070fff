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
    ("job", "override", "formatting"),
    [
        ("full_audit.py", "faces.rot=x", "Could not override 'faces.rot'"),
        (
            "full_audit.py",
            "anonymizers=nosuch",
            "ConfigError: anonymizers: there is no nosuch; see cldmray list anonymizers",
        ),
        (
            "full_audit.py",
            "anonymizers.blur.sigma=-1",
            "ConfigError: anonymizers.blur.sigma: must be above 0, got -1",
        ),
        pytest.param(
            "full_audit.py",
            "faces=folder",
            "ConfigError: faces.root: must be given, for example faces.root=VALUE",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "invert.py",
            "reconstruction.budget=0",
            "ConfigError: reconstruction.budget: must be at least 1, got 0",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "attribute_leak.py",
            "attribution.operating_point.target_k=1",
            "ConfigError: attribution.operating_point.target_k: must be at least 2, got 1",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "train_cldm.py",
            "training.diffusion.warmup_steps=0",
            "ConfigError: training.diffusion.warmup_steps: must be at least 1, got 0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_error_names_the_key(tmp_path: Path, job: str, override: str, formatting: str) -> None:
    result = run(job, tmp_path, override)
    assert result.returncode == 1
    assert result.stdout == ""
    assert formatting in result.stderr
    assert "Traceback" not in result.stderr
    if formatting.startswith("ConfigError"):
        assert result.stderr == f"{formatting}\n"
    assert list(tmp_path.iterdir()) == []
