import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cldmray.attackers.nn.losses import distributed_guided, distributed_nt_xent, nt_xent

TEMPERATURE = 0.1
BATCH = 6


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(rows, 5, generator=generator), dim=-1)


class TestNtXent:
    @pytest.mark.parametrize("first", [0, 2])
    @pytest.mark.parametrize("temperature", [0.07, 1.0])
    def test_is_the_double_loop(self, temperature: float, first: int) -> None:
        queries, keys = unit(4, 0), unit(7, 1)
        losses = []
        for i in range(4):
            scores = [
                math.exp(sum(float(a * b) for a, b in zip(queries[i], key, strict=True)) / t)
                for t in [temperature]
                for key in keys
            ]
            losses.append(-math.log(scores[first + i] / sum(scores)))
        result = nt_xent(queries, keys, temperature, first)
        assert result.item() == pytest.approx(sum(losses) / 4, rel=1e-5)

    def test_two_by_two_by_hand(self) -> None:
        queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        keys = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        # Query 0 scores (1, 0.6), query 1 scores (0, 0.8).
        by_hand = (math.log(1 + math.exp(-0.4 / 0.5)) + math.log(1 + math.exp(-0.8 / 0.5))) / 2
        assert nt_xent(queries, keys, 0.5).item() == pytest.approx(by_hand, rel=1e-6)

    def test_names_the_key_of_a_query_and_not_the_query_of_a_key(self) -> None:
        queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        assert nt_xent(queries, keys, 1.0).item() == pytest.approx(
            (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2, rel=1e-6
        )
        assert nt_xent(keys, queries, 1.0).item() == pytest.approx(math.log(2), rel=1e-6)

    def test_other_queries_are_no_negatives(self) -> None:
        queries, keys = unit(2, 0), unit(3, 1)
        alone = nt_xent(queries[:1], keys, TEMPERATURE) + nt_xent(
            queries[1:], keys, TEMPERATURE, first=1
        )
        assert nt_xent(queries, keys, TEMPERATURE).item() == pytest.approx(alone.item() / 2)

    @pytest.mark.parametrize("first", [0, 3])
    def test_keys_of_the_same_identity_are_no_negatives(self, first: int) -> None:
        queries, keys = unit(4, 0), unit(7, 1)
        identities = torch.tensor([5, 2, 5, 2, 5, 9, 9])
        losses = []
        for i in range(4):
            own = first + i
            others = [j for j in range(7) if j == own or identities[j] != identities[own]]
            row = queries[i] @ keys[others].T / TEMPERATURE
            losses.append(float(row.logsumexp(0) - queries[i] @ keys[own] / TEMPERATURE))
        result = nt_xent(queries, keys, TEMPERATURE, first, identities)
        assert result.item() == pytest.approx(sum(losses) / 4, rel=1e-5)
        assert result < nt_xent(queries, keys, TEMPERATURE, first)

    def test_where_identities_differ_nothing_changes(self) -> None:
        queries, keys = unit(4, 0), unit(7, 1)
        codes = torch.arange(7)
        assert torch.equal(nt_xent(queries, keys, 0.1, 2, codes), nt_xent(queries, keys, 0.1, 2))

    def test_a_collapsed_encoder_guesses(self) -> None:
        same = unit(1, 0).repeat(8, 1)
        assert nt_xent(same, same, TEMPERATURE).item() == pytest.approx(math.log(8), rel=1e-5)


class TestGuided:
    def test_is_the_double_loop(self) -> None:
        students, targets = unit(4, 0), unit(4, 1)
        losses = []
        for i in range(4):
            cosines = [
                sum(float(a * b) for a, b in zip(students[i], target, strict=True))
                for target in targets
            ]
            scores = [math.exp(cosine / 0.07) for cosine in cosines]
            losses.append(-math.log(scores[i] / sum(scores)) + 1 - cosines[i])
        result = distributed_guided(students, targets, 0.07)
        assert result.item() == pytest.approx(sum(losses) / 4, rel=1e-5)

    def test_the_cosine_brings_students_to_targets_that_contrast_leaves_apart(self) -> None:
        targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        away = torch.tensor([[0.6, -0.8], [-0.8, 0.6]])
        # Own target 0.6, the other -0.8: a gap of 1.4, more than that of students at their targets.
        assert nt_xent(away, targets, 0.1) < nt_xent(targets, targets, 0.1)
        assert distributed_guided(away, targets, 0.1).item() == pytest.approx(
            math.log(1 + math.exp(-14)) + 0.4, rel=1e-4
        )
        assert distributed_guided(targets, targets, 0.1) < distributed_guided(away, targets, 0.1)


def small_encoder() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5)).double()


def images() -> Tensor:
    """Queries, then keys."""
    return torch.randn(2 * BATCH, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))


def loss_of(encoder: nn.Module, inputs: Tensor) -> Tensor:
    embeddings = nn.functional.normalize(encoder(inputs), dim=-1)
    count = len(inputs) // 2
    return distributed_nt_xent(embeddings[:count], embeddings[count:], TEMPERATURE)


def guided_loss_of(encoder: nn.Module, inputs: Tensor, identities: Tensor | None = None) -> Tensor:
    """The second half of the inputs stands for what a teacher says; it has no gradient."""
    count = len(inputs) // 2
    students = nn.functional.normalize(encoder(inputs[:count]), dim=-1)
    targets = nn.functional.normalize(inputs[count:] @ torch.ones(4, 5).double().tril(), dim=-1)
    return distributed_guided(students, targets, TEMPERATURE, identities)


def masked_loss_of(encoder: nn.Module, inputs: Tensor) -> Tensor:
    """The guided loss of rows that are of two identities only, by a sign."""
    return guided_loss_of(encoder, inputs, (inputs[len(inputs) // 2 :, 0] > 0).long())


LOSSES = {"contrast": loss_of, "guided": guided_loss_of, "masked": masked_loss_of}


CUTS = (BATCH // 2, 2, 5)


def run_worker(rank: int, folder: Path) -> None:
    """One of two processes, of which the first takes ``cut`` pairs; see ``process_pair.py``."""
    inputs = images()
    for kind, cut in itertools.product(LOSSES, CUTS):
        own = slice(cut, BATCH) if rank else slice(cut)
        wrapped = nn.parallel.DistributedDataParallel(small_encoder())
        loss = LOSSES[kind](wrapped, torch.cat([inputs[:BATCH][own], inputs[BATCH:][own]]))
        loss = loss * (cut, BATCH - cut)[rank] * 2 / BATCH
        loss.backward()
        gradients = {name: p.grad for name, p in wrapped.module.named_parameters()}
        torch.save((loss.detach(), gradients), folder / f"{kind}-{cut}-{rank}.pt")


class TestDistributed:
    def test_one_process_is_the_plain_loss(self) -> None:
        queries, keys = unit(4, 0), unit(4, 1)
        assert distributed_nt_xent(queries, keys, 0.1) == nt_xent(queries, keys, 0.1)

    @pytest.mark.parametrize("cut", CUTS)
    @pytest.mark.parametrize("kind", LOSSES)
    def test_two_processes_have_the_loss_and_gradients_of_one(
        self, process_pair: Path, kind: str, cut: int
    ) -> None:
        whole = small_encoder()
        expected = LOSSES[kind](whole, images())
        expected.backward()
        (first, gradients), (second, others) = (
            torch.load(process_pair / "losses" / f"{kind}-{cut}-{rank}.pt", weights_only=True)
            for rank in range(2)
        )
        assert first != second
        assert float(first + second) / 2 == pytest.approx(expected.item(), abs=1e-9)
        for name, parameter in whole.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=1e-9)
            assert torch.equal(gradients[name], others[name])
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-3
