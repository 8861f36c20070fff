import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cldmray import storage
from cldmray.anonymizers.baselines import Blur
from cldmray.engine.artifacts import Manifest, StageTable, commit, read_manifest
from cldmray.engine.stages import Stages
from cldmray.errors import CldmrayError


class Work:
    """Runs one-row stages and keeps the folders that were produced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.produced: list[str] = []
        self.stages = self.start()

    def start(self) -> Stages:
        return Stages(str(self.folder), self.lines.append)

    def __call__(
        self,
        settings: Mapping[str, Any],
        inputs: tuple[str, ...] = ("a", "b"),
        name: str = "blur",
        produce: Callable[[str], None] | None = None,
    ) -> StageTable:
        return self.stages.run(name, settings, inputs, produce or self.produce)

    def produce(self, folder: str) -> None:
        assert storage.exists(folder)
        self.produced.append(folder)
        commit(folder, Manifest({"part": 1}, f"{len(self.produced):032x}"))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


SETTINGS = {"anonymizer": Blur(), "seed": 0}


class TestReuse:
    def test_the_same_work_is_done_once(self, work: Work) -> None:
        first = work(SETTINGS)
        again = work({"seed": 0, "anonymizer": Blur(sigma=4.0)})
        work.stages = work.start()
        later = work(SETTINGS)
        assert work.produced == [first.folder]
        assert (first.reused, again.reused, later.reused) == (False, True, True)
        assert first.folder == again.folder == later.folder
        assert first.manifest == again.manifest == later.manifest
        assert first.key == again.key == later.key

    def test_what_decides_the_result_decides_the_folder(self, work: Work) -> None:
        tables = [
            work(SETTINGS),
            work({**SETTINGS, "seed": 1}),
            work({**SETTINGS, "anonymizer": Blur(sigma=5.0)}),
            work(SETTINGS, inputs=("b", "a")),
            work(SETTINGS, inputs=("a",)),
            work(SETTINGS, name="other"),
        ]
        assert len(set(work.produced)) == len(tables)
        assert len({table.key for table in tables}) == len(tables)
        assert not any(table.reused for table in tables)

    def test_another_version_of_the_program(
        self, work: Work, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = work(SETTINGS)
        monkeypatch.setattr("cldmray.engine.stages.__version__", "another")
        assert work(SETTINGS).folder != first.folder


class TestFailure:
    def test_a_stage_that_raised_is_run_again(self, work: Work) -> None:
        folders = []

        def fail(folder: str) -> None:
            folders.append(folder)
            storage.write_bytes(storage.join(folder, "part-0.parquet"), b"half")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            work(SETTINGS, produce=fail)
        assert read_manifest(folders[0]) is None
        assert work.stages.times == []
        table = work(SETTINGS)
        assert table.folder == folders[0]
        assert not table.reused
        assert work(SETTINGS).reused

    def test_a_stage_that_forgot_to_commit(self, work: Work) -> None:
        with pytest.raises(CldmrayError, match="stage blur ended without a manifest"):
            work(SETTINGS, produce=lambda folder: None)


class TestTimes:
    def test_every_run_is_remembered_and_announced(self, work: Work) -> None:
        work(SETTINGS)
        work(SETTINGS)
        assert [(time.name, time.rows, time.reused) for time in work.stages.times] == [
            ("blur", 1, False),
            ("blur", 1, True),
        ]
        assert all(0 <= time.seconds < 60 for time in work.stages.times)
        begun, ended, found = work.lines
        assert begun == "blur ..."
        assert re.fullmatch(r"blur: 1 rows, \d+\.\d s", ended)
        assert found == "blur: 1 rows, found"
