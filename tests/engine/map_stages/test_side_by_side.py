"""Tasks of one stage run side by side, as many as there are logical CPUs."""

import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from cldmray.engine.artifacts import Artifact, read_manifest, write_records
from cldmray.engine.cluster import TASK_CPUS

PATIENCE = 60.0
SCHEMA = pa.schema([("sample_id", pa.string()), ("met", pa.bool_())])


@pytest.mark.usefixtures("local_ray")
def test_both_cores_work_for_a_stage_that_writes(tmp_path: Path) -> None:
    """Each of two tasks waits for the other one to have begun."""
    begun = tmp_path / "begun"
    begun.mkdir()

    def meet(block: pa.Table) -> pa.Table:
        (begun / block["sample_id"][0].as_py()).touch()
        until = time.monotonic() + PATIENCE
        while len(list(begun.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        return block.append_column("met", pa.array([len(list(begun.iterdir())) == 2]))

    stream = ray.data.from_arrow([pa.table({"sample_id": [name]}) for name in "ab"]).map_batches(
        meet, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    folder = str(tmp_path / "artifact")
    write_records(stream, folder, SCHEMA)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert Artifact(folder, manifest, "", reused=False).read(["met"])["met"].to_pylist() == [
        True,
        True,
    ]
