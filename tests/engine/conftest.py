"""A small faces table, written by the real sink but without Ray."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from ray.data.datasource import WriteResult

from cldmray.engine.artifacts import Artifact, RecordsSink, commit_parts, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, FACES
from cldmray.faces.synthetic import SyntheticFaces

WriteTable = Callable[[str, pa.Schema, Iterable[list[pa.Table]]], Artifact]


def commit_tasks(folder: str, schema: pa.Schema, tasks: Iterable[list[pa.Table]]) -> Artifact:
    """Write the blocks of each task as Ray's workers would, and commit them."""
    sink = RecordsSink(folder, schema)
    sink.on_write_complete(WriteResult(0, 0, [sink.write(blocks, None) for blocks in tasks]))
    commit_parts(sink)
    manifest = read_manifest(folder)
    assert manifest is not None
    return Artifact(folder, manifest, key=Path(folder).name)


@pytest.fixture(scope="session")
def write_table() -> WriteTable:
    return commit_tasks


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """14 synthetic people with 3 images each: 6 to evaluate, 5 of the attacker, 3 to validate."""
    source = SyntheticFaces(n_identities=14, images_per_identity=3, size=32)
    listing = source.listing()
    identities = sorted(set(listing["identity"].to_pylist()))
    splits = [EVALUATION] * 6 + [ATTACKER] * 5 + [ATTACKER_VALIDATION] * 3
    split_of = dict(zip(identities, splits, strict=True))
    table = pa.table(
        {
            "sample_id": listing["sample_id"],
            "identity": listing["identity"],
            "split": [split_of[name] for name in listing["identity"].to_pylist()],
            "image": source.read(listing["location"].to_pylist()),
        },
        FACES,
    )
    folder = str(tmp_path_factory.mktemp("faces"))
    return commit_tasks(folder, FACES, [[table[:20]], [table[20:]]])


@pytest.fixture(scope="session")
def engine() -> EngineConfig:
    return EngineConfig(
        address="local", actors=1, batch_size=16, block_rows=16, train_workers=1, progress=False
    )
