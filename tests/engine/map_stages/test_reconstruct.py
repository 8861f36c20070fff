"""Reconstructions: whose they are, and that nothing but sample, draw and seed decides them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.engine.artifacts import WEIGHTS, Artifact, Manifest, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.reconstruct import (
    ReconstructActor,
    reconstruct,
    reconstruction_seed,
    reconstructions_schema,
)
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER_VALIDATION,
    EVALUATION,
    decode_image,
    embedding_matrix,
)
from cldmray.hashing import image_seed
from tests.engine import inversion_stubs


@pytest.fixture
def attacker() -> ReconstructionAttacker:
    return ReconstructionAttacker(
        inversion_stubs.NoiseReconstruction(),
        inversion_stubs.Pixels(),
        inversion_stubs.Pixels(label="others"),
    )


@pytest.fixture
def fitted(attacker: ReconstructionAttacker, tmp_path: Path) -> Artifact:
    from tests.attackers.reconstruction.fitting import save_reconstructor

    folder = tmp_path / "fitted"
    folder.mkdir()
    save_reconstructor(attacker.model.build(), str(folder / WEIGHTS))
    return Artifact(str(folder), Manifest({}), "fitted")


@pytest.fixture
def anonymized(faces: Artifact, write_table: Any, tmp_path: Path) -> Artifact:
    rows = [
        {**row, "anonymizer": "no_op", "sample": 0, "seed": 0} for row in faces.read().to_pylist()
    ]
    table = ANONYMIZED.empty_table().from_pylist(rows, ANONYMIZED)
    result: Artifact = write_table(str(tmp_path / "anonymized"), ANONYMIZED, [[table]])
    return result


def test_seeds_differ_from_those_of_the_images() -> None:
    assert reconstruction_seed("a", 0, 1) == reconstruction_seed("a", 0, 1)
    keys = [("a", 0, 1), ("b", 0, 1), ("a", 1, 1), ("a", 0, 2)]
    seeds = {reconstruction_seed(*key) for key in keys} | {image_seed(*key) for key in keys}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_image_is_rebuilt_alike_in_any_block(
    attacker: ReconstructionAttacker, fitted: Artifact, anonymized: Artifact, engine: EngineConfig
) -> None:
    whole = anonymized.read(split=EVALUATION).rename_columns(
        ["view" if name == "anonymizer" else name for name in ANONYMIZED.names]
    )
    first = ReconstructActor(attacker, fitted, 3, replace(engine, batch_size=64))(whole)
    order = np.random.default_rng(0).permutation(len(whole))
    other = ReconstructActor(attacker, fitted, 3, replace(engine, batch_size=5))(whole.take(order))
    assert other.take(np.argsort(order)).equals(first)
    assert not ReconstructActor(attacker, fitted, 4, engine)(whole).equals(first)
    guesses = [[decode_image(guess) for guess in row] for row in first["guesses"].to_pylist()]
    seed = reconstruction_seed(whole["sample_id"][0].as_py(), 0, 3)
    np.testing.assert_array_equal(
        guesses[0], np.random.default_rng(seed).integers(0, 256, (2, 32, 32, 3))
    )
    vectors = attacker.held_out_recognizer.embed(np.array(guesses[0])).mean(0)
    np.testing.assert_allclose(
        embedding_matrix(first)[0], vectors / np.linalg.norm(vectors), atol=1e-6
    )
    empty = ReconstructActor(attacker, fitted, 3, engine)(whole[:0])
    assert empty.schema.names == first.schema.names and len(empty) == 0


def test_there_must_be_something(
    attacker: ReconstructionAttacker, fitted: Artifact, engine: EngineConfig, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match="reconstruction: was given no images to rebuild"):
        reconstruct(attacker, fitted, [], 0, engine, str(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_stream(
    attacker: ReconstructionAttacker,
    fitted: Artifact,
    anonymized: Artifact,
    engine: EngineConfig,
    tmp_path: Path,
) -> None:
    folder = str(tmp_path / "out")
    splits = (EVALUATION, ATTACKER_VALIDATION)
    reconstruct(attacker, fitted, [anonymized], 3, engine, folder, splits, ["face"])
    manifest = read_manifest(folder)
    assert manifest is not None
    table: pa.Table = Artifact(folder, manifest, "x").read()
    assert table.schema.equals(reconstructions_schema(192))
    assert len(table) == 2 * 9 * 3
    views = table["view"].to_pylist()
    counts = {view: views.count(view) for view in set(views)}
    assert counts == {"no_op": 27, "no_op region=face": 27}
    rows = anonymized.read()
    wanted = {
        sample
        for sample, split in zip(
            rows["sample_id"].to_pylist(), rows["split"].to_pylist(), strict=True
        )
        if split in splits
    }
    assert set(table["sample_id"].to_pylist()) == wanted
    np.testing.assert_allclose(np.linalg.norm(embedding_matrix(table), axis=1), 1, atol=1e-6)
