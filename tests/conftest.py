"""What tests share: an environment without telemetry or networks, a local Ray, real faces."""

import os
import shutil
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


SHARED = ("prepared", "process_pair")
"""Fixtures that cost more than the tests that share them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever starts Ray is slow; what shares a fixture or a file stays in one of the processes.

    The groups are those of ``pytest --dist loadgroup``. The largest one comes first.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "local_ray" in fixtures:
            item.add_marker("slow")
        shared = [name for name in SHARED if name in fixtures]
        item.add_marker(pytest.mark.xdist_group(*shared or [item.nodeid.partition("::")[0]]))
    items.sort(key=lambda item: "prepared" not in getattr(item, "fixturenames", ()))


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
def prepared(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of the small audit: originals, and what four anonymizers make of them; read only.

    See ``tests/small_audit.py`` for its settings.
    """
    from cldmray.pipelines.audit import Audit
    from tests.small_audit import PREPARED, SMALL, configured

    folder = tmp_path_factory.mktemp("prepared")
    preparation = Audit(configured(folder, *SMALL, *PREPARED), {}).preparation
    preparation.run(preparation.listing())
    return folder / "cache"


@pytest.fixture
def cache_dir(prepared: Path, tmp_path: Path) -> Path:
    """A cache of one's own, ``tmp_path/cache``, that begins with the artifacts of ``prepared``.

    Files are linked, not copied: an artifact is written once and never changed.
    """
    return Path(shutil.copytree(prepared, tmp_path / "cache", copy_function=os.link))


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """Versions in constraints.txt by package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))
