import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cldmray.errors import BadInputError, ConfigError
from cldmray.tracking import Tracker, TrackingConfig, TrackingError
from cldmray.tracking.connection import sqlite_path

CONF = Path(__file__).parents[2] / "conf" / "tracking"
SECRET = "hunter2-is-the-password"


def stored(tracker: Tracker, run_id: str) -> Any:
    return tracker.client.get_run(run_id)


def test_an_audit_and_its_children_are_recorded(tracker: Tracker) -> None:
    with tracker.job_run(
        "audit",
        "first",
        {"faces": {"name": "lfw"}, "many": {f"p{i}": i for i in range(150)}},
        tags={"note": "hello"},
        seeds={"audit": 7},
    ) as run:
        assert stored(tracker, run.run_id).info.status == "RUNNING"
        with tracker.child_run(run, "cldm-canny-1.0+depth-0.7", "adaptive_contrastive") as child:
            child.log_metrics({"eer": 0.5, "d_sys": float("nan")})
            child.log_metrics({f"m/{i}": float(i) for i in range(1500)})
    audit, attack = stored(tracker, run.run_id), stored(tracker, child.run_id)
    assert audit.info.status == attack.info.status == "FINISHED"
    assert audit.info.run_name == "first"
    assert audit.data.params["faces.name"] == "lfw"
    assert audit.data.params["many.p149"] == "149"
    assert audit.data.tags["seed.audit"] == "7"
    assert audit.data.tags["note"] == "hello"
    assert audit.data.tags["version.mlflow"]
    assert attack.data.tags["mlflow.parentRunId"] == run.run_id
    assert attack.data.tags["anonymizer"] == "cldm-canny-1.0+depth-0.7"
    assert attack.data.tags["attacker"] == "adaptive_contrastive"
    assert attack.data.metrics["eer"] == 0.5
    assert "d_sys" not in attack.data.metrics
    assert attack.data.metrics["m/1499"] == 1499


def test_a_folder_that_moved_is_found_before_any_work(tmp_path: Path) -> None:
    def tracker(folder: str, experiment: str = "a b") -> Tracker:
        uri = f"sqlite:///{tmp_path}/{folder}/mlflow.db"
        return Tracker(TrackingConfig(uri=uri, experiment=experiment))

    (tmp_path / "before").mkdir()
    tracker("before").check()
    tracker("before").check()
    (tmp_path / "before").rename(tmp_path / "after")
    with pytest.raises(
        TrackingError, match=r"was moved or copied.* to \S+/before/mlruns/a%20b; move"
    ):
        tracker("after").check()
    tracker("after", "another").check()
    (tmp_path / "before").symlink_to(tmp_path / "after")
    tracker("after").check()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("x"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(15), "KILLED"),
    ],
)
def test_a_run_ends_as_its_block_does(tracker: Tracker, error: BaseException, status: str) -> None:
    opened = []
    with pytest.raises(type(error)), tracker.job_run("audit", "bad", {}) as run:
        opened.append(run)
        with tracker.child_run(run, "no_op", "score_fusion") as child:
            opened.append(child)
            raise error
    assert [stored(tracker, run.run_id).info.status for run in opened] == [status, status]


def test_the_first_error_survives_when_mlflow_fails_too(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ValueError, match="mine"), tracker.job_run("audit", "bad", {}):
        monkeypatch.setattr(tracker.client, "set_terminated", broken)
        raise ValueError("mine")
    assert "stays open" in caplog.text


def test_a_failure_of_mlflow_is_explained(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        tracker.job_run("audit", "params", {"a": 1}) as run,
        pytest.raises(TrackingError, match="cannot be used"),
    ):
        run.log_params({"a": 2})


def test_artifacts_lie_beside_the_database(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.html").write_text("<p>")
    with tracker.job_run("audit", "files", {}) as run:
        run.log_folder(str(tmp_path / "report"), "report")
        with pytest.raises(BadInputError, match="absent"):
            run.log_folder(str(tmp_path / "absent"))
    database = sqlite_path(tracker.uri)
    assert database is not None
    pages = list((database.parent / "mlruns").rglob("page.html"))
    assert [path.parent.name for path in pages] == ["report"]
    assert [file.path for file in tracker.client.list_artifacts(run.run_id)] == ["report"]


def test_nothing_secret_reaches_mlflow(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    settings = {
        "hub": {"token": SECRET, "url": f"https://me:{SECRET}@hub/x"},
        "faces": {"root": f"s3://bucket/x?secret={SECRET}"},
        "plain": f"says {SECRET}",
        f"key {SECRET}": 1,
        "list": [{"password": SECRET}, f"--token {SECRET}"],
    }
    tags = {"password": SECRET, "command": f"job --api-key {SECRET}", f"t {SECRET}": SECRET}
    with tracker.job_run("audit", f"run {SECRET}", settings, tags=tags) as run:
        run.log(tags={"later": f"http://{SECRET}@host"})
        with tracker.child_run(run, "no_op", "score_fusion"):
            pass
    with pytest.raises(ValueError), tracker.job_run("audit", "bad", {}):
        raise ValueError(SECRET)
    database = sqlite_path(tracker.uri)
    assert database is not None
    written = b"".join(path.read_bytes() for path in database.parent.glob("mlflow.db*"))
    assert b"says ***" in written
    assert SECRET.encode() not in written
    assert stored(tracker, run.run_id).data.params["hub.url"] == "https://***@hub/x"


def test_a_deleted_experiment_is_named(tracker: Tracker) -> None:
    other = Tracker(TrackingConfig(uri=tracker.uri, experiment="gone"))
    other.check()
    experiment = tracker.client.get_experiment_by_name("gone")
    assert experiment is not None
    tracker.client.delete_experiment(experiment.experiment_id)
    with pytest.raises(ConfigError, match=r"^tracking\.experiment: 'gone' was deleted"):
        Tracker(TrackingConfig(uri=tracker.uri, experiment="gone")).check()


def test_the_experiment_is_the_given_one_then_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert Tracker(TrackingConfig()).experiment == "cldmray"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "release 7")
    assert Tracker(TrackingConfig()).experiment == "release 7"
    assert Tracker(TrackingConfig(experiment="mine")).experiment == "mine"


def test_importing_the_package_does_not_import_mlflow() -> None:
    code = "import cldmray.tracking, sys; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CONF.parents[1], check=True)


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match="^experiment"):
        TrackingConfig(experiment=" ")
    with pytest.raises(ValueError, match="^timeout"):
        TrackingConfig(timeout=0)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_holds_every_field(path: Path) -> None:
    config = OmegaConf.load(path)
    tracking = instantiate(config)
    assert isinstance(tracking, TrackingConfig)
    fields = {str(key) for key in config} - {"_target_"}
    assert fields == set(TrackingConfig.__dataclass_fields__)
    assert tracking == TrackingConfig(uri=tracking.uri)
    OmegaConf.structured(TrackingConfig)
