"""A job connects to its cluster once its runs can be tracked."""

from pathlib import Path

import pytest

from cldmray.command import connected
from cldmray.engine import cluster
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import StorageError
from cldmray.tracking import TrackingConfig, TrackingError


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[EngineConfig]:
    """The clusters that were connected to."""
    found: list[EngineConfig] = []
    monkeypatch.setattr(cluster, "connect", found.append)
    return found


def test_the_tracker_is_that_of_the_settings(joined: list[EngineConfig], tmp_path: Path) -> None:
    engine = EngineConfig(cpus=3)
    uri = f"sqlite:///{tmp_path}/runs.db"
    assert connected(TrackingConfig(uri=uri), engine).shown_uri == uri
    assert joined == [engine]


def test_nothing_is_connected_to_where_runs_cannot_be_tracked(
    joined: list[EngineConfig], tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match="no such folder"):
        connected(TrackingConfig(uri=f"sqlite:///{tmp_path}/none/runs.db"), EngineConfig())
    assert joined == []


def test_nothing_is_connected_to_where_results_cannot_be_written(
    joined: list[EngineConfig], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = f"sqlite:///{tmp_path}/runs.db"
    folders = {"work": str(tmp_path / "work"), "output": str(tmp_path / "file")}
    with pytest.raises(StorageError, match="^output: cannot write"):
        connected(TrackingConfig(uri=uri), EngineConfig(), **folders)
    assert joined == []
    assert not (tmp_path / "runs.db").exists()
