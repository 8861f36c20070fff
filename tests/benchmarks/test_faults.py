"""Real clusters of several processes, in which something is killed, or comes and goes."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("CLDMRAY_KILLS", "1"))
"""Of each of the five kinds of processes."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env=environment, capture_output=True, text=True, timeout=3500,
    )  # fmt: skip


@pytest.mark.kills
def test_kills_change_no_byte(tmp_path: Path) -> None:
    """Set ``CLDMRAY_FAULTS`` to a folder to keep the table of kills."""
    out = Path(os.environ.get("CLDMRAY_FAULTS", tmp_path))
    together = ["--together"] if KILLS == 1 else []
    process = run("faults.py", f"--kills={KILLS}", "--seed=0", f"--out={out}", *together)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    kills = json.loads((out / "faults.json").read_text())["kills"]
    assert {kill["result"] for kill in kills} == {"identical"}
    assert len(kills) >= 5 * KILLS
    targets = Counter(kill["target"] for kill in kills)
    assert len(targets) == 5 and min(targets.values()) >= KILLS
    assert len((out / "faults.md").read_text().splitlines()) == len(kills) + 2


@pytest.mark.nightly
def test_workers_come_for_an_audit_and_go_after_it(tmp_path: Path) -> None:
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs a process namespace of its own")
    process = run("elastic.py", "--nodes=2", f"--out={tmp_path}")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    report = json.loads((tmp_path / "elastic.json").read_text())
    counts = [count for _, count in report["nodes"]]
    assert counts[0] == counts[-1] == 0
    assert max(counts) >= 1
    assert report["differences"] == []
    assert report["files"] > 20
