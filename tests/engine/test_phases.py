"""The schedule and the batches of the CLDM's training."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.engine.cldm_training import CldmTraining
from cldmray.engine.phases import PhaseConfig, learning_rate, local_batch

PHASE = PhaseConfig(steps=100, batch=10, learning_rate=0.1, warmup=5, decay_from=0.4)


class TestLearningRate:
    def test_by_hand(self) -> None:
        rates = [learning_rate(PHASE, step) for step in range(100)]
        assert rates[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
        assert rates[5:41] == pytest.approx([0.1] * 36)
        assert rates[70] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
        assert rates[99] == pytest.approx(0.001, rel=0.1)
        assert all(later < earlier for earlier, later in itertools.pairwise(rates[41:]))

    def test_the_decay_may_start_at_once(self) -> None:
        phase = replace(PHASE, warmup=1, decay_from=0.0)
        assert learning_rate(phase, 0) == pytest.approx(0.1)
        assert learning_rate(phase, 50) == pytest.approx(0.1 * (0.01 + 0.99 / 2))


class TestLocalBatch:
    @pytest.mark.parametrize("workers", [1, 2, 3, 10])
    def test_workers_share_one_global_batch(self, workers: int) -> None:
        whole, _ = local_batch(1000, PHASE, 7, 3, 0, 1)
        shares = [local_batch(1000, PHASE, 7, 3, rank, workers)[0] for rank in range(workers)]
        assert len(whole) == PHASE.batch
        assert whole.min() >= 0 and whole.max() < 1000
        assert sorted(np.concatenate(shares)) == sorted(whole)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_it_depends_on_seed_and_step_only(self) -> None:
        def batch(seed: int, step: int) -> list[float]:
            index, generator = local_batch(1000, PHASE, seed, step, 0, 1)
            return [*index, *torch.rand(2, generator=generator).tolist()]

        assert batch(7, 3) == batch(7, 3)
        found = {tuple(batch(seed, step)) for seed in range(3) for step in range(20)}
        assert len(found) == 60

    def test_workers_draw_different_noise(self) -> None:
        def noise(step: int, rank: int) -> float:
            return float(torch.rand(1, generator=local_batch(9, PHASE, 0, step, rank, 4)[1]))

        assert len({noise(step, rank) for step in range(10) for rank in range(4)}) == 40


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("warmup", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("decay_from", 1.0),
        ("ema", 1.0),
        ("ema", -0.1),
    ],
)
def test_a_wrong_schedule_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: must be "):
        replace(PHASE, **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("variants", 0),
        ("checkpoint_every", 0),
        ("workers", 0),
        ("workers", 11),
        ("threads", 0),
        ("seed", -1),
        ("condition_dropout", 1.1),
        ("together", -0.1),
    ],
)
def test_a_wrong_training_is_named(key: str, value: Any) -> None:
    training = CldmTraining(autoencoder=PHASE, diffusion=PHASE, storage="somewhere")
    with pytest.raises(ValueError, match=f"^{key}: "):
        replace(training, **{key: value})
