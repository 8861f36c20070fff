"""How attackers are trained: in chunks, on two workers, from other weights, after failures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cldmray import storage
from cldmray.arrays import Images
from cldmray.attackers.contrastive import CleanTrained
from cldmray.attackers.data import AttackData
from cldmray.attackers.encoder_attacker import training_pairs, validation_pairs
from cldmray.attackers.nn.encoder import FaceEncoder, SmallEncoder, embed
from cldmray.attackers.nn.pairs import Validation
from cldmray.attackers.nn.training import Curve, TrainingConfig, check_converged
from cldmray.engine.artifacts import WEIGHTS, Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import TrainingResult, learning_curve
from cldmray.errors import BadInputError, CldmrayError
from cldmray.recognizers.base import Embeddings
from tests.engine.training_helpers import (
    encoder_of,
    fit_encoder,
    fit_in_process,
    load_encoder,
)

TINY = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
STEPS = TrainingConfig(
    max_steps=4, batch_size=4, warmup_steps=1, validate_every=2, precision="fp32", augment=1.0
)
LEARNER = CleanTrained(TINY, STEPS)


class TestCheckConverged:
    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_a_diverged_training_is_refused(self, loss: float) -> None:
        check_converged(
            "adaptive_contrastive", [{"step": 1, "loss": 2.0, "validation_rank_1": math.nan}]
        )
        with pytest.raises(CldmrayError, match=r"^adaptive_contrastive: .* training.learning_rate"):
            check_converged(
                "adaptive_contrastive", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": loss}]
            )


class TestTooManyWorkers:
    def test_is_found_before_any_work_starts(
        self, faces: Artifact, engine: EngineConfig, tmp_path: Path
    ) -> None:
        pairs, validation = (
            training_pairs(LEARNER, AttackData(faces)),
            validation_pairs(LEARNER, AttackData(faces)),
        )
        many = replace(engine, train_workers=6)
        with pytest.raises(BadInputError, match="5 attacker people are too few for 6"):
            fit_encoder(LEARNER, pairs, validation, many, str(tmp_path))


@pytest.fixture(scope="module")
def in_process(faces: Artifact) -> Callable[..., TrainingResult]:
    """Trains without Ray: full augmentation, nothing in the way."""

    def in_process(
        init_from: Mapping[str, Tensor] | None = None, **training: Any
    ) -> TrainingResult:
        data = AttackData(faces)
        learner = replace(LEARNER, training=replace(STEPS, **training))
        pairs, validation = training_pairs(learner, data), validation_pairs(learner, data)
        return fit_in_process(learner, pairs, validation, init_from)

    return in_process


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, weights in expected.items():
        torch.testing.assert_close(actual[name], weights, rtol=0, atol=1e-4, msg=name)


def assert_same_curve(actual: Curve, expected: Curve) -> None:
    assert [point["step"] for point in expected] == [2, 4]
    for ours, point in zip(actual, expected, strict=True):
        assert ours == pytest.approx(point, abs=1e-4)
        assert math.isfinite(point["loss"])
        assert 0 <= point["validation_rank_1"] <= 1


def assert_moved(learnt: TrainingResult) -> None:
    torch.manual_seed(STEPS.seed)
    untrained = FaceEncoder(TINY).state_dict()
    moved = [float((learnt.state[name] - untrained[name]).abs().max()) for name in learnt.state]
    assert min(moved) > 1e-3


class TestInProcess:
    def test_chunks_learn_what_one_batch_learns(
        self, in_process: Callable[..., TrainingResult]
    ) -> None:
        """Four people are eight images: two chunks."""
        whole, chunked = in_process(), in_process(micro_batch_size=4)
        assert_same(chunked.state, whole.state)
        assert_same_curve(chunked.curve, whole.curve)
        assert_moved(whole)

    def test_starts_from_other_weights(
        self, faces: Artifact, in_process: Callable[..., TrainingResult]
    ) -> None:
        base = in_process()
        still = in_process(base.state, learning_rate=1e-12, max_steps=1)
        originals = validation_pairs(LEARNER, AttackData(faces)).originals
        first, second = (
            embed(encoder_of(result.state, TINY), originals) for result in (base, still)
        )
        np.testing.assert_allclose(second, first, atol=1e-5)
        assert [point["step"] for point in still.curve] == [1]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestTraining:
    @pytest.fixture(scope="class")
    def validation(self, faces: Artifact) -> Validation:
        return validation_pairs(LEARNER, AttackData(faces))

    @pytest.fixture(scope="class")
    def fit(
        self,
        local_ray: None,
        faces: Artifact,
        validation: Validation,
        engine: EngineConfig,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Callable[..., Artifact]:
        root = tmp_path_factory.mktemp("training")

        def fit(name: str, workers: int = 1, **changes: Any) -> Any:
            fit_encoder(
                replace(LEARNER, training=replace(STEPS, **changes.get("training", {}))),
                training_pairs(LEARNER, AttackData(faces)),
                changes.get("validation", validation),
                replace(engine, train_workers=workers),
                str(root / name),
            )
            manifest = read_manifest(str(root / name))
            assert manifest is not None
            return Artifact(str(root / name), manifest, name)

        return fit

    @pytest.mark.parametrize(
        "training",
        [
            pytest.param({"micro_batch_size": 2}, id="in chunks"),
            pytest.param({}, id="whole", marks=pytest.mark.nightly),
            pytest.param({"augment": 0.0}, id="still", marks=pytest.mark.nightly),
        ],
    )
    def test_two_workers_learn_what_one_process_learns(
        self,
        fit: Callable[..., Artifact],
        in_process: Callable[..., TrainingResult],
        training: dict[str, Any],
    ) -> None:
        """Four people are eight images: two chunks of each of two workers."""
        single = in_process(**{**training, "micro_batch_size": None})
        two = fit("-".join(["two", *training]), 2, training=training)
        assert_same(load_encoder(two, TINY).state_dict(), single.state)
        assert_moved(single)
        assert_same_curve(learning_curve(two), single.curve)

    def test_a_failed_worker_and_a_killed_driver_resume(
        self,
        fit: Callable[..., Artifact],
        in_process: Callable[..., TrainingResult],
        validation: Validation,
        tmp_path: Path,
    ) -> None:
        calls = tmp_path / "calls"
        calls.touch()

        class Flaky(Validation):
            """Fails at its third call, that of step 4: the first are of the start and of step 2."""

            __slots__ = ()

            def rank_1(self, embed: Callable[[Images], Embeddings]) -> float:
                with calls.open("a") as log:
                    log.write("x")
                if calls.stat().st_size == 3:
                    raise OSError("the worker fails once")
                return super(type(self), self).rank_1(embed)

        undisturbed = in_process()
        flaky = fit("flaky", validation=Flaky(*validation))
        assert len(calls.read_text()) == 3 + 2
        assert learning_curve(flaky) == undisturbed.curve
        assert storage.read_bytes(storage.join(flaky.folder, WEIGHTS)) == undisturbed.weights
        for name in ("manifest.json", WEIGHTS, "curve.parquet"):
            Path(flaky.folder, name).unlink()
        again = fit("flaky", validation=Flaky(*validation))
        assert len(calls.read_text()) == 3 + 2 + 1
        assert learning_curve(again) == undisturbed.curve
        assert storage.read_bytes(storage.join(again.folder, WEIGHTS)) == undisturbed.weights
