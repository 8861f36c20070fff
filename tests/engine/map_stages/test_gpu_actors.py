"""Actors that share a GPU, as far as this can be tried where there is none."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_actors_on_one_gpu() -> None:
    with tempfile.TemporaryDirectory(prefix="gpu", dir="/tmp") as temporary:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("gpu_driver.py")), temporary],
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == {"ids": list(range(70)), "same": True, "gpus": [0], "shares": [50]}
