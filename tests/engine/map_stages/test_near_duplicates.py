"""Near-duplicates of a table: the same pairs however many tasks look for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages import near_duplicates
from cldmray.engine.map_stages.near_duplicates import find_near_duplicates, pairs_of
from cldmray.faces.records import FACES, decode_images, encode_images


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_tasks_find_what_one_process_finds(
    faces: Artifact,
    write_table: Any,
    engine: EngineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = faces.read()
    copies = table.slice(0, 5)
    mirrored = np.ascontiguousarray(decode_images(copies["image"].to_pylist())[:, :, ::-1])
    ids = pa.array([f"copy {row}" for row in range(5)])
    copies = copies.set_column(0, FACES.field("sample_id"), ids)
    copies = copies.set_column(3, FACES.field("image"), encode_images(mirrored))
    both = write_table(str(tmp_path / "faces"), FACES, [[table], [copies]])

    def pairs(name: str) -> pa.Table:
        folder = str(tmp_path / name)
        find_near_duplicates([both], engine, folder)
        manifest = read_manifest(folder)
        assert manifest is not None
        return pairs_of(Artifact(folder, manifest, name))

    whole = pairs("whole")
    originals = table["sample_id"].to_pylist()[:5]
    pairs_of_ids = zip(
        whole["sample_id"].to_pylist(), whole["other_sample_id"].to_pylist(), strict=True
    )
    expected = [tuple(sorted(pair)) for pair in zip(originals, ids.to_pylist(), strict=True)]
    assert sorted(pairs_of_ids) == sorted(expected)
    assert whole["is_mirrored"].to_pylist() == [True] * 5
    monkeypatch.setattr(near_duplicates, "COMPARED_ROWS", 10)
    assert pairs("parts").equals(whole)
