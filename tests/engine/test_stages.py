import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from cldmray import storage
from cldmray.anonymizers.baselines import Blur
from cldmray.engine.artifacts import Artifact, Manifest, commit, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.stages import StageHandle, Stages, StageSpec
from cldmray.errors import BadInputError, CldmrayError


class StageStub:
    """Runs one-row stages and keeps the folders that were produced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.produced: list[str] = []
        self.stages = self.start()

    def start(self) -> Stages:
        return Stages(str(self.folder))

    def __call__(
        self,
        settings: Mapping[str, Any],
        inputs: tuple[str, ...] = ("a", "b"),
        name: str = "blur",
        produce: Callable[[str], None] | None = None,
    ) -> Artifact:
        return self.stages.run(
            name, settings, inputs, lambda folder: (produce or self.produce)(folder)
        )

    def produce(self, folder: str) -> None:
        assert storage.exists(folder)
        self.produced.append(folder)
        commit(folder, Manifest({"part": 1}, f"{len(self.produced):032x}"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> StageStub:
    return StageStub(tmp_path / "cache_dir")


SETTINGS = {"anonymizer": Blur(), "seed": 0}


class TestReuse:
    def test_the_same_work_is_done_once(self, cache_dir: StageStub) -> None:
        first = cache_dir(SETTINGS)
        again = cache_dir({"seed": 0, "anonymizer": Blur(sigma=4.0)})
        cache_dir.stages = cache_dir.start()
        later = cache_dir(SETTINGS)
        assert cache_dir.produced == [first.folder]
        assert (first.reused, again.reused, later.reused) == (False, True, True)
        assert first.folder == again.folder == later.folder
        assert first.manifest == again.manifest == later.manifest
        assert first.key == again.key == later.key

    def test_what_decides_the_result_decides_the_folder(self, cache_dir: StageStub) -> None:
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
        self, cache_dir: StageStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = cache_dir(SETTINGS)
        monkeypatch.setattr("cldmray.engine.stages.__version__", "another")
        assert cache_dir(SETTINGS).folder != first.folder


class TestFailure:
    def test_a_stage_that_raised_is_run_again(self, cache_dir: StageStub) -> None:
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

    def test_a_stage_that_forgot_to_commit(self, cache_dir: StageStub) -> None:
        with pytest.raises(CldmrayError, match="stage blur ended without a manifest"):
            cache_dir(SETTINGS, produce=lambda folder: None)


class TestTimes:
    def test_every_run_is_remembered_and_logged(
        self, cache_dir: StageStub, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "cldmray")
        cache_dir(SETTINGS)
        cache_dir(SETTINGS)
        assert [(time.name, time.rows, time.reused) for time in cache_dir.stages.times] == [
            ("blur", 1, False),
            ("blur", 1, True),
        ]
        assert all(0 <= time.seconds < 60 for time in cache_dir.stages.times)
        begun, ended, result = caplog.messages
        assert begun == "blur ..."
        assert re.fullmatch(r"blur: 1 rows, \d+\.\d s", ended)
        assert result == "blur: 1 rows, found"

    def test_lines_have_the_title(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "cldmray")
        title = "train adaptive_contrastive on blur"
        Stages(str(tmp_path)).run(
            "train", {}, [], lambda folder: commit(folder, Manifest({})), title=title
        )
        assert all(line.startswith(title) for line in caplog.messages)
        assert [vars(record)["running"] for record in caplog.records] == [True, False]


class Gate:
    """Stages that end only once they are told to, or once enough of them run side by side."""

    def __init__(self, folder: Path) -> None:
        self.stages = Stages(str(folder))
        self.began: list[str] = []
        self.release = threading.Event()

    def spec(
        self,
        name: str,
        inputs: Sequence[Artifact | StageHandle | str] = (),
        cpus: float | None = 0.5,
        error: BaseException | None = None,
    ) -> StageSpec:
        def produce(folder: str) -> None:
            self.began.append(name)
            assert self.release.wait(30)
            if error is not None:
                raise error
            commit(folder, Manifest({"part": 1}))

        resources = None if cpus is None else {"CPU": cpus}
        return StageSpec(name, {}, inputs, produce, resources=resources)

    def wait_for(self, *names: str) -> None:
        deadline = time.monotonic() + 30
        while sorted(self.began) != sorted(names):
            assert time.monotonic() < deadline, self.began
            time.sleep(0.01)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr("cldmray.engine.stages.cluster_size", lambda: {"CPU": 2.0})
    gate = Gate(tmp_path)
    yield gate
    gate.release.set()
    gate.stages.stop()


class TestGraph:
    def test_independent_stages_overlap_on_two_cpus(self, gate: Gate) -> None:
        engine = EngineConfig(cpus=2)
        needs = [engine.pool_stage()["CPU"], engine.training_stage["CPU"]]
        handles = [gate.stages.submit(gate.spec(f"s{n}", cpus=cpu)) for n, cpu in enumerate(needs)]
        gate.wait_for("s0", "s1")
        gate.release.set()
        assert [handle.result().manifest.rows for handle in handles] == [1, 1]

    def test_no_more_run_than_there_is_room_for(self, gate: Gate) -> None:
        specs = [gate.spec(name, cpus=1.0) for name in "abc"]
        handles = [gate.stages.submit(spec) for spec in specs]
        gate.wait_for("a", "b")
        time.sleep(0.1)
        assert sorted(gate.began) == ["a", "b"]
        gate.release.set()
        assert handles[2].result().manifest.rows == 1

    def test_one_that_needs_more_than_there_is_runs_alone(self, gate: Gate) -> None:
        large = gate.stages.submit(gate.spec("large", cpus=64.0))
        whole = gate.stages.submit(gate.spec("whole", cpus=None))
        gate.wait_for("large")
        gate.release.set()
        assert large.result().key != whole.result().key

    def test_a_stage_waits_for_its_inputs(self, gate: Gate) -> None:
        first = gate.stages.submit(gate.spec("first"))
        second = gate.stages.submit(gate.spec("second", [first]))
        gate.wait_for("first")
        time.sleep(0.1)
        assert gate.began == ["first"]
        gate.release.set()
        table = first.result()
        assert second.result().key == gate.stages.plan(gate.spec("second", [table])).key
        assert [spent.name for spent in gate.stages.times] == ["first", "second"]

    def test_the_same_stage_asked_for_twice_at_once_runs_once(self, gate: Gate) -> None:
        first, again = (gate.stages.submit(gate.spec("same")) for _ in range(2))
        gate.wait_for("same")
        gate.release.set()
        assert first.result() is again.result()
        assert gate.began == ["same"]

    def test_an_error_ends_what_depends_on_it_and_nothing_else(self, gate: Gate) -> None:
        error = BadInputError("images: none")
        bad = gate.stages.submit(gate.spec("bad", error=error))
        next_one = gate.stages.submit(gate.spec("next", [bad]))
        last = gate.stages.submit(gate.spec("last", [next_one]))
        other = gate.stages.submit(gate.spec("other"))
        gate.release.set()
        for handle in (bad, next_one, last):
            with pytest.raises(BadInputError) as caught:
                handle.result()
            assert caught.value is error
        assert other.result().manifest.rows == 1
        assert sorted(gate.began) == ["bad", "other"]

    def test_an_error_in_the_block_stops_what_still_waits(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cldmray.engine.stages.STOP_SECONDS", 0.1)
        running = gate.stages.submit(gate.spec("running", cpus=2.0))
        waiting = gate.stages.submit(gate.spec("waiting", [running]))
        with pytest.raises(BadInputError), gate.stages:
            raise BadInputError("no such images")
        with pytest.raises(CancelledError):
            waiting.result()
        with pytest.raises(CancelledError):
            gate.stages.submit(gate.spec("late")).result()

    def test_the_block_waits_for_what_was_submitted(self, gate: Gate) -> None:
        gate.release.set()
        with gate.stages:
            first = gate.stages.submit(gate.spec("first"))
            second = gate.stages.submit(gate.spec("second", [first]))
        assert first.done and second.done

    def test_ctrl_c_while_waiting_stops_all(self, gate: Gate) -> None:
        running = gate.stages.submit(gate.spec("running"))
        waiting = gate.stages.submit(gate.spec("waiting", [running]))
        gate.wait_for("running")
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                gate.stages.result(running)
        finally:
            signal.signal(signal.SIGALRM, before)
        with pytest.raises(CancelledError):
            waiting.result()
        gate.release.set()
        with pytest.raises(KeyboardInterrupt):
            running.result()
