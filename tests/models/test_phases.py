"""The schedule and the batches of the CLDM's training."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from cldmray.attackers.nn.training import Worker, learning_rate
from cldmray.models.cldm_training import CldmTraining
from cldmray.models.phases import BatchShard, PhaseConfig

PHASE = PhaseConfig(max_steps=100, batch_size=10, learning_rate=0.1, warmup_steps=5, decay_from=0.4)


class TestLearningRate:
    def test_by_hand(self) -> None:
        rates = [learning_rate(PHASE, step) for step in range(100)]
        assert rates[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
        assert rates[5:41] == pytest.approx([0.1] * 36)
        assert rates[70] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
        assert rates[99] == pytest.approx(0.001, rel=0.1)
        assert all(later < earlier for earlier, later in itertools.pairwise(rates[41:]))

    def test_the_decay_may_start_at_once(self) -> None:
        phase = replace(PHASE, warmup_steps=1, decay_from=0.0)
        assert learning_rate(phase, 0) == pytest.approx(0.1)
        assert learning_rate(phase, 50) == pytest.approx(0.1 * (0.01 + 0.99 / 2))


def shards_of(workers: int, seed: int, step: int) -> list[BatchShard]:
    return [
        BatchShard(1000, PHASE.batch_size, seed=seed, step=step, worker=Worker(rank, workers))
        for rank in range(workers)
    ]


class TestBatchShard:
    @pytest.mark.parametrize("workers", [1, 2, 3, 10])
    def test_workers_share_one_batch_and_all_that_is_drawn_for_it(self, workers: int) -> None:
        whole = shards_of(1, 7, 3)[0]
        shards = shards_of(workers, 7, 3)
        assert len(whole.rows) == whole.batch_size == PHASE.batch_size
        assert whole.rows.min() >= 0 and whole.rows.max() < 1000
        drawn = whole.local(torch.rand(10, generator=whole.generator))
        assert sorted(torch.cat([shard.rows for shard in shards]).tolist()) == sorted(
            whole.rows.tolist()
        )
        assert {len(shard.rows) for shard in shards} <= {10 // workers, 10 // workers + 1}
        for rank, shard in enumerate(shards):
            own = shard.local(torch.rand(10, generator=shard.generator))
            assert own.tolist() == drawn[rank::workers].tolist()
            assert shard.rows.tolist() == whole.rows[rank::workers].tolist()

    @pytest.mark.parametrize("workers", [1, 3, 4])
    def test_the_weighted_means_of_workers_have_the_mean_of_the_batch(self, workers: int) -> None:
        losses = torch.arange(10.0) ** 2
        shards = shards_of(workers, 7, 3)
        weighted = [shard.weight * shard.local(losses).mean() for shard in shards]
        assert float(sum(weighted)) / workers == pytest.approx(float(losses.mean()))

    def test_it_depends_on_seed_and_step_only(self) -> None:
        def batch(seed: int, step: int) -> list[float]:
            (shard,) = shards_of(1, seed, step)
            return [*shard.rows.tolist(), *torch.rand(2, generator=shard.generator).tolist()]

        assert batch(7, 3) == batch(7, 3)
        drawn_batches = {tuple(batch(seed, step)) for seed in range(3) for step in range(20)}
        assert len(drawn_batches) == 60


def test_a_longer_schedule_is_the_same_training() -> None:
    longer = replace(PHASE, max_steps=200, decay_from=0.7)
    assert longer.lasting == PHASE.lasting
    assert replace(PHASE, batch_size=11).lasting != PHASE.lasting


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_steps", 0),
        ("batch_size", 0),
        ("warmup_steps", 0),
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
        ("copies_per_image", 0),
        ("checkpoint_every", 0),
        ("workers", -1),
        ("workers", 11),
        ("max_workers", 11),
        ("max_workers", -1),
        ("threads", 0),
        ("seed", -1),
        ("condition_dropout", 1.1),
        ("two_conditions_fraction", -0.1),
        ("arrays", "s3://bucket/arrays"),
    ],
)
def test_a_wrong_training_is_named(key: str, value: Any) -> None:
    training = CldmTraining(autoencoder=PHASE, diffusion=PHASE, storage="somewhere", arrays="there")
    with pytest.raises(ValueError, match=f"^{key}: "):
        replace(training, **{key: value})
