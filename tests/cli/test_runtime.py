"""A job connects to its cluster once its runs can be tracked, and stops cleanly when told to."""

import json
import os
import signal
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from cldmray.cli.runtime import run_or_exit, storage_note
from cldmray.config.compose import compose
from cldmray.engine import cluster
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import BadInputError, ConfigError, StorageError
from cldmray.pipelines.jobs import connected
from cldmray.tracking import Tracker, TrackingConfig, TrackingError


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[EngineConfig]:
    """The clusters that were connected to."""
    result: list[EngineConfig] = []
    monkeypatch.setattr(cluster, "connect", result.append)
    return result


def test_the_tracker_is_that_of_the_settings(joined: list[EngineConfig], tmp_path: Path) -> None:
    engine = EngineConfig(address="auto", cpus=3)
    uri = f"sqlite:///{tmp_path}/runs.db"
    assert connected(TrackingConfig(uri=uri), engine).shown_uri == uri
    assert joined == [engine]


def test_nothing_is_connected_to_where_runs_cannot_be_tracked(
    joined: list[EngineConfig], tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match="no such folder"):
        connected(TrackingConfig(uri=f"sqlite:///{tmp_path}/none/runs.db"), EngineConfig())
    assert joined == []


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")]
)
def test_a_signal_stops_the_job_and_closes_its_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
    number: signal.Signals, status: int, name: str,
) -> None:  # fmt: skip
    tracker = Tracker(TrackingConfig(uri=f"sqlite:///{tmp_path}/runs.db"))
    opened = []

    def main(composed: DictConfig) -> None:
        with (
            tracker.job_run("audit", "stopped", {}) as run,
            tracker.child_run(run, "a", "b") as child,
        ):
            opened.extend([run, child])
            os.kill(os.getpid(), number)
            raise AssertionError("went on")

    before = [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as stopped:
        run_or_exit(main, OmegaConf.create({}))
    assert stopped.value.code == status
    assert [tracker.client.get_run(run.run_id).info.status for run in opened] == ["KILLED"] * 2
    note = f"Stopped by {name}. The same command goes on from what is finished.\n"
    assert capfd.readouterr().err.endswith(note)
    assert [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_does_not_disturb_the_closing() -> None:
    closed = []

    def main(composed: DictConfig) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            closed.append(True)

    with pytest.raises(SystemExit) as stopped:
        run_or_exit(main, OmegaConf.create({}))
    assert stopped.value.code == 143
    assert closed == [True]


def test_what_fails_because_of_the_stop_is_the_stop() -> None:
    def main(composed: DictConfig) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise BadInputError("a worker is gone") from None

    with pytest.raises(SystemExit) as stopped:
        run_or_exit(main, OmegaConf.create({}))
    assert stopped.value.code == 143


@pytest.mark.parametrize(
    ("returned", "code"),
    [(0, None), (None, None), (3, 3), (BadInputError("x"), "BadInputError: x")],
)
def test_other_ends(returned: int | Exception | None, code: object) -> None:
    def main(composed: DictConfig) -> int | None:
        if isinstance(returned, Exception):
            raise returned
        return returned

    if code is None:
        run_or_exit(main, OmegaConf.create({}))
        return
    with pytest.raises(SystemExit) as ended:
        run_or_exit(main, OmegaConf.create({}))
    assert ended.value.code == code


def test_a_bug_keeps_its_traceback() -> None:
    def main(composed: DictConfig) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run_or_exit(main, OmegaConf.create({}))


@pytest.mark.parametrize(
    ("settings", "environment", "keys"),
    [
        ({"output": "runs/1", "cache_dir": "runs/work"}, {}, "output, cache_dir"),
        ({"output": "s3://b/1", "cache_dir": "/mnt/work"}, {}, ""),
        ({"output": "/mnt/1", "tracking": {"uri": "sqlite:///runs.db"}}, {}, "tracking.uri"),
        ({"output": "gs://b/1"}, {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}, ""),
        ({"output": "/mnt/1", "tracking": {"uri": "sqlite:////mnt/runs.db"}}, {}, ""),
        ({"output": "~/1", "tracking": {"uri": "https://mlflow"}}, {}, ""),
    ],
)
def test_a_submitted_job_says_what_would_be_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    settings: dict[str, object], environment: dict[str, str], keys: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    composed = OmegaConf.create(settings)
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    note = storage_note(composed)
    assert note.startswith(f"Note: {keys}: in Ray's copy of the project, {tmp_path}, ") or not keys
    assert bool(note) == bool(keys)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}}))
    assert storage_note(composed) == ""
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert storage_note(composed) == ""


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process as a submitted job in Ray's copy of a project; the home folder is returned."""
    home, package = tmp_path / "home", tmp_path / "package"
    home.mkdir()
    package.mkdir()
    monkeypatch.chdir(package)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CLDMRAY_STORAGE", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    return home


def test_all_submitted_jobs_of_a_machine_share_one_place(
    submitted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    composed = OmegaConf.create({"output": "${oc.env:CLDMRAY_STORAGE,runs}/1"})
    outputs = []
    run_or_exit(lambda settings: outputs.append(settings.output), composed)
    assert outputs == [f"{submitted}/cldmray/1"]
    assert f"runs go to {submitted}/cldmray on " in "".join(capfd.readouterr())
    assert Tracker(TrackingConfig()).uri == f"sqlite:///{submitted}/cldmray/mlflow.db"


def test_a_notebook_in_a_submitted_job_finds_the_same_place(submitted: Path) -> None:
    settings = compose("audit", ["anonymizers=[blur]"])
    assert settings["cache_dir"] == f"{submitted}/cldmray/cache"


def test_a_place_that_the_user_names_stays(
    submitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLDMRAY_STORAGE", "/mnt/shared")
    assert compose("audit")["cache_dir"] == "/mnt/shared/cache"
    assert Tracker(TrackingConfig()).uri == "sqlite:////mnt/shared/mlflow.db"
    monkeypatch.setenv("CLDMRAY_STORAGE", "s3://bucket/all")
    assert compose("audit")["cache_dir"] == "s3://bucket/all/cache"
    assert Tracker(TrackingConfig()).uri == f"sqlite:///{submitted}/cldmray/mlflow.db"


def test_a_job_on_several_machines_needs_shared_places(
    submitted: Path, joined: list[EngineConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "n_machines", lambda: 3)
    folders = {"cache_dir": f"{submitted}/cldmray/cache", "output": f"{submitted}/elsewhere"}
    message = (
        r"^cache_dir, tracking\.uri: the default lies on one of the 3 machines .*; set "
        r"CLDMRAY_STORAGE to s3://, gs:// or a shared disk and MLFLOW_TRACKING_URI to an MLflow"
    )
    with pytest.raises(ConfigError, match=message):
        connected(TrackingConfig(), EngineConfig(), **folders)
    uri = f"sqlite:///{submitted}/mine.db"
    connected(TrackingConfig(uri=uri), EngineConfig(), output=folders["output"])
    monkeypatch.setattr(cluster, "n_machines", lambda: 1)
    assert connected(TrackingConfig(), EngineConfig(), **folders).is_default
    assert len(joined) == 3


def test_nothing_is_connected_to_where_results_cannot_be_written(
    joined: list[EngineConfig], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = f"sqlite:///{tmp_path}/runs.db"
    folders = {"cache_dir": str(tmp_path / "cache_dir"), "output": str(tmp_path / "file")}
    with pytest.raises(StorageError, match="^output: cannot write"):
        connected(TrackingConfig(uri=uri), EngineConfig(), **folders)
    assert joined == []
    assert not (tmp_path / "runs.db").exists()


@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_of_the_terminal_stops_the_job_unless_nohup_does(ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    def main(composed: DictConfig) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 3

    try:
        with pytest.raises(SystemExit) as stopped:
            run_or_exit(main, OmegaConf.create({}))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stopped.value.code == (3 if ignored else 129)
