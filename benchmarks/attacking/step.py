"""Our contrastive step beside pytorch-metric-learning's, on the same encoder and batches.

Our loss names each query's image among all images of the batch, and nothing else. In
pytorch-metric-learning that is ``SelfSupervisedLoss(NTXentLoss(t), symmetric=False)``: anchors
are the queries only, and pairs are formed against the images only. Its default,
``symmetric=True``, is SimCLR's loss, which also names the query of each image and takes
queries and images alike as negatives. It is another number, so its time is given without a
comparison of values.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cldmray.arrays import channels_last
from cldmray.attackers.nn.encoder import EncoderConfig, FaceEncoder
from cldmray.attackers.nn.losses import nt_xent

TEMPERATURE = 0.07
SIDE = 64

Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss of queries and images, each (n, d)."""


class Comparison(NamedTuple):
    """One batch size.

    Attributes:
        batch: people.
        value_difference: largest relative difference of the loss, over batches.
        gradient_difference: largest difference of a weight's gradient relative to the largest
            gradient, over batches.
        rates: steps per second, median over blocks, by ``what`` (``loss``, ``step``) and side.
        ratios: ours : the peer's steps per second, median over pairs of neighbouring blocks.
        spread: smallest and largest of these ratios.
    """

    batch: int
    value_difference: float
    gradient_difference: float
    rates: dict[str, dict[str, float]]
    ratios: dict[str, float]
    spread: dict[str, tuple[float, float]]


def peers() -> dict[str, Loss]:
    """Our loss, the peer's same loss, and the peer's default."""
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    def peer(symmetric: bool) -> Any:
        return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE), symmetric=symmetric)

    def ours(queries: Tensor, originals: Tensor) -> Tensor:
        return nt_xent(queries, originals, TEMPERATURE)

    return {"ours": ours, "peer": peer(False), "peer, symmetric": peer(True)}


def compare(shape: EncoderConfig, batch: int, blocks: int, seconds: float) -> Comparison:
    """Compare values, then speed in blocks that take turns.

    The bare loss is timed forward and backward; a whole step adds the encoder and AdamW, fp32.

    Args:
        blocks: of each side.
        seconds: that a block takes about; it has at least one step.
    """
    losses = peers()
    generator = torch.Generator().manual_seed(batch)
    images = [
        (torch.rand(2 * batch, 3, SIDE, SIDE, generator=generator) * 2 - 1).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(4)
    ]
    values, gradients = zip(
        *(difference(shape, image, losses["ours"], losses["peer"]) for image in images), strict=True
    )
    embeddings = [embedded(shape, image) for image in images]
    bare = {name: bare_loop(loss, embeddings) for name, loss in losses.items()}
    whole = {name: step_loop(shape, losses[name], images) for name in ("ours", "peer")}
    times = {
        "loss": take_turns(bare, blocks, seconds),
        "step": take_turns(whole, blocks, seconds),
    }
    ratios = {
        what: [other / own for own, other in zip(sides["ours"], sides["peer"], strict=True)]
        for what, sides in times.items()
    }
    return Comparison(
        batch,
        max(values),
        max(gradients),
        {
            what: {name: 1 / statistics.median(taken) for name, taken in sides.items()}
            for what, sides in times.items()
        },
        {what: statistics.median(pairs) for what, pairs in ratios.items()},
        {what: (min(pairs), max(pairs)) for what, pairs in ratios.items()},
    )


def fresh_encoder(shape: EncoderConfig) -> FaceEncoder:
    torch.manual_seed(0)
    return channels_last(FaceEncoder(shape))


def difference(shape: EncoderConfig, images: Tensor, ours: Loss, peer: Loss) -> tuple[float, float]:
    """Relative differences of the loss and of the encoder's gradients for one batch."""
    computed = []
    for loss in (ours, peer):
        encoder = fresh_encoder(shape)
        value = loss(*encoder(images).chunk(2))
        value.backward()
        gradients = [weights.grad.flatten() for weights in encoder.parameters()]
        computed.append((float(value.detach()), torch.cat(gradients)))
    (own, own_gradient), (other, other_gradient) = computed
    apart = float((own_gradient - other_gradient).abs().max() / other_gradient.abs().max())
    return abs(own - other) / abs(other), apart


def embedded(shape: EncoderConfig, images: Tensor) -> Tensor:
    with torch.no_grad():
        return fresh_encoder(shape)(images)


def bare_loop(loss: Loss, embeddings: list[Tensor]) -> Callable[[int], None]:
    """Forward and backward of the loss alone, so many times."""

    def run(count: int) -> None:
        for number in range(count):
            both = embeddings[number % len(embeddings)].clone().requires_grad_()
            loss(*both.chunk(2)).backward()

    return run


def step_loop(shape: EncoderConfig, loss: Loss, images: list[Tensor]) -> Callable[[int], None]:
    """Whole optimiser steps, so many."""
    encoder = fresh_encoder(shape)
    optimizer = torch.optim.AdamW(encoder.parameters(), 2e-3, weight_decay=0.05)

    def run(count: int) -> None:
        for number in range(count):
            value = loss(*encoder(images[number % len(images)]).chunk(2))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    return run


def take_turns(
    loops: dict[str, Callable[[int], None]], blocks: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds a call in each block; the sides take turns, and who begins changes every time."""

    def timed(name: str, count: int) -> float:
        started = time.perf_counter()
        loops[name](count)
        return (time.perf_counter() - started) / count

    for name in loops:
        timed(name, 1)
    counts = {name: max(1, round(seconds / timed(name, 1))) for name in loops}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for block in range(blocks):
        for name in list(loops)[:: 1 if block % 2 == 0 else -1]:
            times[name].append(timed(name, counts[name]))
    return times


def table(comparisons: list[Comparison]) -> str:
    """What was found, as text."""
    lines = ["our loss against pytorch-metric-learning's NTXentLoss, fp32, temperature 0.07"]
    for comparison in comparisons:
        lines.append(
            f"batch {comparison.batch}: the loss differs by {comparison.value_difference:.1e}, "
            f"gradients by {comparison.gradient_difference:.1e} (relative)"
        )
        for what, rates in comparison.rates.items():
            low, high = comparison.spread[what]
            ratio = comparison.ratios[what]
            listing = ", ".join(f"{name} {rate:.4g}/s" for name, rate in rates.items())
            lines.append(f"  {what}: {listing}; ours : peer {ratio:.3f} [{low:.3f}, {high:.3f}]")
    return "\n".join(lines)
