"""What an attacker is trained on: its pairs, those of a teacher, and who validates it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.attackers.contrastive import Adaptive, ClearTrained, EdgeProxy
from cldmray.attackers.distilled import EdgeProxyTeacher, EdgesOfAnonymized, TeacherGuided
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.conditions.canny import Canny
from cldmray.engine.artifacts import StageTable
from cldmray.engine.attacker_training import pair_set, validation_set
from cldmray.errors import BadInputError
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
STEPS = TrainingConfig(steps=4, batch=4, precision="fp32")
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
