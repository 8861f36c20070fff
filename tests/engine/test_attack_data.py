"""What an attacker is trained on: its pairs, those of a teacher, and who validates it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cldmray.arrays import to_unit_range
from cldmray.attackers.contrastive import AdaptiveContrastive, CleanTrained, ConditionOnly
from cldmray.attackers.data import AttackData
from cldmray.attackers.distilled import AdaptiveCondition, AdaptiveDistilled, ConditionOnlyDistilled
from cldmray.attackers.encoder_attacker import training_pairs, validation_pairs
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.nn.objectives import Contrast, Guidance
from cldmray.attackers.nn.training import TrainingConfig, TrainingLoop, Worker
from cldmray.conditions.canny import Canny
from cldmray.engine.artifacts import Artifact
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    AUXILIARY,
    EVALUATION,
    FACES,
    decode_images,
    embeddings_schema,
)

TINY = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
STEPS = TrainingConfig(max_steps=4, batch_size=4, precision="fp32")
LEARNER = CleanTrained(TINY, STEPS)


@pytest.fixture
def anonymized(faces: Artifact, write_table: Any, tmp_path: Path) -> Artifact:
    """Two draws of every image but those of the first attacker person; the images are images."""
    table = faces.read()
    rows = [
        {**row, "anonymizer": "no_op", "sample": draw, "seed": 0}
        for draw in (1, 0)
        for row in table.to_pylist()
        if row["identity"] != table.filter(_of(table, ATTACKER))["identity"][0].as_py()
    ]
    blocks = [ANONYMIZED.empty_table().from_pylist(rows, ANONYMIZED)]
    result: Artifact = write_table(str(tmp_path / "anonymized"), ANONYMIZED, [blocks])
    return result


def _of(table: Any, split: str) -> Any:
    return [value == split for value in table["split"].to_pylist()]


class TestPairSets:
    def test_image_pairs(self, faces: Artifact) -> None:
        originals = faces.read(split=ATTACKER)
        pairs = training_pairs(LEARNER, AttackData(faces))
        assert pairs.avoid_source
        np.testing.assert_array_equal(
            pairs.originals, decode_images(originals["image"].to_pylist())
        )
        np.testing.assert_array_equal(pairs.queries, pairs.originals)
        np.testing.assert_array_equal(pairs.query_source, np.arange(15))
        names = np.array(originals["identity"].to_pylist())
        for code in range(5):
            assert len(set(names[pairs.original_identities == code])) == 1
        assert len(np.unique(pairs.original_identities)) == 5

    def test_condition_pairs(self, faces: Artifact) -> None:
        pairs = training_pairs(
            ConditionOnly(TINY, STEPS, condition=Canny(50, 100)), AttackData(faces)
        )
        assert not pairs.avoid_source
        np.testing.assert_array_equal(pairs.queries, Canny(50, 100)(pairs.originals))
        np.testing.assert_array_equal(pairs.query_identities, pairs.original_identities)

    def test_anonymized_pairs(self, faces: Artifact, anonymized: Artifact) -> None:
        pairs = training_pairs(AdaptiveContrastive(TINY, STEPS), AttackData(faces, anonymized))
        assert len(pairs.queries) == 2 * 4 * 3
        assert len(pairs.originals) == 15
        np.testing.assert_array_equal(pairs.queries, pairs.originals[pairs.query_source])
        np.testing.assert_array_equal(
            pairs.query_identities, pairs.original_identities[pairs.query_source]
        )

    def test_anonymized_pairs_through_a_condition(
        self, faces: Artifact, anonymized: Artifact
    ) -> None:
        plain = training_pairs(AdaptiveContrastive(TINY, STEPS), AttackData(faces, anonymized))
        pairs = training_pairs(
            AdaptiveCondition(TINY, STEPS, condition=Canny(50, 100)), AttackData(faces, anonymized)
        )
        np.testing.assert_array_equal(pairs.queries, Canny(50, 100)(plain.queries))
        np.testing.assert_array_equal(pairs.originals, plain.originals)
        np.testing.assert_array_equal(pairs.query_source, plain.query_source)

    def test_images_are_brought_to_the_encoders_size_as_they_are_read(
        self, faces: Artifact, anonymized: Artifact
    ) -> None:
        whole = AttackData(faces, anonymized)
        side = whole.images(ATTACKER).originals.shape[1]
        small = replace(TINY, input_side=side // 2)
        plain = training_pairs(AdaptiveCondition(TINY, STEPS), whole)
        pairs = training_pairs(AdaptiveCondition(small, STEPS), whole)
        for kept, original in (
            (pairs.originals, plain.originals),
            (pairs.queries, Canny()(whole.images(ATTACKER).anonymized)),
        ):
            assert kept.shape == (len(original), side // 2, side // 2, 3)
            resized = torch.nn.functional.interpolate(
                to_unit_range(original), (side // 2,) * 2, mode="bilinear", antialias=True
            )
            # rows and columns are rounded to whole levels, half a level each
            assert (to_unit_range(kept) - resized).abs().max() <= 1 / 127.5
        validation = validation_pairs(AdaptiveCondition(small, STEPS), whole)
        assert (
            validation.queries.shape[1:]
            == validation.originals.shape[1:]
            == pairs.queries.shape[1:]
        )

    def test_no_image_is_made_larger(self, faces: Artifact) -> None:
        plain = AttackData(faces).images(ATTACKER)
        larger = AttackData(faces).images(ATTACKER, side=2 * plain.originals.shape[1])
        np.testing.assert_array_equal(larger.originals, plain.originals)

    def test_validation_people_are_others(self, faces: Artifact, anonymized: Artifact) -> None:
        for attacker, table in ((LEARNER, None), (AdaptiveContrastive(TINY, STEPS), anonymized)):
            pairs, validation = (
                training_pairs(attacker, AttackData(faces, table)),
                validation_pairs(attacker, AttackData(faces, table)),
            )
            assert len(validation.originals) == 9
            assert not {original.tobytes() for original in pairs.originals} & {
                original.tobytes() for original in validation.originals
            }

    def test_errors(self, faces: Artifact, write_table: Any, tmp_path: Path) -> None:
        table = faces.read()
        only = table.filter(_of(table, ATTACKER_VALIDATION))
        none = write_table(str(tmp_path / "none"), FACES, [[only]])
        with pytest.raises(BadInputError, match="clean_trained: no images of attacker people"):
            training_pairs(LEARNER, AttackData(none))
        first = write_table(
            str(tmp_path / "one"), FACES, [[table.filter(_of(table, ATTACKER))[:1]]]
        )
        with pytest.raises(BadInputError, match="fewer than two people"):
            training_pairs(LEARNER, AttackData(first))
        with pytest.raises(BadInputError, match="adaptive_contrastive: .* given none"):
            training_pairs(AdaptiveContrastive(TINY, STEPS), AttackData(faces))


class TestRehearsal:
    @pytest.mark.parametrize("kind", [CleanTrained, AdaptiveContrastive, AdaptiveDistilled])
    def test_it_takes_the_steps_of_the_training(self, kind: Any) -> None:
        attacker = kind(replace(TINY, input_side=16), replace(STEPS, batch_size=5))
        image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
        rehearsal = attacker.rehearsal(image)
        loop = TrainingLoop(rehearsal)
        assert len(list(loop.steps())) == 4
        objective = Guidance if kind is AdaptiveDistilled else Contrast
        assert type(rehearsal.objective) is objective
        assert rehearsal.objective.size == 5
        assert rehearsal.objective.pairs.queries.shape == (5, 16, 16, 3)

    def test_maps_are_read_where_a_condition_is(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
        rehearsal = ConditionOnly(TINY, STEPS).rehearsal(image)
        rehearsal.build(Worker())
        queries = rehearsal.objective.pairs.queries
        np.testing.assert_array_equal(queries, Canny()(image)[[0, 1, 0, 1]])


class TestDistilledPairs:
    @pytest.fixture
    def teacher_embeddings(self, faces: Artifact, write_table: Any, tmp_path: Path) -> Artifact:
        """Every image's embedding is a unit vector along one of 16 axes and says which image."""
        originals = faces.read()
        rows = [
            {
                **row,
                "view": "original",
                "embedding": [float(row["sample_id"][0] == f"{axis:x}") for axis in range(16)],
            }
            for row in originals.select(["sample_id", "identity"]).to_pylist()
        ]
        table = pa.Table.from_pylist(rows[::-1], embeddings_schema(16))
        result: Artifact = write_table(
            str(tmp_path / "teacher_embeddings"), table.schema, [[table]]
        )
        return result

    def test_every_image_has_its_own_embedding(
        self, faces: Artifact, anonymized: Artifact, teacher_embeddings: Artifact
    ) -> None:
        for attacker, table in (
            (AdaptiveDistilled(TINY, STEPS), anonymized),
            (ConditionOnlyDistilled(TINY, STEPS), None),
        ):
            pairs = training_pairs(attacker, AttackData(faces, table), teacher_embeddings)
            validation = validation_pairs(attacker, AttackData(faces, table), teacher_embeddings)
            plain = validation_pairs(attacker, AttackData(faces, table))
            np.testing.assert_array_equal(validation.originals, plain.originals)
            for result, split in ((pairs, ATTACKER), (validation, ATTACKER_VALIDATION)):
                assert result.teacher_embeddings is not None
                samples = faces.read(split=split)["sample_id"].to_pylist()
                assert result.teacher_embeddings.argmax(1).tolist() == [
                    int(name[0], 16) for name in samples
                ]
            assert plain.teacher_embeddings is None
            assert not pairs.avoid_source

    def test_an_image_without_embedding_is_an_error(
        self, faces: Artifact, teacher_embeddings: Artifact, write_table: Any, tmp_path: Path
    ) -> None:
        table = teacher_embeddings.read()
        attacker = ConditionOnlyDistilled(TINY, STEPS)
        none = write_table(str(tmp_path / "none"), table.schema, [[table[:1]]])
        with pytest.raises(BadInputError, match="the teacher has not embedded"):
            training_pairs(attacker, AttackData(faces), none)

    def test_background_people_are_added(
        self, faces: Artifact, teacher_embeddings: Artifact, write_table: Any, tmp_path: Path
    ) -> None:
        table = faces.read()
        splits = [AUXILIARY if s == EVALUATION else s for s in table["split"].to_pylist()]
        moved = table.set_column(2, FACES.field("split"), pa.array(splits))
        other = write_table(str(tmp_path / "moved"), FACES, [[moved]])
        attacker = ConditionOnlyDistilled(TINY, STEPS)
        assert len(training_pairs(attacker, AttackData(other), teacher_embeddings).originals) == 15
        pairs = training_pairs(
            replace(attacker, train_on_auxiliary=True), AttackData(other), teacher_embeddings
        )
        assert len(pairs.originals) == 15 + 18
        assert len(np.unique(pairs.original_identities)) == 5 + 6
        assert len(validation_pairs(attacker, AttackData(other), teacher_embeddings).originals) == 9
