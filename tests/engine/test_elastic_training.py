"""A training whose node is joined by another, which then dies."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.fixture
def faulting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package of the benchmarks that starts clusters of several nodes."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    importlib.import_module("faulting.audit")
    return importlib.import_module("faulting.cluster")


@pytest.fixture
def cluster(faulting: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    environment = sys.modules["faulting.audit"].environment()
    folder = tmp_path_factory.getbasetemp() / "ray"
    started = faulting.Cluster(folder, environment, 1)
    yield started
    started.stop()


def sizes(folder: Path) -> list[int]:
    path = folder / "sizes"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_workers_join_and_leave(cluster: Any, tmp_path: Path) -> None:
    environment = sys.modules["faulting.audit"].environment()
    driver = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("elastic_driver.py")), cluster.address,
         str(tmp_path)],
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def wait_for(size: int) -> None:
        deadline = time.monotonic() + 500
        while sizes(tmp_path)[-1:] != [size]:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline, f"never {size} workers: {sizes(tmp_path)}"
            time.sleep(0.2)

    try:
        wait_for(1)
        cluster.grow()
        wait_for(2)
        cluster.shrink()
        wait_for(1)
        (tmp_path / "hurry").touch()
        printed, errors = driver.communicate(timeout=600)
    finally:
        driver.kill()
    assert driver.returncode == 0, printed[-2000:] + errors[-2000:]
    (line,) = [line for line in printed.splitlines() if line.startswith("FOUND ")]
    result = json.loads(line.removeprefix("FOUND "))
    assert result["max_steps"] == [list(range(1, 91))] * 2
    assert result["losses"][0] == pytest.approx(result["losses"][1], abs=1e-3)
    assert result["weights"] < 1e-3
