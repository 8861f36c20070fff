"""Losses and targets of one step; the teacher's embeddings are made up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cldmray.attackers.nn.losses import distributed_guided, nt_xent
from cldmray.attackers.nn.objectives import Contrast, Guidance, identity_means, objective
from cldmray.attackers.nn.pairs import PairSet
from cldmray.attackers.nn.training import TrainingConfig, Worker
from cldmray.errors import BadInputError

IDENTITIES = np.repeat(np.arange(6), 3)
TRAINING = TrainingConfig(batch_size=6, temperature=0.2, seed=3)
CPU = torch.device("cpu")


def unit(rows: int, dimensions: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


DISTILLED = unit(len(IDENTITIES), 4, 0)


def pair_set(teacher_embeddings: np.ndarray | None) -> PairSet:
    random = np.random.default_rng(1)
    queries = random.integers(0, 256, (len(IDENTITIES), 8, 8, 3), dtype=np.uint8)
    originals = random.integers(0, 256, (len(IDENTITIES), 8, 8, 3), dtype=np.uint8)
    rows = np.arange(len(IDENTITIES))
    return PairSet(queries, IDENTITIES, rows, originals, IDENTITIES, False, teacher_embeddings)


def first_pixels(batch: Tensor) -> Tensor:
    return torch.nn.functional.normalize(batch[:, 0, 0, :4], dim=-1)


def test_the_teacher_decides_the_objective() -> None:
    assert isinstance(objective(pair_set(None), TRAINING, 1), Contrast)
    assert isinstance(objective(pair_set(DISTILLED), TRAINING, 1), Guidance)
    with pytest.raises(ValueError, match="teacher"):
        Guidance(pair_set(None), TRAINING, 1)
    with pytest.raises(BadInputError, match="6 attacker people are too few for 7"):
        objective(pair_set(DISTILLED), TRAINING, 7)


def test_person_means_by_hand() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.6, -0.8]], np.float32)
    result = identity_means(vectors, np.array([0, 0, 2, 2]))
    np.testing.assert_allclose(result, [[0.5**0.5, 0.5**0.5], [0, 0], [1, 0]], atol=1e-6)
    assert result.dtype == np.float32


class TestTargets:
    def test_half_are_means_and_half_the_image(self) -> None:
        goal = Guidance(pair_set(DISTILLED), TRAINING, 1)
        means = {identity: DISTILLED[identity == IDENTITIES].sum(0) for identity in range(6)}
        whole = 0
        for step in range(200):
            _, originals = goal.sampler.draw(step)
            for original, target in zip(originals, goal.targets(step, originals), strict=True):
                mean = means[IDENTITIES[original]] / np.linalg.norm(means[IDENTITIES[original]])
                if np.allclose(target, mean, atol=1e-6):
                    whole += 1
                else:
                    np.testing.assert_array_equal(target, DISTILLED[original])
        # 1,200 fair coins: six standard deviations are 104.
        assert abs(whole - 600) < 104

    def test_depend_on_seed_and_step_only(self) -> None:
        first, other = (Guidance(pair_set(DISTILLED), TRAINING, workers) for workers in (1, 2))
        originals = np.arange(6) * 3
        np.testing.assert_array_equal(first.targets(5, originals), other.targets(5, originals))
        drawn = {first.targets(step, originals).tobytes() for step in range(10)}
        assert len(drawn) > 5


class TestLoss:
    def test_guidance_without_random_views(self) -> None:
        """Mirrored views stay; an image of one colour is its own mirror image."""
        pairs = pair_set(DISTILLED)
        flat = pairs.queries.copy()
        flat[:] = flat[:, :1, :1]
        training = TrainingConfig(batch_size=6, temperature=0.2, augment=0.0)
        goal = Guidance(replace(pairs, queries=flat), training, 1)

        def colours(batch: Tensor) -> Tensor:
            return torch.nn.functional.normalize(batch[:, :, 4, 4] @ torch.eye(3, 4), dim=-1)

        queries, originals = goal.sampler.draw(7)
        students = colours(torch.from_numpy(flat[queries]).permute(0, 3, 1, 2) / 127.5 - 1)
        targets = torch.from_numpy(goal.targets(7, originals))
        expected = distributed_guided(students, targets, 0.2)
        result = goal.loss(7, slice(0, 6), colours, CPU)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)

    def test_contrast_embeds_both_sides(self) -> None:
        seen = []

        def encode(batch: Tensor) -> Tensor:
            seen.append(first_pixels(batch))
            return seen[-1]

        result = Contrast(pair_set(None), TRAINING, 1).loss(0, slice(0, 6), encode, CPU)
        assert len(seen[0]) == 12
        torch.testing.assert_close(result, nt_xent(seen[0][:6], seen[0][6:], 0.2))

    @pytest.mark.parametrize("teacher_embeddings", [None, DISTILLED])
    def test_workers_see_the_images_of_one(self, teacher_embeddings: np.ndarray | None) -> None:
        def views(workers: int) -> Tensor:
            goal = objective(pair_set(teacher_embeddings), TRAINING, workers)
            seen: list[Tensor] = []

            def encode(batch: Tensor) -> Tensor:
                seen.append(batch)
                return first_pixels(batch)

            for rank in range(workers):
                goal.loss(4, Worker(rank, workers).share(goal.size), encode, CPU)
            sides = 2 if teacher_embeddings is None else 1
            return torch.cat(
                [torch.cat(s) for s in zip(*(b.chunk(sides) for b in seen), strict=True)]
            )

        torch.testing.assert_close(views(2), views(1))
        torch.testing.assert_close(views(3), views(1))
