"""The loop without Ray; what several workers do is in tests/engine/test_attack_training.py."""

import numpy as np
import pytest
import torch

from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.nn.objectives import objective
from cldmray.attackers.nn.pairs import PairSet
from cldmray.attackers.nn.training import (
    TrainingConfig,
    learning_rate,
    optimizer_of,
    starting_encoder,
    training_steps,
)

TINY = EncoderConfig(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
TRAINING = TrainingConfig(max_steps=6, batch_size=4, warmup_steps=2, precision="fp32", seed=3)
CPU = torch.device("cpu")


def pairs() -> PairSet:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    identities = np.repeat(np.arange(5), 2)
    return PairSet(images, identities, np.arange(10), images, identities, True)


class TestLearningRate:
    def test_warms_up_and_falls_to_one_percent(self) -> None:
        training = TrainingConfig(max_steps=1000, warmup_steps=10, learning_rate=2.0)
        rates = [learning_rate(training, step) for step in range(1000)]
        assert rates[0] == pytest.approx(0.2)
        assert max(rates) == pytest.approx(2, rel=1e-3)
        assert rates[9:] == sorted(rates[9:], reverse=True)
        assert rates[500] == pytest.approx(2 * 0.505)
        assert rates[-1] == pytest.approx(0.02, rel=1e-2)


class TestStartingEncoder:
    def test_depends_on_the_seed_alone(self) -> None:
        first = starting_encoder(TINY, TRAINING, None).state_dict()
        torch.rand(3)
        again = starting_encoder(TINY, TRAINING, None).state_dict()
        other = starting_encoder(TINY, TrainingConfig(seed=4), None).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["head.weight"], other["head.weight"])

    def test_takes_given_weights(self) -> None:
        torch.manual_seed(9)
        given = FaceEncoder(TINY).state_dict()
        started = starting_encoder(TINY, TRAINING, given).state_dict()
        assert all(torch.equal(given[name], started[name]) for name in given)


class TestTrainingSteps:
    def test_is_adamw_on_the_objective_by_hand(self) -> None:
        goal = objective(pairs(), TRAINING, 1)
        encoder = starting_encoder(TINY, TRAINING, None)
        found = list(training_steps(goal, encoder, optimizer_of(encoder, TRAINING), CPU))
        twin = starting_encoder(TINY, TRAINING, None)
        optimizer = torch.optim.AdamW(twin.parameters(), weight_decay=0.05)
        for step in range(6):
            optimizer.param_groups[0]["lr"] = learning_rate(TRAINING, step)
            twin.zero_grad()
            loss = goal.loss(step, slice(0, 4), twin, CPU)
            loss.backward()
            optimizer.step()
            assert found[step] == pytest.approx(loss.item(), rel=1e-5)
        for name, weights in encoder.state_dict().items():
            torch.testing.assert_close(weights, twin.state_dict()[name], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
    def test_two_chunks_and_more_learn_what_one_batch_learns(self, micro_batch_size: int) -> None:
        goal = objective(pairs(), TRAINING, 1)
        whole, chunked = (starting_encoder(TINY, TRAINING, None) for _ in range(2))
        losses = list(training_steps(goal, whole, optimizer_of(whole, TRAINING), CPU))
        optimizer = optimizer_of(chunked, TRAINING)
        max_steps = training_steps(goal, chunked, optimizer, CPU, micro_batch_size=micro_batch_size)
        assert list(max_steps) == pytest.approx(losses, rel=1e-4)
        for name, weights in whole.state_dict().items():
            torch.testing.assert_close(chunked.state_dict()[name], weights, rtol=0, atol=1e-4)

    def test_goes_on_where_it_stopped(self) -> None:
        goal = objective(pairs(), TRAINING, 1)
        whole = starting_encoder(TINY, TRAINING, None)
        losses = list(training_steps(goal, whole, optimizer_of(whole, TRAINING), CPU))
        halved = starting_encoder(TINY, TRAINING, None)
        optimizer = optimizer_of(halved, TRAINING)
        max_steps = training_steps(goal, halved, optimizer, CPU)
        found = [next(max_steps) for _ in range(2)]
        found += training_steps(goal, halved, optimizer, CPU, first=2)
        assert found == losses
        for name, weights in whole.state_dict().items():
            assert torch.equal(halved.state_dict()[name], weights)
