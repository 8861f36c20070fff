"""The stage that fits an inverter: what it learns from, what it leaves, and that it goes on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.attackers.reconstruction.base import InversionTraining
from cldmray.attackers.reconstruction.controls import MeanFaceInversion
from cldmray.attackers.reconstruction.pairs import within_budget
from cldmray.attackers.reconstruction.training import fit
from cldmray.attackers.reconstruction.unet import UNetInversion
from cldmray.engine.artifacts import StageTable
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.reconstruction_training import (
    InversionLoop,
    check_converged,
    check_validation,
    fit_inverter,
    fitted_inverter,
    inversion_curve,
    queried,
)
from cldmray.engine.stages import Stages
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    EVALUATION,
    decode_pictures,
    encode_pictures,
)
from cldmray.recognizers.base import Recognizer

STEPS = InversionTraining(steps=6, batch=4, warmup=1, validate_every=2, precision="fp32")
TINY = UNetInversion(widths=(8, 8), identity=0, perceptual=0, training=STEPS)


@pytest.fixture
def judge(stubs: Any) -> Recognizer:
    found: Recognizer = stubs.Pixels()
    return found


@pytest.fixture(scope="module")
def redrawn(
    faces: StageTable, write_table: Any, tmp_path_factory: pytest.TempPathFactory
) -> StageTable:
    """Two draws of every photograph, each darker than the photograph by half or by a quarter."""
    rows = []
    for draw, keep in enumerate((0.5, 0.75)):
        for row in faces.read().to_pylist():
            dark = (decode_pictures([row["image"]]) * keep).astype(np.uint8)
            image = encode_pictures(dark)[0].as_py()
            rows.append({**row, "image": image, "anonymizer": "dark", "draw": draw, "seed": 0})
    table = ANONYMIZED.empty_table().from_pylist(rows, ANONYMIZED)
    found: StageTable = write_table(
        str(tmp_path_factory.mktemp("redrawn")), ANONYMIZED, [[table[:50]], [table[50:]]]
    )
    return found


class TestQueried:
    def test_pictures_stand_beside_their_photographs(
        self, faces: StageTable, redrawn: StageTable
    ) -> None:
        known = queried(faces, redrawn, ATTACKER)
        pairs = known.pairs
        assert (pairs.queries, len(pairs.photos), len(known.samples)) == (30, 15, 30)
        keep = np.array([0.5, 0.75] * 15)[:, None, None, None]
        np.testing.assert_array_equal(
            pairs.anonymized, (pairs.photos[pairs.source] * keep).astype(np.uint8)
        )
        np.testing.assert_array_equal(pairs.people, pairs.photo_people[pairs.source])

    def test_a_budget_buys_the_pictures_of_the_smallest_hashes(
        self, faces: StageTable, redrawn: StageTable
    ) -> None:
        known = queried(faces, redrawn, ATTACKER)
        few, more = known.within(4), known.within(9)
        assert (few.queries, more.queries, known.within(None).queries) == (4, 9, 30)
        rows = within_budget(known.samples, 4)
        np.testing.assert_array_equal(few.anonymized, known.pairs.anonymized[rows])
        shown = {picture.tobytes() for picture in more.anonymized}
        assert {picture.tobytes() for picture in few.anonymized} <= shown
        assert len(few.photos) == 15

    def test_evaluation_people_are_out_of_reach(
        self, faces: StageTable, redrawn: StageTable
    ) -> None:
        with pytest.raises(ValueError, match="may not learn from evaluation people"):
            queried(faces, redrawn, EVALUATION)
        seen = (
            queried(faces, redrawn, ATTACKER).pairs,
            queried(faces, redrawn, ATTACKER_VALIDATION).pairs,
        )
        others = decode_pictures(faces.read(split=EVALUATION)["image"].to_pylist())
        for pairs in seen:
            assert not {p.tobytes() for p in pairs.photos} & {p.tobytes() for p in others}

    def test_errors(self, faces: StageTable, write_table: Any, tmp_path: Path) -> None:
        none = write_table(
            str(tmp_path / "none"),
            ANONYMIZED,
            [[ANONYMIZED.empty_table().from_pylist(
                [{**faces.read(split=EVALUATION).to_pylist()[0], "anonymizer": "a", "draw": 0,
                  "seed": 0}], ANONYMIZED)]],
        )  # fmt: skip
        with pytest.raises(BadInputError, match="no anonymized pictures of attacker people"):
            queried(faces, none, ATTACKER)


class TestLoop:
    def test_it_goes_on_where_it_was_cut_off(
        self, faces: StageTable, redrawn: StageTable, judge: Recognizer, tmp_path: Path
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER).pairs
        validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        whole = InversionLoop(TINY, pairs, validation, judge)
        assert [point["step"] for point in whole.points()] == [2, 4, 6]
        first = InversionLoop(TINY, pairs, validation, judge)
        steps = first.points()
        next(steps)
        first.save(tmp_path)
        second = InversionLoop(TINY, pairs, validation, judge)
        second.restore(tmp_path)
        assert [point["step"] for point in second.points()] == [4, 6]
        assert second.curve == whole.curve
        for name, value in whole.inverter.state().items():
            torch.testing.assert_close(second.inverter.state()[name], value)
        assert set(whole.curve[0]) == {
            "step", "loss", "queries", "validation_rank_1", "validation_cosine",
            "validation_margin", "validation_difference",
        }  # fmt: skip

    def test_it_is_the_training_of_one_process(
        self, faces: StageTable, redrawn: StageTable, judge: Recognizer
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER).pairs
        for inversion in (TINY, replace(TINY, shuffled=True)):
            loop = InversionLoop(inversion, pairs, None, judge)
            list(loop.points())
            for name, value in fit(inversion, pairs).state().items():
                torch.testing.assert_close(loop.inverter.state()[name], value)

    def test_a_control_has_one_point(
        self, faces: StageTable, redrawn: StageTable, judge: Recognizer, tmp_path: Path
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER).within(7)
        loop = InversionLoop(MeanFaceInversion(), pairs, pairs, judge)
        (point,) = loop.points()
        assert (point["step"], point["queries"]) == (0, 7)
        assert math.isnan(point["loss"])
        loop.save(tmp_path)
        again = InversionLoop(MeanFaceInversion(), pairs, pairs, judge)
        again.restore(tmp_path)
        assert list(again.points()) == []

    def test_a_diverged_training_is_refused(self) -> None:
        check_converged("a", [{"step": 0.0, "loss": math.nan}, {"step": 2.0, "loss": 1.0}])
        with pytest.raises(CldmrayError, match="unet: the training diverged"):
            check_converged("unet", [{"step": 2.0, "loss": math.inf}])

    def test_validation_needs_two_photographs_of_somebody(
        self, faces: StageTable, redrawn: StageTable
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        check_validation(pairs)
        with pytest.raises(BadInputError, match="no validation person has two photographs"):
            check_validation(replace(pairs, photo_people=np.arange(len(pairs.photos))))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestStage:
    def test_it_is_run_once_and_leaves_inverter_and_curve(
        self,
        faces: StageTable,
        redrawn: StageTable,
        judge: Recognizer,
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER).pairs
        validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        for inversion, steps in ((TINY, [2, 4, 6]), (MeanFaceInversion(), [0])):
            tables = [
                Stages(str(tmp_path), lambda line: None).run(
                    "invert",
                    {"inverter": inversion},
                    [],
                    lambda folder, one=inversion: fit_inverter(  # type: ignore[misc]
                        one, pairs, validation, judge, engine, folder
                    ),
                )
                for _ in range(2)
            ]
            assert [table.reused for table in tables] == [False, True]
            curve = inversion_curve(tables[1])
            assert [point["step"] for point in curve] == steps
            assert {point["queries"] for point in curve} == {30}
            found = fitted_inverter(tables[1], inversion)
            for name, value in fit(inversion, pairs).state().items():
                torch.testing.assert_close(found.state()[name], value)

    def test_two_workers_learn_what_one_does(
        self,
        faces: StageTable,
        redrawn: StageTable,
        judge: Recognizer,
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER).pairs
        validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        stage = Stages(str(tmp_path), lambda line: None).run(
            "invert",
            {},
            [],
            lambda folder: fit_inverter(
                TINY, pairs, validation, judge, replace(engine, train_workers=2), folder
            ),
        )
        found = fitted_inverter(stage, TINY).state()
        for name, value in fit(TINY, pairs).state().items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3)

    def test_a_killed_worker_costs_nothing(
        self,
        faces: StageTable,
        redrawn: StageTable,
        stubs: Any,
        engine: EngineConfig,
        tmp_path: Path,
    ) -> None:
        pairs = queried(faces, redrawn, ATTACKER).pairs
        validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        marker = tmp_path / "marker"
        inversion = stubs.KilledOnce(
            widths=(8, 8), identity=0, perceptual=0, training=STEPS, marker=str(marker)
        )
        stage = Stages(str(tmp_path), lambda line: None).run(
            "invert",
            {},
            [],
            lambda folder: fit_inverter(
                inversion, pairs, validation, stubs.Pixels(), engine, folder
            ),
        )
        assert marker.exists()
        assert [point["step"] for point in inversion_curve(stage)] == [2, 4, 6]
        found = fitted_inverter(stage, TINY).state()
        for name, value in fit(TINY, pairs).state().items():
            torch.testing.assert_close(found[name], value)
