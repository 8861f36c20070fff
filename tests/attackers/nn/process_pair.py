"""Two processes of one script, which meet in a folder: the workers of a distributed loss."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run_pair(script: str, folder: Path) -> None:
    """Run ``script FOLDER RANK`` as ranks 0 and 1 at once; both have to succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, str(folder)]
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
