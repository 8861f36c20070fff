from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from cldmray import hashing
from cldmray.anonymizers import memory
from cldmray.anonymizers.base import (
    AnonymizeFunction,
    Anonymizer,
    Batch,
    UnusableImagesError,
)
from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.k_same import KSame
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.conditions.canny import Canny
from cldmray.engine.artifacts import Artifact, RecordsSink, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.failures import reraise_worker_errors
from cldmray.engine.map_stages import anonymize as stage
from cldmray.engine.map_stages.anonymize import (
    ActorInputs,
    AnonymizerActor,
    anonymize,
    anonymize_groups,
    audited_images,
    raw_column,
    raw_images,
    samples_per_split,
)
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    AUXILIARY,
    EVALUATION,
    FACES,
    decode_images,
    encode_images,
)
from cldmray.faces.synthetic import SyntheticFaces

SEED = 11
DRAWS = {EVALUATION: 1, ATTACKER: 2}


def table_of(folder: str) -> Artifact:
    manifest = read_manifest(folder)
    assert manifest is not None
    return Artifact(folder, manifest, "")


def seeded(named: str = "seeded", keep: str = "0123456789abcdef") -> Anonymizer:
    """An anonymizer whose images tell their seed, sample and edges; only chosen samples.

    The class is made here, so that it travels to the workers by value.
    """

    @dataclass(frozen=True)
    class Seeded(Anonymizer):
        first: str = keep

        @property
        def name(self) -> str:
            return named

        @property
        def conditions(self) -> Mapping[str, Condition]:
            return {"edges": Canny(), "coarse": Canny(100, 200)}

        def select(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
            return np.array([sample[0] in self.first for sample in sample_ids], bool)

        def open(self) -> AnonymizeFunction:
            def anonymize(batch: Batch) -> Images:
                assert batch.images.shape == batch.conditions["edges"].shape
                both = batch.conditions["edges"] // 2 + batch.conditions["coarse"] // 4
                noise = [np.random.default_rng(seed).integers(0, 8) for seed in batch.seeds]
                kept = [int(sample[:2], 16) // 4 for sample in batch.sample_ids]
                shift = np.array(noise) + np.array(kept)
                painted: Images = (both // 2 + shift[:, None, None, None]).astype(np.uint8)
                return painted

            return anonymize

    return Seeded()


def directly(
    anonymizer: Anonymizer, faces: Artifact, samples: Mapping[str, int]
) -> dict[tuple[str, int], tuple[int, Images]]:
    """Seed and image of every (sample, draw), one image at a time and without Ray."""
    anonymize = anonymizer.open()
    results = {}
    for row in faces.read().to_pylist():
        if not anonymizer.select([row["sample_id"]])[0]:
            continue
        images = decode_images([row["image"]])
        for sample in range(samples.get(row["split"], 0)):
            seed = hashing.image_seed(row["sample_id"], sample, SEED)
            maps = {name: extract(images) for name, extract in anonymizer.conditions.items()}
            batch = Batch([row["sample_id"]], images, np.array([seed]), maps)
            results[row["sample_id"], sample] = (seed, anonymize(batch)[0])
    return results


class TestRawImages:
    def test_round_trip(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
        block = pa.table({"height": [4] * 3, "width": [6] * 3, "pixels": raw_column(images)})
        np.testing.assert_array_equal(raw_images(block, "pixels"), images)
        np.testing.assert_array_equal(raw_images(block[1:], "pixels"), images[1:])
        assert len(raw_images(block[:0], "pixels")) == 0


class TestPrepare:
    def test_draws_and_seeds(self, faces: Artifact) -> None:
        block = faces.read()
        result = ActorInputs(Blur(), DRAWS, SEED)(block)
        expected = [
            (row["sample_id"], sample, hashing.image_seed(row["sample_id"], sample, SEED))
            for row in block.to_pylist()
            for sample in range(DRAWS.get(row["split"], 0))
        ]
        columns = (result[name].to_pylist() for name in ("sample_id", "sample", "seed"))
        assert list(zip(*columns, strict=True)) == expected
        assert len(expected) == 18 + 2 * 15

    @pytest.mark.parametrize("samples", [{}, {EVALUATION: 0}])
    def test_nothing_to_do(self, faces: Artifact, samples: dict[str, int]) -> None:
        anonymizer = seeded()
        prepared = ActorInputs(anonymizer, samples, SEED)(faces.read())
        assert prepared.num_rows == 0
        assert "condition edges" in prepared.column_names
        assert AnonymizerActor(anonymizer, 4, 1)(prepared).num_rows == 0
        assert ActorInputs(anonymizer, DRAWS, SEED)(FACES.empty_table()).num_rows == 0

    @pytest.mark.parametrize(("images", "pieces"), [(1, 42), (10, 5), (42, 1), (0.1, 42)])
    def test_large_blocks_are_prepared_in_pieces(
        self, faces: Artifact, monkeypatch: pytest.MonkeyPatch, images: float, pieces: int
    ) -> None:
        inputs = ActorInputs(seeded(), {EVALUATION: 1, "attacker": 3}, SEED)
        # 32 x 32 pixels, of the image and of two maps, for each of three samples.
        monkeypatch.setattr(stage, "PIECE_BYTES", int(images * 32 * 32 * 3 * 3 * 3))
        block = faces.read()
        made = list(inputs.pieces(block))
        assert len(made) == pieces
        assert pa.concat_tables(made).equals(inputs(block))
        (empty,) = inputs.pieces(FACES.empty_table())
        assert empty.num_rows == 0


class TestActor:
    def test_memory_runs_out_and_no_image_is_lost(
        self, faces: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        anonymizer = seeded()
        prepared = ActorInputs(anonymizer, DRAWS, SEED)(faces.read())
        expected = AnonymizerActor(anonymizer, 7, 1)(prepared)
        sizes: list[int] = []
        usual = anonymizer.open()

        def limited(batch: Batch) -> Images:
            sizes.append(len(batch))
            if len(batch) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return usual(batch)

        monkeypatch.setattr(type(anonymizer), "open", lambda self: limited)
        result = AnonymizerActor(anonymizer, 16, 1)(prepared)
        assert sizes[:3] == [16, 8, 4]
        assert result.equals(expected)
        assert result.num_rows == prepared.num_rows == 48

    def test_images_that_cannot_be_made_are_rejected(
        self, faces: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        anonymizer = seeded()
        prepared = ActorInputs(anonymizer, DRAWS, SEED)(faces.read())
        expected = AnonymizerActor(anonymizer, 7, 1)(prepared)
        assert set(expected["reason"].to_pylist()) == {""}
        usual = anonymizer.open()

        def failing(batch: Batch) -> Images:
            unusable = batch.seeds % 5 == 0
            if unusable.any():
                raise UnusableImagesError("it overflows", usual(batch), unusable)
            return usual(batch)

        monkeypatch.setattr(type(anonymizer), "open", lambda self: failing)
        result = AnonymizerActor(anonymizer, 7, 1)(prepared)
        bad = [seed % 5 == 0 for seed in result["seed"].to_pylist()]
        assert 0 < sum(bad) < len(bad) == 48
        assert [reason == "it overflows" for reason in result["reason"].to_pylist()] == bad
        good = pa.array([not each for each in bad])
        assert result.filter(good).equals(expected.filter(good))
        encoded = result.append_column("image", encode_images(audited_images(result)))
        encoded = encoded.append_column("anonymizer", pa.array(["seeded"] * len(encoded)))
        (part,) = RecordsSink(str(tmp_path), ANONYMIZED).write([encoded], None)
        assert part.rows == 48 - sum(bad)
        assert len(part.rejected) == sum(bad)
        assert part.rejected[0]["reason"] == "it overflows"

    def test_a_share_of_a_gpu_is_kept_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits: list[float] = []
        monkeypatch.setattr(memory, "limit", limits.append)
        for gpus, share in ((0.25, 0.25), (1.0, 1.0), (0.0, 1.0)):
            actor = AnonymizerActor(Blur(), None, 1, gpus)
            actor.ensure_opened()
            assert actor.runner.share == share
        assert limits == [0.25, 1.0, 0.0]


class TestEvaluationDraws:
    @pytest.mark.parametrize(("queries", "validation"), [(0, 0), (1, 1), (3, 1)])
    def test_counts(self, queries: int, validation: int) -> None:
        assert samples_per_split(queries) == {
            EVALUATION: 1,
            ATTACKER: queries,
            ATTACKER_VALIDATION: validation,
        }

    def test_background_people_as_often_as_the_attackers(self) -> None:
        assert samples_per_split(3, auxiliary=True) == {**samples_per_split(3), AUXILIARY: 3}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStream:
    @pytest.fixture
    def run(self, faces: Artifact, engine: EngineConfig, tmp_path: Path) -> Callable[..., Artifact]:
        def run(
            anonymizer: Anonymizer, samples: Mapping[str, int] = DRAWS, **changes: Any
        ) -> Artifact:
            folder = str(tmp_path / str(len(list(tmp_path.iterdir()))))
            anonymize(faces, anonymizer, samples, SEED, replace(engine, **changes), folder)
            return table_of(folder)

        return run

    @pytest.mark.parametrize(
        "anonymizer",
        [pytest.param(Blur(sigma=2.0), marks=pytest.mark.nightly), seeded(keep="0123456789")],
    )
    def test_equals_the_direct_call(
        self, run: Callable[..., Artifact], faces: Artifact, anonymizer: Anonymizer
    ) -> None:
        expected = directly(anonymizer, faces, DRAWS)
        table = run(anonymizer, batch_size=7, actors=1)
        rows = table.read().to_pylist()
        assert table.read().schema.equals(ANONYMIZED)
        assert {row["anonymizer"] for row in rows} == {anonymizer.name}
        assert [(row["sample_id"], row["sample"]) for row in rows] == sorted(expected)
        for row in rows:
            seed, image = expected[row["sample_id"], row["sample"]]
            assert row["seed"] == seed
            np.testing.assert_array_equal(decode_images([row["image"]])[0], image)
        other = run(anonymizer, batch_size=None, actors=2, block_rows=256)
        assert other.manifest.content == table.manifest.content
        assert other.manifest.rows == len(expected)

    @pytest.mark.parametrize("where", ["actor", "task"])
    def test_an_error_on_a_worker_keeps_its_class_and_message(
        self, run: Callable[..., Artifact], tmp_path: Path, where: str
    ) -> None:
        if where == "task":
            (tmp_path / "images" / "identity").mkdir(parents=True)
            (tmp_path / "images" / "identity" / "a.png").write_bytes(b"")

        @dataclass(frozen=True)
        class All(Precomputed):
            def select(self, sample_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
                return np.ones(len(sample_ids), bool)

        images = All(
            str(tmp_path / "images"), SyntheticFaces(n_identities=2, images_per_identity=1)
        )
        message = "no such folder" if where == "actor" else "no image of sample"
        with (
            pytest.raises(BadInputError, match=f"^precomputed: .*{message}"),
            reraise_worker_errors(),
        ):
            run(images)

    def test_no_split_is_asked_for(self, run: Callable[..., Artifact]) -> None:
        assert run(Blur(), samples={"auxiliary": 2, EVALUATION: 0}).manifest.files == {}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestGroups:
    def test_k_same(self, faces: Artifact, engine: EngineConfig, tmp_path: Path) -> None:
        anonymizer_name = KSame(k=3)
        samples = {EVALUATION: 1, ATTACKER: 3}
        anonymize_groups(faces, anonymizer_name, samples, engine, str(tmp_path / "0"))
        anonymize_groups(
            faces,
            anonymizer_name,
            dict(reversed(samples.items())),
            replace(engine, batch_size=7, actors=2, block_rows=256),
            str(tmp_path / "1"),
        )
        table, other = (table_of(str(tmp_path / name)) for name in "01")
        assert other.manifest.content == table.manifest.content
        originals = {row["sample_id"]: row for row in faces.read().to_pylist()}
        rows = table.read().to_pylist()
        assert {row["sample_id"] for row in rows} == {
            sample for sample, row in originals.items() if row["split"] in samples
        }
        assert len(rows) == len({row["sample_id"] for row in rows})
        groups: dict[bytes, list[str]] = {}
        for row in rows:
            assert (row["anonymizer"], row["sample"], row["seed"]) == ("k_same", 0, 0)
            assert row["split"] == originals[row["sample_id"]]["split"]
            groups.setdefault(row["image"], []).append(row["sample_id"])
        for image, anonymizers in groups.items():
            assert (
                len({originals[anonymizer]["identity"] for anonymizer in anonymizers})
                == len(anonymizers)
                >= 3
            )
            assert len({originals[anonymizer]["split"] for anonymizer in anonymizers}) == 1
            images = decode_images([originals[anonymizer]["image"] for anonymizer in anonymizers])
            mean = np.floor(images.astype(np.float64).mean(0) + 0.5)
            np.testing.assert_array_equal(decode_images([image])[0], mean)

    def test_too_few_people(self, faces: Artifact, engine: EngineConfig, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="k=7 needs as many people"):
            anonymize_groups(faces, KSame(k=7), {EVALUATION: 1}, engine, str(tmp_path / "0"))
        assert read_manifest(str(tmp_path / "0")) is None


def test_an_anonymizer_works_at_its_own_size() -> None:
    @dataclass(frozen=True)
    class Sized(Anonymizer):
        name = "sized"
        input_side = 8

        @property
        def conditions(self) -> Mapping[str, Condition]:
            return {"canny": Canny()}

        def open(self) -> AnonymizeFunction:
            return lambda batch: batch.images // 2 + batch.conditions["canny"][:1, :1, :1] * 0

    images = np.full((3, 16, 24, 3), 100, np.uint8)
    block = pa.table(
        {
            "sample_id": list("abc"),
            "identity": list("abc"),
            "split": [EVALUATION] * 3,
            "image": encode_images(images),
        }
    )
    inputs = ActorInputs(Sized(), {EVALUATION: 1}, 0)(block)
    assert raw_images(inputs, "pixels").shape == (3, 8, 8, 3)
    assert raw_images(inputs, "condition canny").shape == (3, 8, 8, 3)
    actor = AnonymizerActor(Sized(), 2, 1)
    result = audited_images(actor(inputs))
    assert result.shape == (3, 16, 24, 3) and (result == 50).all()
