"""Stages on a real file system that is full or read-only, with real Ray workers."""

import logging
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cldmray.anonymizers.baselines import NoOp
from cldmray.engine.artifacts import Artifact
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.failures import reraise_worker_errors
from cldmray.engine.map_stages.anonymize import anonymize
from cldmray.engine.map_stages.faces import load_faces
from cldmray.engine.stages import Stages
from cldmray.engine.training import last_checkpoint, torch_trainer
from cldmray.errors import StorageError
from cldmray.faces.records import EVALUATION
from cldmray.faces.synthetic import SyntheticFaces

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

SOURCE = SyntheticFaces(n_identities=16, images_per_identity=3, size=64)
SMALL_KIB = 900
"""Room for the faces, twice while they are gathered, but not for their copies as well."""


def mount(*arguments: str) -> bool:
    command = ["mount", "-t", "tmpfs", *arguments]
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A small file system of its own, and a function that changes its mount options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-o", f"size={SMALL_KIB}k", "tmpfs", str(folder)):
        pytest.skip("needs a user who may mount a small tmpfs")

    def remount(options: str) -> None:
        assert mount("-o", f"remount,{options}", "tmpfs", str(folder))

    yield folder, remount
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


def run_stages(folder: Path, engine: EngineConfig) -> tuple[Artifact, Artifact]:
    """Faces and their copies, in stages."""
    stages = Stages(str(folder))
    listing = SOURCE.listing()
    splits = pa.array([EVALUATION] * listing.num_rows, pa.string())
    listing = listing.append_column("split", splits)
    faces = stages.run("faces", {}, [], partial(load_faces, SOURCE, listing, engine))
    draws = {EVALUATION: 1}
    copies = stages.run(
        "no_op", {}, [faces.key], lambda f: anonymize(faces, NoOp(), draws, 0, engine, f)
    )
    return faces, copies


def stage_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package logged; Ray logs the same errors at length."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("cldmray")]


def test_a_disk_that_is_read_only_or_full_is_named_and_keeps_what_is_finished(
    disk: tuple[Path, Callable[[str], None]],
    tmp_path: Path,
    engine: EngineConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, remount = disk
    caplog.set_level(logging.INFO, "cldmray")
    remount("ro")
    expected = rf"^cannot write {folder}/faces-\w+: Read-only file system; make it writable, then"
    with pytest.raises(StorageError, match=expected):
        run_stages(folder, engine)
    caplog.clear()
    remount(f"rw,size={SMALL_KIB}k")
    expected = (
        rf"^cannot write {folder}/no_op-\w+/part-\w+\.parquet: No space left on device; make room "
        "there, then run the same command again: finished stages are kept and found$"
    )
    with pytest.raises(StorageError, match=expected):
        run_stages(folder, engine)
    stages = [line.partition(":")[0] for line in stage_lines(caplog)]
    assert stages == ["faces ...", "faces", "no_op ...", "no_op"]
    assert not list(folder.rglob("*.partial"))
    remount("size=16m")
    faces, copies = run_stages(folder, engine)
    assert faces.manifest.rows == SOURCE.listing().num_rows
    assert stage_lines(caplog)[4] == f"faces: {faces.manifest.rows} rows, found"
    undisturbed = run_stages(tmp_path / "calm", engine)[1]
    assert copies.read().equals(undisturbed.read())
    assert copies.manifest.content == undisturbed.manifest.content


def fill(config: dict[str, Any]) -> None:
    """A training whose checkpoint has a MiB."""
    import tempfile

    import ray.train
    from ray.train import Checkpoint

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "state").write_bytes(bytes(2**20))
        ray.train.report({"loss": 0.0}, checkpoint=Checkpoint.from_directory(folder))


def test_a_checkpoint_that_does_not_fit_is_named(
    disk: tuple[Path, Callable[[str], None]], engine: EngineConfig
) -> None:
    folder, remount = disk
    engine = replace(engine, train_failures=0)
    trainer = torch_trainer(fill, {}, engine, str(folder / "training"))
    with (
        pytest.raises(StorageError, match="No space left on device; make room"),
        reraise_worker_errors(),
    ):
        last_checkpoint(trainer).__enter__()
    remount("size=16m")
    trainer = torch_trainer(fill, {}, engine, str(folder / "training"))
    with last_checkpoint(trainer) as result:
        assert (result / "state").stat().st_size == 2**20
