"""The loop without Ray; what several workers do is in tests/engine/test_attack_training.py."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cldmray.attackers.nn.encoder import FaceEncoder, SmallEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable, initial_encoder
from cldmray.attackers.nn.objectives import objective
from cldmray.attackers.nn.pairs import PairSet
from cldmray.attackers.nn.training import (
    Call,
    TrainingConfig,
    TrainingLoop,
    Worker,
    autocast,
    emulates_bf16,
    has_diverged,
    learning_rate,
)

TINY = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
TRAINING = TrainingConfig(max_steps=6, batch_size=4, warmup_steps=2, precision="fp32", seed=3)
CPU = torch.device("cpu")


def pairs() -> PairSet:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    identities = np.repeat(np.arange(5), 2)
    return PairSet(images, identities, np.arange(10), images, identities, True)


class TestAutocast:
    @pytest.mark.parametrize(
        ("capabilities", "emulated"),
        [
            ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
            ({"architecture": "x86_64", "avx2": True}, True),
            ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
            ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
            ({"architecture": "aarch64"}, False),
        ],
    )
    def test_knows_which_cpus_emulate_bf16(
        self, capabilities: dict[str, object], emulated: bool
    ) -> None:
        assert emulates_bf16(capabilities) is emulated

    @pytest.mark.parametrize(("emulated", "kind"), [(True, torch.float32), (False, torch.bfloat16)])
    def test_computes_bf16_where_the_cpu_has_it(
        self, monkeypatch: pytest.MonkeyPatch, emulated: bool, kind: torch.dtype
    ) -> None:
        own = {"architecture": "x86_64", "avx512_bf16": not emulated}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: own)
        with autocast("bf16", "cpu"):
            assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == kind

    def test_fp32_stays_fp32(self) -> None:
        with autocast("fp32", "cpu"):
            assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


class TestLearningRate:
    def test_warms_up_and_falls_to_one_percent(self) -> None:
        training = TrainingConfig(max_steps=1000, warmup_steps=10, learning_rate=2.0)
        rates = [learning_rate(training, step) for step in range(1000)]
        assert rates[0] == pytest.approx(0.2)
        assert max(rates) == pytest.approx(2, rel=1e-3)
        assert rates[9:] == sorted(rates[9:], reverse=True)
        assert rates[500] == pytest.approx(2 * 0.505)
        assert rates[-1] == pytest.approx(0.02, rel=1e-2)


class TestInitialEncoder:
    def test_depends_on_the_seed_alone(self) -> None:
        first = initial_encoder(TINY, TRAINING).state_dict()
        torch.rand(3)
        again = initial_encoder(TINY, TRAINING).state_dict()
        other = initial_encoder(TINY, TrainingConfig(seed=4)).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["head.weight"], other["head.weight"])

    def test_takes_given_weights(self) -> None:
        torch.manual_seed(9)
        given = FaceEncoder(TINY).state_dict()
        taken = initial_encoder(TINY, TRAINING, given).state_dict()
        assert all(torch.equal(given[name], taken[name]) for name in given)


def loop(training: TrainingConfig = TRAINING) -> TrainingLoop:
    return TrainingLoop(EncoderTrainable("mine", TINY, training, pairs()))


class TestSteps:
    def test_is_adamw_on_the_objective_by_hand(self) -> None:
        goal = objective(pairs(), TRAINING, 1)
        trained = loop()
        actual = list(trained.steps())
        twin = initial_encoder(TINY, TRAINING)
        optimizer = torch.optim.AdamW(twin.parameters(), weight_decay=0.05)
        for step in range(6):
            optimizer.param_groups[0]["lr"] = learning_rate(TRAINING, step)
            twin.zero_grad()
            loss = goal.loss(step, slice(0, 4), twin, CPU)
            loss.backward()
            optimizer.step()
            assert actual[step] == pytest.approx(loss.item(), rel=1e-5)
        for name, weights in trained.state().items():
            torch.testing.assert_close(weights, twin.state_dict()[name], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
    def test_two_chunks_and_more_learn_what_one_batch_learns(self, micro_batch_size: int) -> None:
        whole, chunked = loop(), loop(replace(TRAINING, micro_batch_size=micro_batch_size))
        losses = list(whole.steps())
        assert list(chunked.steps()) == pytest.approx(losses, rel=1e-4)
        for name, weights in whole.state().items():
            torch.testing.assert_close(chunked.state()[name], weights, rtol=0, atol=1e-4)

    def test_goes_on_where_it_stopped(self) -> None:
        whole, halved = loop(), loop()
        losses = list(whole.steps())
        steps = halved.steps()
        actual = [next(steps) for _ in range(2)]
        actual += halved.steps()
        assert actual == losses
        for name, weights in whole.state().items():
            assert torch.equal(halved.state()[name], weights)


class TestAverage:
    """Averaged weights by hand, and that a saved training goes on with both."""

    TRAINING = replace(TRAINING, ema=0.5, validate_every=2, max_grad_norm=0.1)

    def test_they_are_kept_beside_the_last_ones(self, tmp_path: Path) -> None:
        whole, halved, again = loop(self.TRAINING), loop(self.TRAINING), loop(self.TRAINING)
        assert [point["step"] for point in whole.points()] == [2, 4, 6]
        next(halved.points())
        halved.save(tmp_path)
        again.restore(tmp_path)
        assert [point["step"] for point in again.points()] == [4, 6]
        assert again.curve == whole.curve == [*halved.curve, *again.curve[1:]]
        last = whole.trainable.state()
        for name, weights in whole.state().items():
            assert torch.equal(again.state()[name], weights)
            assert torch.equal(again.trainable.state()[name], last[name])
        assert any(not torch.equal(weights, last[name]) for name, weights in whole.state().items())

    def test_the_learning_curve_is_that_of_the_weights_that_are_kept(self) -> None:
        class Watched(EncoderTrainable):
            def validate(self) -> dict[str, float]:
                return {"head": float(self.state()["head.weight"].double().abs().sum())}

        trained = TrainingLoop(Watched("mine", TINY, self.TRAINING, pairs()))
        for point in trained.points():
            kept, last = trained.state(), trained.trainable.state()
            assert point["head"] == float(kept["head.weight"].double().abs().sum())
            assert not torch.equal(kept["head.weight"], last["head.weight"])

    def test_a_saved_average_goes_to_the_device_of_the_training(self, tmp_path: Path) -> None:
        saved, again = loop(self.TRAINING), loop(self.TRAINING)
        next(saved.points())
        saved.save(tmp_path)
        again.worker = Worker(device="meta")
        again.restore(tmp_path)
        assert {weights.device.type for weights in again._average.shadow_params} == {"meta"}


class TestDivergence:
    def test_it_ends_the_training_at_the_next_point(self) -> None:
        class Diverging(EncoderTrainable):
            def loss(self, step: int, call: Call) -> torch.Tensor:
                return super().loss(step, call) * (math.nan if step else 1.0)

            def validate(self) -> dict[str, float]:
                return {"measured": 1.0}

        trained = TrainingLoop(
            Diverging("mine", TINY, replace(TRAINING, validate_every=1), pairs())
        )
        points = list(trained.points())
        assert [point["step"] for point in points] == [1, 2]
        assert "measured" in points[0] and "measured" not in points[1]
        assert has_diverged(points) and not has_diverged(points[:1])
        assert list(trained.points()) == []
