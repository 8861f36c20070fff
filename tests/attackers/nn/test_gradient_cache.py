"""Cached gradients beside those of the plain loss, in one process and in two."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cldmray.attackers.nn.encoder import FaceEncoder, SmallEncoder
from cldmray.attackers.nn.gradient_cache import GradientCache
from cldmray.attackers.nn.losses import distributed_guided, distributed_nt_xent, nt_xent

BATCH = 6
TEMPERATURE = 0.1


class Encoder(nn.Module):
    """Convolutions with group normalisation, and a weight that nothing depends on."""

    def __init__(self, dropout: float = 0.0, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.GroupNorm(2, 8) if norm is None else norm
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8 * 9, 5)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop(torch.tanh(self.norm(self.first(images))))
        return nn.functional.normalize(self.head(hidden.flatten(1)), dim=-1)


def encoder(dropout: float = 0.0, norm: nn.Module | None = None) -> Encoder:
    torch.manual_seed(3)
    return Encoder(dropout, norm).double()


def images() -> Tensor:
    """Queries, then keys."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 * BATCH, 3, 8, 8, dtype=torch.double, generator=generator)


def contrast(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    queries, keys = encode(inputs).chunk(2)
    return distributed_nt_xent(queries, keys, TEMPERATURE)


def contrast_in_two_calls(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    queries, keys = (encode(half) for half in inputs.chunk(2))
    return distributed_nt_xent(queries, keys, TEMPERATURE)


def guided(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The second half of the inputs stands for what a teacher says; it has no gradient."""
    half = len(inputs) // 2
    targets = nn.functional.normalize(inputs[half:, 0].flatten(1)[:, :5], dim=-1)
    return distributed_guided(encode(inputs[:half]), targets, TEMPERATURE)


LOSSES = {"contrast": contrast, "two calls": contrast_in_two_calls, "guided": guided}


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def assert_same(actual: nn.Module, expected: nn.Module, tolerance: float = 1e-12) -> None:
    ours, uncached = gradients(actual), gradients(expected)
    assert list(ours) == list(uncached) == [name for name in uncached if name != "unused"]
    for name in uncached:
        torch.testing.assert_close(ours[name], uncached[name], rtol=0, atol=tolerance, msg=name)
    assert min(float(uncached[name].abs().max()) for name in ("first.weight", "head.weight")) > 1e-3


class TestOneProcess:
    @pytest.mark.parametrize("chunk", [1, 4, 5, 6, 12, 100])
    @pytest.mark.parametrize("kind", LOSSES)
    def test_is_the_gradient_of_the_plain_loss(self, kind: str, chunk: int) -> None:
        uncached, cached = encoder(), encoder()
        expected = LOSSES[kind](uncached, images())
        expected.backward()
        cache = GradientCache(cached, chunk, cached)
        actual = LOSSES[kind](cache, images())
        assert actual.item() == pytest.approx(expected.item(), abs=1e-12)
        cache.backward(actual)
        assert_same(cached, uncached)

    def test_steps_add_up_and_do_not_see_each_other(self) -> None:
        uncached, cached = encoder(), encoder()
        cache = GradientCache(cached, 5, cached)
        for shift in (0.0, 1.0):
            contrast(uncached, images() + shift).backward()
            cache.backward(contrast(cache, images() + shift))
        assert_same(cached, uncached)

    def test_of_the_attackers_encoder(self) -> None:
        shape = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
        networks = []
        for chunk in (None, 5):
            torch.manual_seed(0)
            networks.append(FaceEncoder(shape))
            cache = GradientCache(networks[-1], chunk or 100, networks[-1])
            inputs = images().float()
            if chunk is None:
                contrast(networks[-1], inputs).backward()
            else:
                cache.backward(contrast(cache, inputs))
        largest = max(float(item.abs().max()) for item in gradients(networks[0]).values())
        for name, gradient in gradients(networks[0]).items():
            actual = gradients(networks[1])[name]
            torch.testing.assert_close(actual, gradient, rtol=0, atol=1e-5 * largest, msg=name)

    def test_a_chunk_at_a_time_is_remembered(self) -> None:
        network = encoder()
        seen: list[tuple[int, bool]] = []

        def encode(inputs: Tensor) -> Tensor:
            seen.append((len(inputs), torch.is_grad_enabled()))
            return network(inputs)

        cache = GradientCache(encode, 5, network)
        loss = contrast(cache, images())
        assert seen == [(5, False), (5, False), (2, False)]
        assert not gradients(network)
        cache.backward(loss)
        assert seen[3:] == [(5, True), (5, True), (2, True)]

    def test_a_call_that_the_loss_ignores_is_an_error(self) -> None:
        network = encoder()
        cache = GradientCache(network, 5, network)
        cache(images())
        with pytest.raises(ValueError, match="does not depend on the embeddings of every call"):
            cache.backward(contrast(cache, images()))


class TestChance:
    def test_both_passes_of_a_chunk_meet_the_same_dropout(self) -> None:
        """The twin embeds the same chunks, one after the other, and remembers them all."""
        uncached, cached = encoder(0.5), encoder(0.5)
        torch.manual_seed(11)
        parts = [uncached(part) for part in images().split(5)]
        after = torch.rand(3)
        queries, keys = torch.cat(parts).chunk(2)
        nt_xent(queries, keys, TEMPERATURE).backward()
        torch.manual_seed(11)
        cache = GradientCache(cached, 5, cached)
        loss = contrast(cache, images())
        cache.backward(loss)
        assert torch.equal(torch.rand(3), after)
        assert_same(cached, uncached)

    def test_dropout_changes_the_gradient(self) -> None:
        actual = []
        for seed in (11, 12):
            network = encoder(0.5)
            torch.manual_seed(seed)
            cache = GradientCache(network, 5, network)
            cache.backward(contrast(cache, images()))
            actual.append(gradients(network)["head.weight"])
        assert (actual[0] - actual[1]).abs().max() > 1e-3


class TestBatchNormalisation:
    def test_normalises_each_chunk_by_itself_and_counts_it_once(self) -> None:
        uncached, cached, whole = (encoder(norm=nn.BatchNorm2d(8)) for _ in range(3))
        queries, keys = torch.cat([uncached(part) for part in images().split(4)]).chunk(2)
        nt_xent(queries, keys, TEMPERATURE).backward()
        cache = GradientCache(cached, 4, cached)
        cache.backward(contrast(cache, images()))
        assert_same(cached, uncached)
        for name, statistic in uncached.norm.state_dict().items():
            torch.testing.assert_close(cached.norm.state_dict()[name], statistic)
        assert int(cached.norm.num_batches_tracked) == 3
        contrast(whole, images()).backward()
        apart = gradients(whole)["head.weight"] - gradients(cached)["head.weight"]
        assert apart.abs().max() > 1e-3
        cached(images())
        assert int(cached.norm.num_batches_tracked) == 4

    def test_frozen_statistics_give_the_gradient_of_the_whole_batch(self) -> None:
        uncached, cached = (encoder(norm=nn.BatchNorm2d(8)) for _ in range(2))
        for network in (uncached, cached):
            network.norm.eval()
        contrast(uncached, images()).backward()
        cache = GradientCache(cached, 4, cached)
        cache.backward(contrast(cache, images()))
        assert_same(cached, uncached)
        assert int(cached.norm.num_batches_tracked) == 0


def test_reduced_precision_holds_in_both_passes() -> None:
    network = encoder().float()
    seen = []

    def encode(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = network(inputs)
        seen.append(embeddings)
        return embeddings.float()

    cache = GradientCache(encode, 5, network)
    cache.backward(contrast(cache, images().float()))
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)
    exact = encoder().float()
    contrast(exact, images().float()).backward()
    weights = gradients(exact)["head.weight"]
    difference = (gradients(network)["head.weight"] - weights).abs().max()
    assert 0 < difference < 0.1 * weights.abs().max()


def run_worker(rank: int, folder: Path) -> None:
    """One of two processes: its half of the images, in chunks of 4 and 2; ``process_pair.py``."""
    half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    inputs = images()
    own = torch.cat([inputs[:BATCH][half], inputs[BATCH:][half]])
    for kind in LOSSES:
        network = encoder()
        wrapped = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
        cache = GradientCache(wrapped, 4, wrapped)
        actual = []
        for _ in range(2):
            wrapped.zero_grad()
            loss = LOSSES[kind](cache, own)
            cache.backward(loss)
            actual.append((loss.detach(), gradients(network)))
        torch.save(actual, folder / f"{kind}-{rank}.pt")


@pytest.mark.parametrize("kind", LOSSES)
def test_two_processes_have_the_gradient_of_one(process_pair: Path, kind: str) -> None:
    whole = encoder()
    expected = LOSSES[kind](whole, images())
    expected.backward()
    first, second = (
        torch.load(process_pair / "gradient_cache" / f"{kind}-{rank}.pt", weights_only=True)
        for rank in range(2)
    )
    for (loss, actual), (other_loss, others) in zip(first, second, strict=True):
        assert float(loss + other_loss) / 2 == pytest.approx(expected.item(), abs=1e-12)
        for name, gradient in gradients(whole).items():
            torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-12, msg=name)
            assert torch.equal(actual[name], others[name])
