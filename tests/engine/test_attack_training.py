import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cldmray import storage
from cldmray.attackers.encoder import EncoderConfig, FaceEncoder, embed
from cldmray.attackers.ladder import Adaptive, ClearTrained, EdgeProxy, TrainingConfig
from cldmray.attackers.pairs import Validation
from cldmray.attackers.teacher_guided import (
    EdgeProxyTeacher,
    EdgesOfAnonymized,
    TeacherGuided,
)
from cldmray.conditions.canny import Canny
from cldmray.engine.attack_data import pair_set, validation_set
from cldmray.engine.attack_training import (
    WEIGHTS,
    check_converged,
    fit_encoder,
    learning_curve,
    load_encoder,
)
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.tables import StageTable, read_manifest
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    BACKGROUND,
    EVALUATION,
    FACES,
    decode_pictures,
    embeddings_schema,
)

TINY = EncoderConfig(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
STEPS = TrainingConfig(steps=4, batch=4, warmup=1, validate_every=2, precision="fp32", augment=1.0)
RUNG = ClearTrained(TINY, STEPS)


@pytest.fixture
def redrawn(faces: StageTable, write_table: Any, tmp_path: Path) -> StageTable:
    """Two draws of every photo but those of the first attacker person; the pictures are photos."""
    table = faces.read()
    rows = [
        {**row, "anonymizer": "copy", "draw": draw, "seed": 0}
        for draw in (1, 0)
        for row in table.to_pylist()
        if row["identity"] != table.filter(_of(table, ATTACKER))["identity"][0].as_py()
    ]
    blocks = [ANONYMIZED.empty_table().from_pylist(rows, ANONYMIZED)]
    found: StageTable = write_table(str(tmp_path / "redrawn"), ANONYMIZED, [blocks])
    return found


def _of(table: Any, split: str) -> Any:
    return [value == split for value in table["split"].to_pylist()]


class TestPairSets:
    def test_photo_pairs(self, faces: StageTable) -> None:
        photos = faces.read(split=ATTACKER)
        pairs = pair_set(RUNG, faces, None)
        assert pairs.avoid_source
        np.testing.assert_array_equal(pairs.photos, decode_pictures(photos["image"].to_pylist()))
        np.testing.assert_array_equal(pairs.queries, pairs.photos)
        np.testing.assert_array_equal(pairs.query_source, np.arange(15))
        names = np.array(photos["identity"].to_pylist())
        for code in range(5):
            assert len(set(names[pairs.photo_people == code])) == 1
        assert len(np.unique(pairs.photo_people)) == 5

    def test_condition_pairs(self, faces: StageTable) -> None:
        pairs = pair_set(EdgeProxy(TINY, STEPS, condition=Canny(50, 100)), faces, None)
        assert not pairs.avoid_source
        np.testing.assert_array_equal(pairs.queries, Canny(50, 100)(pairs.photos))
        np.testing.assert_array_equal(pairs.query_people, pairs.photo_people)

    def test_anonymized_pairs(self, faces: StageTable, redrawn: StageTable) -> None:
        pairs = pair_set(Adaptive(TINY, STEPS), faces, redrawn)
        assert len(pairs.queries) == 2 * 4 * 3
        assert len(pairs.photos) == 15
        np.testing.assert_array_equal(pairs.queries, pairs.photos[pairs.query_source])
        np.testing.assert_array_equal(pairs.query_people, pairs.photo_people[pairs.query_source])

    def test_anonymized_pairs_through_a_condition(
        self, faces: StageTable, redrawn: StageTable
    ) -> None:
        plain = pair_set(Adaptive(TINY, STEPS), faces, redrawn)
        pairs = pair_set(EdgesOfAnonymized(TINY, STEPS, condition=Canny(50, 100)), faces, redrawn)
        np.testing.assert_array_equal(pairs.queries, Canny(50, 100)(plain.queries))
        np.testing.assert_array_equal(pairs.photos, plain.photos)
        np.testing.assert_array_equal(pairs.query_source, plain.query_source)

    def test_validation_people_are_others(self, faces: StageTable, redrawn: StageTable) -> None:
        for rung, table in ((RUNG, None), (Adaptive(TINY, STEPS), redrawn)):
            pairs, validation = pair_set(rung, faces, table), validation_set(rung, faces, table)
            assert len(validation.photos) == 9
            assert not {photo.tobytes() for photo in pairs.photos} & {
                photo.tobytes() for photo in validation.photos
            }

    def test_errors(self, faces: StageTable, write_table: Any, tmp_path: Path) -> None:
        table = faces.read()
        only = table.filter(_of(table, ATTACKER_VALIDATION))
        none = write_table(str(tmp_path / "none"), FACES, [[only]])
        with pytest.raises(BadInputError, match="clear_trained: no pictures of attacker people"):
            pair_set(RUNG, none, None)
        one = write_table(str(tmp_path / "one"), FACES, [[table.filter(_of(table, ATTACKER))[:1]]])
        with pytest.raises(BadInputError, match="fewer than two people"):
            pair_set(RUNG, one, None)
        with pytest.raises(BadInputError, match="adaptive: .* given none"):
            pair_set(Adaptive(TINY, STEPS), faces, None)


class TestTaughtPairs:
    @pytest.fixture
    def taught(self, faces: StageTable, write_table: Any, tmp_path: Path) -> StageTable:
        """Every photo's embedding is a unit vector along one of 16 axes and says which photo."""
        photos = faces.read()
        rows = [
            {
                **row,
                "view": "original",
                "embedding": [float(row["sample_id"][0] == f"{axis:x}") for axis in range(16)],
            }
            for row in photos.select(["sample_id", "identity"]).to_pylist()
        ]
        table = pa.Table.from_pylist(rows[::-1], embeddings_schema(16))
        found: StageTable = write_table(str(tmp_path / "taught"), table.schema, [[table]])
        return found

    def test_every_photo_has_its_own_embedding(
        self, faces: StageTable, redrawn: StageTable, taught: StageTable
    ) -> None:
        for rung, table in (
            (TeacherGuided(TINY, STEPS), redrawn),
            (EdgeProxyTeacher(TINY, STEPS), None),
        ):
            pairs = pair_set(rung, faces, table, taught)
            validation = validation_set(rung, faces, table, taught)
            plain = validation_set(rung, faces, table)
            np.testing.assert_array_equal(validation.photos, plain.photos)
            for found, split in ((pairs, ATTACKER), (validation, ATTACKER_VALIDATION)):
                assert found.taught is not None
                samples = faces.read(split=split)["sample_id"].to_pylist()
                assert found.taught.argmax(1).tolist() == [int(name[0], 16) for name in samples]
            assert plain.taught is None
            assert not pairs.avoid_source

    def test_a_photo_without_embedding_is_an_error(
        self, faces: StageTable, taught: StageTable, write_table: Any, tmp_path: Path
    ) -> None:
        table = taught.read()
        rung = EdgeProxyTeacher(TINY, STEPS)
        none = write_table(str(tmp_path / "none"), table.schema, [[table[:1]]])
        with pytest.raises(BadInputError, match="the teacher has not embedded"):
            pair_set(rung, faces, None, none)

    def test_background_people_are_added(
        self, faces: StageTable, taught: StageTable, write_table: Any, tmp_path: Path
    ) -> None:
        table = faces.read()
        splits = [BACKGROUND if s == EVALUATION else s for s in table["split"].to_pylist()]
        moved = table.set_column(2, FACES.field("split"), pa.array(splits))
        other = write_table(str(tmp_path / "moved"), FACES, [[moved]])
        rung = EdgeProxyTeacher(TINY, STEPS)
        assert len(pair_set(rung, other, None, taught).photos) == 15
        pairs = pair_set(replace(rung, train_on_background=True), other, None, taught)
        assert len(pairs.photos) == 15 + 18
        assert len(np.unique(pairs.photo_people)) == 5 + 6
        assert len(validation_set(rung, other, None, taught).photos) == 9


class TestCheckConverged:
    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_a_diverged_training_is_refused(self, loss: float) -> None:
        check_converged("adaptive", [{"step": 1, "loss": 2.0, "validation_rank_1": math.nan}])
        with pytest.raises(CldmrayError, match=r"^adaptive: .* training.learning_rate"):
            check_converged("adaptive", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": loss}])


class TestTooManyWorkers:
    def test_is_found_before_any_work_starts(
        self, faces: StageTable, engine: EngineConfig, tmp_path: Path
    ) -> None:
        pairs, validation = pair_set(RUNG, faces, None), validation_set(RUNG, faces, None)
        many = replace(engine, train_workers=6)
        with pytest.raises(BadInputError, match="5 attacker people are too few for 6"):
            fit_encoder(RUNG, pairs, validation, None, many, str(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestTraining:
    @pytest.fixture(scope="class")
    def validation(self, faces: StageTable) -> Validation:
        return validation_set(RUNG, faces, None)

    @pytest.fixture(scope="class")
    def fit(
        self,
        local_ray: None,
        faces: StageTable,
        validation: Validation,
        engine: EngineConfig,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Callable[..., StageTable]:
        root = tmp_path_factory.mktemp("training")

        def fit(
            name: str, workers: int = 1, start: StageTable | None = None, **changes: Any
        ) -> Any:
            fit_encoder(
                replace(RUNG, training=replace(STEPS, **changes.get("training", {}))),
                pair_set(RUNG, faces, None),
                changes.get("validation", validation),
                start,
                replace(engine, train_workers=workers),
                str(root / name),
            )
            manifest = read_manifest(str(root / name))
            assert manifest is not None
            return StageTable(str(root / name), manifest, name)

        return fit

    @pytest.fixture(scope="class")
    def reference(self, fit: Callable[..., StageTable]) -> StageTable:
        """One worker, full augmentation, nothing in the way."""
        return fit("reference")

    @pytest.mark.parametrize("augment", [0.0, 1.0])
    def test_two_workers_learn_what_one_learns(
        self, fit: Callable[..., StageTable], reference: StageTable, augment: float
    ) -> None:
        training = {"augment": augment}
        one = reference if augment == 1 else fit("one, still", 1, training=training)
        two = fit(f"two, {augment}", 2, training=training)
        first, second = (load_encoder(stage, TINY).state_dict() for stage in (one, two))
        torch.manual_seed(STEPS.seed)
        untrained = FaceEncoder(TINY).state_dict()
        for name, weights in first.items():
            torch.testing.assert_close(second[name], weights, rtol=0, atol=1e-4, msg=name)
        moved = [float((first[name] - untrained[name]).abs().max()) for name in first]
        assert min(moved) > 1e-3
        curves = [learning_curve(stage) for stage in (one, two)]
        assert [point["step"] for point in curves[0]] == [2, 4]
        for one_point, two_point in zip(*curves, strict=True):
            assert two_point == pytest.approx(one_point, abs=1e-4)
            assert math.isfinite(one_point["loss"])
            assert 0 <= one_point["validation_rank_1"] <= 1

    def test_starts_from_other_weights(
        self, fit: Callable[..., StageTable], reference: StageTable, validation: Validation
    ) -> None:
        training = {"learning_rate": 1e-12, "steps": 1}
        still = fit("still", start=reference, training=training)
        np.testing.assert_allclose(
            embed(load_encoder(still, TINY), validation.photos),
            embed(load_encoder(reference, TINY), validation.photos),
            atol=1e-5,
        )
        assert [point["step"] for point in learning_curve(still)] == [1]

    def test_a_failed_worker_and_a_killed_driver_resume(
        self,
        fit: Callable[..., StageTable],
        reference: StageTable,
        validation: Validation,
        tmp_path: Path,
    ) -> None:
        calls = tmp_path / "calls"
        calls.touch()

        class Flaky(Validation):
            """Fails at its second call, after which a checkpoint of step 2 is there."""

            __slots__ = ()

            def rank_1(self, encoder: Any, device: str) -> float:
                with calls.open("a") as log:
                    log.write("x")
                if calls.stat().st_size == 2:
                    raise OSError("the worker fails once")
                return super(type(self), self).rank_1(encoder, device)

        weights = storage.read_bytes(storage.join(reference.folder, WEIGHTS))
        flaky = fit("flaky", validation=Flaky(*validation))
        assert calls.read_text() == "xxx"
        assert learning_curve(flaky) == learning_curve(reference)
        assert storage.read_bytes(storage.join(flaky.folder, WEIGHTS)) == weights
        for name in ("manifest.json", WEIGHTS, "curve.parquet"):
            Path(flaky.folder, name).unlink()
        again = fit("flaky", validation=Flaky(*validation))
        assert calls.read_text() == "xxx"
        assert learning_curve(again) == learning_curve(reference)
        assert storage.read_bytes(storage.join(again.folder, WEIGHTS)) == weights
