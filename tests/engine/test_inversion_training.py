"""The stage that fits a reconstruction model: its input, what it leaves, and that it goes on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.attackers.data import AttackData
from cldmray.attackers.nn.training import TrainingLoop, check_converged
from cldmray.attackers.reconstruction.base import ReconstructionModel, ReconstructionTraining
from cldmray.attackers.reconstruction.controls import MeanFace
from cldmray.attackers.reconstruction.pairs import (
    ReconstructionPairs,
    check_validation,
    queried,
    within_budget,
)
from cldmray.attackers.reconstruction.training import ReconstructionTrainable
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.engine.artifacts import Artifact
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.stages import Stages
from cldmray.engine.training import learning_curve
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    EVALUATION,
    decode_images,
    encode_images,
)
from cldmray.recognizers.base import Recognizer
from tests.attackers.reconstruction.fitting import fit
from tests.engine import inversion_stubs
from tests.engine.training_helpers import fit_reconstructor, fitted_reconstructor

STEPS = ReconstructionTraining(
    max_steps=6, batch_size=4, warmup_steps=1, validate_every=2, precision="fp32"
)
TINY = UNetReconstruction(widths=(8, 8), identity=0, perceptual=0, training=STEPS)


@pytest.fixture
def held_out_recognizer() -> Recognizer:
    fitted: Recognizer = inversion_stubs.Pixels()
    return fitted


@pytest.fixture(scope="module")
def anonymized(
    faces: Artifact, write_table: Any, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """Two draws of every image, each darker than the image by half or by a quarter."""
    rows = []
    for draw, keep in enumerate((0.5, 0.75)):
        for row in faces.read().to_pylist():
            dark = (decode_images([row["image"]]) * keep).astype(np.uint8)
            image = encode_images(dark)[0].as_py()
            rows.append({**row, "image": image, "anonymizer": "dark", "sample": draw, "seed": 0})
    table = ANONYMIZED.empty_table().from_pylist(rows, ANONYMIZED)
    fitted: Artifact = write_table(
        str(tmp_path_factory.mktemp("anonymized")), ANONYMIZED, [[table[:50]], [table[50:]]]
    )
    return fitted


class TestQueried:
    def test_images_stand_beside_their_images(self, faces: Artifact, anonymized: Artifact) -> None:
        query_set = queried(AttackData(faces, anonymized), ATTACKER)
        pairs = query_set.pairs
        assert (pairs.queries, len(pairs.originals), len(query_set.samples)) == (30, 15, 30)
        keep = np.array([0.5, 0.75] * 15)[:, None, None, None]
        np.testing.assert_array_equal(
            pairs.anonymized, (pairs.originals[pairs.source] * keep).astype(np.uint8)
        )
        np.testing.assert_array_equal(pairs.identities, pairs.original_identities[pairs.source])

    def test_a_budget_buys_the_images_of_the_smallest_hashes(
        self, faces: Artifact, anonymized: Artifact
    ) -> None:
        query_set = queried(AttackData(faces, anonymized), ATTACKER)
        few, more = query_set.within(4), query_set.within(9)
        assert (few.queries, more.queries, query_set.within(None).queries) == (4, 9, 30)
        rows = within_budget(query_set.samples, 4)
        np.testing.assert_array_equal(few.anonymized, query_set.pairs.anonymized[rows])
        bought = {image.tobytes() for image in more.anonymized}
        assert {image.tobytes() for image in few.anonymized} <= bought
        assert len(few.originals) == 15

    def test_evaluation_people_are_out_of_reach(
        self, faces: Artifact, anonymized: Artifact
    ) -> None:
        with pytest.raises(ValueError, match="may not learn from evaluation people"):
            queried(AttackData(faces, anonymized), EVALUATION)
        seen = (
            queried(AttackData(faces, anonymized), ATTACKER).pairs,
            queried(AttackData(faces, anonymized), ATTACKER_VALIDATION).pairs,
        )
        others = decode_images(faces.read(split=EVALUATION)["image"].to_pylist())
        for pairs in seen:
            assert not {p.tobytes() for p in pairs.originals} & {p.tobytes() for p in others}

    def test_errors(self, faces: Artifact, write_table: Any, tmp_path: Path) -> None:
        none = write_table(
            str(tmp_path / "none"),
            ANONYMIZED,
            [[ANONYMIZED.empty_table().from_pylist(
                [{**faces.read(split=EVALUATION).to_pylist()[0], "anonymizer": "a", "sample": 0,
                  "seed": 0}], ANONYMIZED)]],
        )  # fmt: skip
        with pytest.raises(BadInputError, match="no anonymized images of attacker people"):
            queried(AttackData(faces, none), ATTACKER)


def looped(
    reconstruction: ReconstructionModel,
    pairs: ReconstructionPairs,
    validation: ReconstructionPairs | None,
    recognizer: Recognizer,
) -> TrainingLoop:
    return TrainingLoop(
        ReconstructionTrainable(
            reconstruction, pairs, validation=validation, validation_recognizer=recognizer
        )
    )


class TestLoop:
    def test_it_goes_on_where_it_was_cut_off(
        self, faces: Artifact, anonymized: Artifact, held_out_recognizer: Recognizer, tmp_path: Path
    ) -> None:
        pairs = queried(AttackData(faces, anonymized), ATTACKER).pairs
        validation = queried(AttackData(faces, anonymized), ATTACKER_VALIDATION).pairs
        whole = looped(TINY, pairs, validation, held_out_recognizer)
        assert [point["step"] for point in whole.points()] == [2, 4, 6]
        first = looped(TINY, pairs, validation, held_out_recognizer)
        max_steps = first.points()
        next(max_steps)
        first.save(tmp_path)
        second = looped(TINY, pairs, validation, held_out_recognizer)
        second.restore(tmp_path)
        assert [point["step"] for point in second.points()] == [4, 6]
        assert second.curve == whole.curve
        for name, value in whole.state().items():
            torch.testing.assert_close(second.state()[name], value)
        assert set(whole.curve[0]) == {
            "step", "loss", "queries", "validation_rank_1", "validation_cosine",
            "validation_margin", "validation_difference",
        }  # fmt: skip

    def test_it_is_the_training_of_one_process(
        self, faces: Artifact, anonymized: Artifact, held_out_recognizer: Recognizer
    ) -> None:
        pairs = queried(AttackData(faces, anonymized), ATTACKER).pairs
        for reconstruction in (TINY, replace(TINY, shuffled=True)):
            loop = looped(reconstruction, pairs, None, held_out_recognizer)
            list(loop.points())
            for name, value in fit(reconstruction, pairs).state().items():
                torch.testing.assert_close(loop.state()[name], value)

    def test_a_control_has_one_point(
        self, faces: Artifact, anonymized: Artifact, held_out_recognizer: Recognizer, tmp_path: Path
    ) -> None:
        pairs = queried(AttackData(faces, anonymized), ATTACKER).within(7)
        loop = looped(MeanFace(), pairs, pairs, held_out_recognizer)
        (point,) = loop.points()
        assert (point["step"], point["queries"]) == (0, 7)
        assert math.isnan(point["loss"])
        loop.save(tmp_path)
        again = looped(MeanFace(), pairs, pairs, held_out_recognizer)
        again.restore(tmp_path)
        assert list(again.points()) == []

    def test_a_diverged_training_is_refused(self) -> None:
        check_converged("a", [{"step": 0.0, "loss": math.nan}, {"step": 2.0, "loss": 1.0}])
        with pytest.raises(CldmrayError, match="unet: the training diverged"):
            check_converged("unet", [{"step": 2.0, "loss": math.inf}])

    def test_validation_needs_two_images_of_somebody(
        self, faces: Artifact, anonymized: Artifact
    ) -> None:
        pairs = queried(AttackData(faces, anonymized), ATTACKER_VALIDATION).pairs
        identities = pairs.original_identities.tolist()
        check_validation(identities)
        with pytest.raises(BadInputError, match="no validation person has two images"):
            check_validation(range(len(identities)))
        with pytest.raises(BadInputError, match="1 validation person, .*validation_fraction"):
            check_validation([0] * len(identities))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStage:
    def test_it_is_run_once_and_two_workers_learn_what_one_process_does(
        self,
        faces: Artifact,
        anonymized: Artifact,
        held_out_recognizer: Recognizer,
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        pairs = queried(AttackData(faces, anonymized), ATTACKER).pairs
        validation = queried(AttackData(faces, anonymized), ATTACKER_VALIDATION).pairs
        two = replace(engine, train_workers=2)
        for reconstruction, max_steps in ((TINY, [2, 4, 6]), (MeanFace(), [0])):
            tables = [
                Stages(str(tmp_path)).run(
                    "invert",
                    {"reconstructor": reconstruction},
                    [],
                    lambda folder, settings=reconstruction: fit_reconstructor(  # type: ignore[misc]
                        settings, pairs, validation, held_out_recognizer, two, folder
                    ),
                )
                for _ in range(2)
            ]
            assert [table.reused for table in tables] == [False, True]
            curve = learning_curve(tables[1])
            assert [point["step"] for point in curve] == max_steps
            assert {point["queries"] for point in curve} == {30}
            fitted = fitted_reconstructor(tables[1], reconstruction).state()
            for name, value in fit(reconstruction, pairs).state().items():
                torch.testing.assert_close(fitted[name], value, atol=1e-4, rtol=1e-3)

    def test_a_killed_worker_costs_nothing(
        self,
        faces: Artifact,
        anonymized: Artifact,
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        pairs = queried(AttackData(faces, anonymized), ATTACKER).pairs
        validation = queried(AttackData(faces, anonymized), ATTACKER_VALIDATION).pairs
        marker = tmp_path / "marker"
        reconstruction = inversion_stubs.KilledOnce(
            widths=(8, 8), identity=0, perceptual=0, training=STEPS, marker=str(marker)
        )
        stage = Stages(str(tmp_path)).run(
            "invert",
            {},
            [],
            lambda folder: fit_reconstructor(
                reconstruction, pairs, validation, inversion_stubs.Pixels(), engine, folder
            ),
        )
        assert marker.exists()
        assert [point["step"] for point in learning_curve(stage)] == [2, 4, 6]
        fitted = fitted_reconstructor(stage, TINY).state()
        for name, value in fit(TINY, pairs).state().items():
            torch.testing.assert_close(fitted[name], value)
