"""How attackers are trained: on one worker or two, from other weights, after failures."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cldmray import storage
from cldmray.arrays import Images
from cldmray.attackers.contrastive import CleanTrained
from cldmray.attackers.data import AttackData
from cldmray.attackers.encoder_attacker import training_pairs, validation_pairs
from cldmray.attackers.nn.encoder import FaceEncoder, SmallEncoder, embed
from cldmray.attackers.nn.pairs import Validation
from cldmray.attackers.nn.training import TrainingConfig, check_converged
from cldmray.engine.artifacts import WEIGHTS, Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import learning_curve
from cldmray.errors import BadInputError, CldmrayError
from cldmray.recognizers.base import Embeddings
from tests.engine.training_helpers import fit_encoder, load_encoder

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
            fit_encoder(LEARNER, pairs, validation, None, many, str(tmp_path))


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

        def fit(name: str, workers: int = 1, start: Artifact | None = None, **changes: Any) -> Any:
            fit_encoder(
                replace(LEARNER, training=replace(STEPS, **changes.get("training", {}))),
                training_pairs(LEARNER, AttackData(faces)),
                changes.get("validation", validation),
                start,
                replace(engine, train_workers=workers),
                str(root / name),
            )
            manifest = read_manifest(str(root / name))
            assert manifest is not None
            return Artifact(str(root / name), manifest, name)

        return fit

    @pytest.fixture(scope="class")
    def reference(self, fit: Callable[..., Artifact]) -> Artifact:
        """One worker, full augmentation, nothing in the way."""
        return fit("reference")

    @pytest.mark.parametrize("augment", [0.0, 1.0])
    def test_two_workers_learn_what_one_learns(
        self, fit: Callable[..., Artifact], reference: Artifact, augment: float
    ) -> None:
        training = {"augment": augment}
        single = reference if augment == 1 else fit("one, still", 1, training=training)
        two = fit(f"two, {augment}", 2, training=training)
        first, second = (load_encoder(stage, TINY).state_dict() for stage in (single, two))
        torch.manual_seed(STEPS.seed)
        untrained = FaceEncoder(TINY).state_dict()
        for name, weights in first.items():
            torch.testing.assert_close(second[name], weights, rtol=0, atol=1e-4, msg=name)
        moved = [float((first[name] - untrained[name]).abs().max()) for name in first]
        assert min(moved) > 1e-3
        curves = [learning_curve(stage) for stage in (single, two)]
        assert [point["step"] for point in curves[0]] == [2, 4]
        for one_point, two_point in zip(*curves, strict=True):
            assert two_point == pytest.approx(one_point, abs=1e-4)
            assert math.isfinite(one_point["loss"])
            assert 0 <= one_point["validation_rank_1"] <= 1

    @pytest.mark.parametrize("workers", [1, 2])
    def test_chunks_learn_what_one_batch_learns(
        self, fit: Callable[..., Artifact], reference: Artifact, workers: int
    ) -> None:
        """Four people are eight images: two chunks of one worker, two of each of two."""
        chunked = fit(f"chunks, {workers}", workers, training={"micro_batch_size": 4 // workers})
        first, second = (load_encoder(stage, TINY).state_dict() for stage in (reference, chunked))
        for name, weights in first.items():
            torch.testing.assert_close(second[name], weights, rtol=0, atol=1e-4, msg=name)
        for single, other in zip(learning_curve(reference), learning_curve(chunked), strict=True):
            assert other == pytest.approx(single, abs=1e-4)

    def test_starts_from_other_weights(
        self, fit: Callable[..., Artifact], reference: Artifact, validation: Validation
    ) -> None:
        training = {"learning_rate": 1e-12, "max_steps": 1}
        still = fit("still", start=reference, training=training)
        np.testing.assert_allclose(
            embed(load_encoder(still, TINY), validation.originals),
            embed(load_encoder(reference, TINY), validation.originals),
            atol=1e-5,
        )
        assert [point["step"] for point in learning_curve(still)] == [1]

    def test_a_failed_worker_and_a_killed_driver_resume(
        self,
        fit: Callable[..., Artifact],
        reference: Artifact,
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

        weights = storage.read_bytes(storage.join(reference.folder, WEIGHTS))
        flaky = fit("flaky", validation=Flaky(*validation))
        assert len(calls.read_text()) == 3 + 2
        assert learning_curve(flaky) == learning_curve(reference)
        assert storage.read_bytes(storage.join(flaky.folder, WEIGHTS)) == weights
        for name in ("manifest.json", WEIGHTS, "curve.parquet"):
            Path(flaky.folder, name).unlink()
        again = fit("flaky", validation=Flaky(*validation))
        assert len(calls.read_text()) == 3 + 2 + 1
        assert learning_curve(again) == learning_curve(reference)
        assert storage.read_bytes(storage.join(again.folder, WEIGHTS)) == weights
