"""What tests share: an environment without telemetry or networks, a local Ray, real faces."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports Ray, MLflow, torch or a hub client: they read these once. Two OpenMP
# threads that spin on a busy machine are slower than one.
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "GOMP_SPINCOUNT": "0",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
}
for key, value in ENVIRONMENT.items():
    os.environ.setdefault(key, value)

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever starts Ray is slow."""
    for item in items:
        if "local_ray" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    """Labeled Faces in the Wild in its own layout, ``Person/Person_0001.jpg``; else the test skips.

    ``CLDMRAY_LFW`` names the folder; without it, ``shared/lfw`` beside the project is used.
    """
    named = os.environ.get("CLDMRAY_LFW")
    root = Path(named) if named else ROOT.parent / "shared" / "lfw"
    if not root.is_dir():
        pytest.skip(f"needs the LFW images: no folder {root}; set CLDMRAY_LFW")
    return root


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray of two logical CPUs for the whole session; starting one takes seconds."""
    import ray

    from cldmray.engine.cluster import EngineConfig, connect

    connect(EngineConfig(address="local", cpus=2, object_store_mb=400, progress=False))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """Versions in constraints.txt by package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))
