"""One pair of processes for all distributed losses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def process_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``losses`` and ``gradient_cache`` with what each of two processes has computed."""
    folder = tmp_path_factory.mktemp("gloo")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("process_pair.py")
    command = [sys.executable, str(script), str(folder)]
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    return folder
