"""The table of an audit's time, and two of them side by side."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "audit_time.py"
    spec = importlib.util.spec_from_file_location("audit_time", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_time"] = module  # where dataclasses look for the annotations' names
    spec.loader.exec_module(module)
    return module


def test_work_is_laid_out_beside_wall_time(script: ModuleType) -> None:
    stages = [
        script.StageUse("read faces", 5.0, 20.0, 30.0),
        script.StageUse("embed blur", 30.0, 10.0, 12.0),
    ]
    taken = script.AuditTime(
        stages, wall=100.0, driver=20.0, ray=7.0, startup=9.0, tasks=8.0, workers=4, others=3.0,
        cores=2,
    )  # fmt: skip
    assert (taken.useful, taken.total, taken.ideal) == (70.0, 86.0, 35.0)
    text = script.report(taken)
    assert "read faces" in text and "4 worker processes; 86 CPU-seconds, of which 70 are" in text
    assert (
        "wall 100 s on 2 cores, of which other processes took 3 CPU-seconds; ideal 35 s, of" in text
    )
    assert text.endswith("of which the wall time is 2.86 times")
    lines = script.compare(taken, taken).splitlines()
    assert lines[0].split() == ["CPU-seconds", "before", "after", "ratio"]
    assert all(line.split()[-1] == "1.00" for line in lines[1:])


def test_processes_serve_the_running_stages_of_their_kind(script: ModuleType) -> None:
    read, embed = script.StageUse("read faces", 0.0), script.StageUse("embed blur", 0.0)
    assert script.kind_of("ray::MapWorker(Embed)", [read, embed]) == [embed]
    assert script.kind_of("ray::IDLE", [read, embed]) == []
