from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from cldmray.tracking import Run, Tracker
from cldmray.tracking.orphaned_runs import job_key

SETTINGS: dict[str, Any] = {
    "audit": {"seed": 1},
    "cache_dir": "s3://bucket/work",
    "output": "runs/1",
}


def orphaned_runs(
    tracker: Tracker, settings: dict[str, Any], kept: list[AbstractContextManager[Run]]
) -> tuple[Run, Run]:
    """A parent run and its child, open for as long as ``kept`` holds their contexts."""
    kept.append(tracker.job_run("audit", "left open", settings))
    parent = kept[-1].__enter__()
    kept.append(tracker.child_run(parent, "blur", "adaptive_contrastive"))
    return parent, kept[-1].__enter__()


def status(tracker: Tracker, run: Run) -> str:
    status: str = tracker.client.get_run(run.run_id).info.status
    return status


def test_a_job_that_goes_on_ends_what_was_left_open(tracker: Tracker) -> None:
    kept: list[AbstractContextManager[Run]] = []
    killed = orphaned_runs(tracker, SETTINGS, kept)
    other = orphaned_runs(tracker, SETTINGS | {"audit": {"seed": 2}}, kept)
    with tracker.job_run("audit", "left open", SETTINGS | {"output": "runs/2"}) as run:
        assert [status(tracker, orphan) for orphan in killed] == ["KILLED"] * 2
        assert status(tracker, run) == "RUNNING"
        assert tracker.client.get_run(run.run_id).data.tags["job"] == job_key(
            "audit", "left open", SETTINGS
        )
    assert status(tracker, run) == "FINISHED"
    assert [status(tracker, orphan) for orphan in other] == ["RUNNING"] * 2
    for orphan in killed:
        assert tracker.client.get_run(orphan.run_id).data.tags["continued_by"] == run.run_id
    with tracker.job_run("audit", "left open", SETTINGS):
        assert status(tracker, run) == "FINISHED"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"output": "runs/2"}, True),
        ({"cache_dir": "s3://bucket/elsewhere"}, False),
        ({"audit": {"seed": 2}}, False),
        ({"more": 1}, False),
    ],
)
def test_what_makes_a_job(change: dict[str, Any], same: bool) -> None:
    key = job_key("audit", "name", SETTINGS)
    assert (job_key("audit", "name", SETTINGS | change) == key) is same
    assert job_key("reconstruction", "name", SETTINGS) != key != job_key("audit", "other", SETTINGS)


def test_a_local_folder_is_that_of_its_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local, remote = SETTINGS | {"cache_dir": "work"}, SETTINGS
    keys = []
    for host in ("a", "b"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        keys.append((job_key("audit", "name", local), job_key("audit", "name", remote)))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] == keys[1][1]
    monkeypatch.chdir(tmp_path)
    assert job_key("audit", "name", local) != keys[1][0]
    assert job_key("audit", "name", SETTINGS | {"cache_dir": f"{tmp_path}/work"}) == job_key(
        "audit", "name", local
    )


def test_a_training_goes_on_in_its_output() -> None:
    settings = {"training": {"steps": 1}, "output": "gs://bucket/model"}
    assert job_key("training", "model", settings) != job_key(
        "training", "model", settings | {"output": "gs://bucket/other"}
    )
