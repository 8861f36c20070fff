"""What a step sees and minimises, without any of the real networks."""

import numpy as np
import pytest
import torch
from torch import nn

from cldmray.arrays import to_unit_range
from cldmray.attackers.nn.training import TrainingLoop, Worker
from cldmray.attackers.reconstruction.base import ReconstructionTraining, TrainedReconstructionModel
from cldmray.attackers.reconstruction.controls import MeanFace
from cldmray.attackers.reconstruction.training import (
    ReconstructionObjective,
    ReconstructionTrainable,
)
from cldmray.attackers.reconstruction.unet import UNetReconstruction, UNetReconstructor
from cldmray.conditions.canny import Canny
from cldmray.errors import BadInputError
from tests.attackers.reconstruction.fitting import fit

CPU = torch.device("cpu")
TRAINING = ReconstructionTraining(
    max_steps=4, batch_size=8, warmup_steps=2, precision="fp32", seed=5
)
SMALL = UNetReconstruction(widths=(8, 8), identity=0.0, perceptual=0.0, training=TRAINING)
WHOLE = slice(0, 8)


def goal(
    pairs, settings: TrainedReconstructionModel = SMALL, workers: int = 1
) -> ReconstructionObjective:
    return ReconstructionObjective(settings.build(), pairs, settings.training, workers)


class TestBatches:
    def test_they_depend_on_seed_and_step_only(self, pairs):
        first, again = goal(pairs), goal(pairs)
        first.batch(0, WHOLE, CPU)
        for mine, theirs in zip(
            first.batch(3, WHOLE, CPU), again.batch(3, WHOLE, CPU), strict=True
        ):
            assert mine is None or torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))
        assert first.draw(3).tolist() != first.draw(4).tolist()

    def test_workers_share_one_batch(self, pairs):
        shared = goal(pairs, workers=2)
        whole = shared.batch(1, WHOLE, CPU)
        parts = [shared.batch(1, Worker(rank, 2).share(shared.size), CPU) for rank in range(2)]
        for number in (0, 2, 3, 4, 5):
            joined = torch.cat([torch.as_tensor(part[number]) for part in parts])
            assert torch.equal(joined, torch.as_tensor(whole[number]))

    def test_everybody_comes_once_before_anybody_comes_twice(self, pairs):
        for step in range(5):
            identities = pairs.identities[goal(pairs).draw(step)].tolist()
            assert len(identities) == 8
            assert len(set(identities[:6])) == 6
            assert len({*goal(pairs).draw(step).tolist()}) == 8

    def test_both_sides_undergo_the_same_view(self, pairs):
        same = type(pairs)(
            pairs.originals, pairs.identities, pairs.source, pairs.originals, pairs.identities
        )
        turned = UNetReconstruction(
            widths=(8, 8), identity=0.0, perceptual=0.0,
            training=ReconstructionTraining(batch_size=8, augment=1.0),
        )  # fmt: skip
        batch = goal(same, turned).batch(0, WHOLE, CPU)
        assert torch.equal(batch.anonymized, batch.originals)
        assert batch.originals.abs().max() <= 1
        plain = to_unit_range(pairs.originals[batch.rows])
        assert (batch.originals - plain).abs().mean() > 0.02

    def test_without_strength_images_are_mirrored_at_most(self, pairs):
        batch = goal(pairs).batch(0, WHOLE, CPU)
        plain = to_unit_range(pairs.originals[batch.rows])
        mirrored = [
            int((first - other.flip(-1)).abs().max() < 1e-4)
            for first, other in zip(batch.originals, plain, strict=True)
        ]
        kept = [
            int((first - other).abs().max() < 1e-4)
            for first, other in zip(batch.originals, plain, strict=True)
        ]
        assert [a + b for a, b in zip(mirrored, kept, strict=True)] == [1] * 8
        assert 0 < sum(mirrored) < 8

    def test_maps_are_moved_but_not_coloured(self, pairs):
        settings = UNetReconstruction(
            widths=(8, 8), identity=0.0, perceptual=0.0, condition=Canny(20, 40),
            training=ReconstructionTraining(batch_size=12, augment=1.0),
        )  # fmt: skip
        maps = goal(pairs, settings).batch(0, slice(0, 12), CPU).maps
        assert maps is not None
        assert maps.min() == -1
        assert maps.max() > 0.5

    def test_shuffled_images_are_the_other_persons(self, pairs):
        batch = goal(pairs.shuffled(0)).batch(0, WHOLE, CPU)
        drawn = pairs.identities[goal(pairs.shuffled(0)).draw(0)]
        assert not (pairs.original_identities[batch.rows] == drawn).any()

    def test_too_few_pairs_for_the_workers(self, pairs):
        with pytest.raises(BadInputError, match="raise the query budget"):
            goal(pairs.rows(np.arange(3)), workers=4)
        assert goal(pairs.rows(np.arange(3)), workers=2).size == 3


class TestSteps:
    def test_the_gradients_of_two_workers_make_that_of_one(self, pairs):
        shared = goal(pairs, workers=2)
        network = shared.reconstructor.network
        assert network is not None
        nn.init.normal_(network.last.weight, std=0.1)

        def gradient(*parts: slice) -> torch.Tensor:
            network.zero_grad()
            for part in parts:
                (shared.loss(2, part, network, CPU) / len(parts)).backward()
            return torch.cat([weights.grad.flatten() for weights in network.parameters()])

        together = gradient(WHOLE)
        assert together.abs().max() > 1e-3
        torch.testing.assert_close(
            gradient(*(Worker(rank, 2).share(shared.size) for rank in range(2))),
            together,
            rtol=1e-4,
            atol=1e-6,
        )

    def test_going_on_is_the_same_as_going_through(self, pairs):
        whole, halved = (TrainingLoop(ReconstructionTrainable(SMALL, pairs)) for _ in range(2))
        losses = list(whole.steps())
        steps = halved.steps()
        results = [next(steps), next(steps)]
        results += halved.steps()
        assert results == losses
        assert len(losses) == 4


class TestFit:
    def test_it_reports_each_step(self, pairs):
        seen = []
        reconstructor = fit(
            SMALL, pairs, watch=lambda done, loss, item: seen.append((done, loss, item))
        )
        assert [done for done, _, _ in seen] == [1, 2, 3, 4]
        assert all(loss > 0 and item is reconstructor for _, loss, item in seen)

    def test_the_control_learns_from_shuffled_pairs(self, pairs):
        seen = []

        class Spy(UNetReconstructor):
            def learn(self, pairs):
                seen.append((pairs.original_identities[pairs.source] == pairs.identities).any())

        class Spied(UNetReconstruction):
            def build(self, device="cpu"):
                return Spy(self, device)

        for shuffled in (False, True):
            spied = Spied((8,), identity=0.0, perceptual=0.0, training=TRAINING, shuffled=shuffled)
            fit(spied, pairs)
        assert seen == [True, False]

    def test_what_needs_no_steps_takes_none(self, pairs):
        fit(MeanFace(), pairs, watch=lambda *_: pytest.fail("there is nothing to train"))
        with pytest.raises(NotImplementedError, match="MeanFaceReconstructor has no network"):
            MeanFace().build().loss(lambda: None, goal(pairs).batch(0, WHOLE, CPU))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "max_steps: must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"warmup_steps": 0}, "warmup_steps: "),
        ({"validate_every": 0}, "validate_every: "),
        ({"learning_rate": 0.0}, "learning_rate: must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay: must not be negative"),
        ({"seed": -1}, "seed: must not be negative"),
        ({"augment": 1.1}, "augment: must be in 0..1"),
        ({"precision": "fp16"}, "precision: must be 'bf16' or 'fp32', got 'fp16'"),
    ],
)
def test_errors_name_the_key(settings, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionTraining(**settings)
