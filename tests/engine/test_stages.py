import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cldmray import storage
from cldmray.anonymizers.baselines import Blur
from cldmray.engine.artifacts import Artifact, Manifest, commit, read_manifest
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
    ) -> Artifact:
        return self.stages.run(name, settings, inputs, produce or self.produce)

    def produce(self, folder: str) -> None:
        assert storage.exists(folder)
        self.produced.append(folder)
        commit(folder, Manifest({"part": 1}, f"{len(self.produced):032x}"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Work:
    return Work(tmp_path / "cache_dir")


SETTINGS = {"anonymizer": Blur(), "seed": 0}


class TestReuse:
    def test_the_same_work_is_done_once(self, cache_dir: Work) -> None:
        first = cache_dir(SETTINGS)
        again = cache_dir({"seed": 0, "anonymizer": Blur(sigma=4.0)})
        cache_dir.stages = cache_dir.start()
        later = cache_dir(SETTINGS)
        assert cache_dir.produced == [first.folder]
        assert (first.reused, again.reused, later.reused) == (False, True, True)
        assert first.folder == again.folder == later.folder
        assert first.manifest == again.manifest == later.manifest
        assert first.key == again.key == later.key

    def test_what_decides_the_result_decides_the_folder(self, cache_dir: Work) -> None:
        tables = [
            cache_dir(SETTINGS),
            cache_dir({**SETTINGS, "seed": 1}),
            cache_dir({**SETTINGS, "anonymizer": Blur(sigma=5.0)}),
            cache_dir(SETTINGS, inputs=("b", "a")),
            cache_dir(SETTINGS, inputs=("a",)),
            cache_dir(SETTINGS, name="other"),
        ]
        assert len(set(cache_dir.produced)) == len(tables)
        assert len({table.key for table in tables}) == len(tables)
        assert not any(table.reused for table in tables)

    def test_another_version_of_the_program(
        self, cache_dir: Work, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = cache_dir(SETTINGS)
        monkeypatch.setattr("cldmray.engine.stages.__version__", "another")
        assert cache_dir(SETTINGS).folder != first.folder


class TestFailure:
    def test_a_stage_that_raised_is_run_again(self, cache_dir: Work) -> None:
        folders = []

        def fail(folder: str) -> None:
            folders.append(folder)
            storage.write_bytes(storage.join(folder, "part-0.parquet"), b"half")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            cache_dir(SETTINGS, produce=fail)
        assert read_manifest(folders[0]) is None
        assert cache_dir.stages.times == []
        table = cache_dir(SETTINGS)
        assert table.folder == folders[0]
        assert not table.reused
        assert cache_dir(SETTINGS).reused

    def test_a_stage_that_forgot_to_commit(self, cache_dir: Work) -> None:
        with pytest.raises(CldmrayError, match="stage blur ended without a manifest"):
            cache_dir(SETTINGS, produce=lambda folder: None)


class TestTimes:
    def test_every_run_is_remembered_and_announced(self, cache_dir: Work) -> None:
        cache_dir(SETTINGS)
        cache_dir(SETTINGS)
        assert [(time.name, time.rows, time.reused) for time in cache_dir.stages.times] == [
            ("blur", 1, False),
            ("blur", 1, True),
        ]
        assert all(0 <= time.seconds < 60 for time in cache_dir.stages.times)
        begun, ended, found = cache_dir.lines
        assert begun == "blur ..."
        assert re.fullmatch(r"blur: 1 rows, \d+\.\d s", ended)
        assert found == "blur: 1 rows, found"
