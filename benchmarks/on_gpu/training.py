"""Contrastive training beside pytorch-metric-learning, and search on GPU and CPU."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from attacking.step import Loss, fresh_encoder, peers, take_turns
from gallery import DIMENSIONS, K, mixture
from torch import Tensor

from cldmray.attackers.nn.encoder import BackboneEncoder, EncoderConfig, SmallEncoder
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.gradient_cache import GradientCache
from cldmray.attackers.nn.pairs import PairSet
from cldmray.attackers.nn.training import TrainingConfig, TrainingLoop, Worker
from cldmray.gallery.vector_index import VectorIndex, load_faiss
from on_gpu.device import (
    NOT_INSTALLED,
    Device,
    failure,
    fresh_memory,
    number,
    peak_memory,
    versions,
)

Loop = Callable[[int], None]
"""Takes so many optimiser steps, and waits for them."""

PEER = "pytorch-metric-learning"
CHECKED = 16
"""Pairs of the batch on which gradients are compared."""


class Plan(NamedTuple):
    """What is trained and searched; see the command line."""

    backbone: str
    side: int
    pairs: tuple[int, ...]
    chunk: int
    seconds: float
    blocks: int
    gallery: int
    probes: int
    cpu_probes: int


class Row(NamedTuple):
    """One way of training.

    Attributes:
        name: of the way.
        pairs: in a batch.
        chunk: images that go through the network at once; None: all.
        rate: pairs per second, median over blocks; None where it failed.
        gib: peak memory, GiB; None without a GPU.
        failure: what went wrong; None: nothing.
    """

    name: str
    pairs: int
    chunk: int | None = None
    rate: float | None = None
    gib: float | None = None
    failure: str | None = None


def measure(plan: Plan, device: Device) -> dict[str, Any]:
    """Everything of this mode, as JSON data."""
    small = plan.backbone == "small"
    shape = SmallEncoder() if small else BackboneEncoder(backbone=plan.backbone)
    rows = [row for pairs in plan.pairs for row in trained(plan, shape, pairs, device)]
    return {
        "mode": "training",
        "versions": versions(device) | {"faiss": load_faiss().__version__},
        "settings": plan._asdict(),
        "differences": differences(plan, shape, device),
        "rows": [row._asdict() for row in rows],
        "search": searched(plan),
    }


def trained(plan: Plan, shape: EncoderConfig, pairs: int, device: Device) -> list[Row]:
    """All ways with one batch size, each with the device's memory to itself.

    Gradients are cached where the batch has more images than a chunk.
    """
    losses = losses_there()
    ways: dict[Row, Callable[[], Loop]] = {}
    for chunk in (None, plan.chunk) if plan.chunk < 2 * pairs else (None,):
        row = Row("ours" if chunk is None else "ours, cached", pairs, chunk)
        ways[row] = lambda chunk=chunk: step_loop(plan, shape, losses["ours"], pairs, chunk, device)
        row = row._replace(name=f"{row.name}, with random views")
        ways[row] = lambda chunk=chunk: whole_loop(plan, shape, pairs, chunk, device)
    rows = []
    if "peer" in losses:
        ways[Row(PEER, pairs)] = lambda: step_loop(plan, shape, losses["peer"], pairs, None, device)
    else:
        rows.append(Row(PEER, pairs, failure=NOT_INSTALLED))
    for row, make in ways.items():
        fresh_memory(device)
        try:
            taken = take_turns({row.name: make()}, plan.blocks, plan.seconds)[row.name]
        except Exception as error:
            rows.append(row._replace(failure=failure(error)))
        else:
            rate = pairs / float(np.median(taken))
            rows.append(row._replace(rate=rate, gib=peak_memory(device)))
        print(line(rows[-1]), flush=True)
    return rows


def losses_there() -> dict[str, Loss]:
    """Our loss, and the peer's where it is installed."""
    try:
        return peers()
    except ImportError:
        from cldmray.attackers.nn.losses import nt_xent

        return {"ours": lambda queries, originals: nt_xent(queries, originals, 0.07)}


def step_loop(
    plan: Plan, shape: EncoderConfig, loss: Loss, pairs: int, chunk: int | None, device: Device
) -> Loop:
    """Steps in bf16 on images that are on the device already."""
    encoder = fresh_encoder(shape).to(device.torch)
    training = TrainingConfig()
    optimizer = torch.optim.AdamW(
        encoder.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )
    images = noise(2 * pairs, plan.side, device)

    def encode(batch: Tensor) -> Tensor:
        with torch.autocast(device.torch, torch.bfloat16):
            embeddings: Tensor = encoder(batch)
        return embeddings

    cache = None if chunk is None else GradientCache(encode, chunk, encoder)

    def run(count: int) -> None:
        for _ in range(count):
            value = loss(*(cache or encode)(images).chunk(2))
            optimizer.zero_grad()
            if cache is None:
                value.backward()
            else:
                cache.backward(value)
            optimizer.step()
        device.wait()

    return run


def whole_loop(
    plan: Plan, shape: EncoderConfig, pairs: int, chunk: int | None, device: Device
) -> Loop:
    """The training of the attackers: draws identities, sends their bytes, draws views."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2 * pairs, plan.side, plan.side, 3), dtype=np.uint8)
    identities = np.repeat(np.arange(pairs), 2)
    training = TrainingConfig(max_steps=10**9, batch_size=pairs, micro_batch_size=chunk)
    pair_set = PairSet(images, identities, np.arange(len(identities)), images, identities, True)
    trainable = EncoderTrainable("benchmark", shape, training, pair_set)
    steps = TrainingLoop(trainable, Worker(device=device.torch)).steps()

    def run(count: int) -> None:
        for _ in range(count):
            next(steps)
        device.wait()

    return run


def noise(count: int, side: int, device: Device) -> Tensor:
    """Random images in -1..1, channels last, on the device."""
    generator = torch.Generator(device.torch).manual_seed(0)
    images = torch.rand(count, 3, side, side, device=device.torch, generator=generator)
    return (2 * images - 1).contiguous(memory_format=torch.channels_last)


def differences(plan: Plan, shape: EncoderConfig, device: Device) -> dict[str, float]:
    """Largest difference of a weight's gradient from our plain one, relative to the largest.

    Of the peer's loss, where it is installed, and of ours cached, all in float32.
    """
    losses = losses_there()
    images = noise(2 * CHECKED, plan.side, device)
    gradients = {}
    for name, loss, chunk in (
        ("plain", losses["ours"], None),
        ("cached", losses["ours"], CHECKED // 2 + 1),
        ("peer", losses.get("peer"), None),
    ):
        if loss is None:
            continue
        encoder = fresh_encoder(shape).to(device.torch)
        cache = GradientCache(encoder, chunk or 2 * CHECKED, encoder)
        value = loss(*(encoder if chunk is None else cache)(images).chunk(2))
        if chunk is None:
            value.backward()
        else:
            cache.backward(value)
        gradients[name] = torch.cat(
            [weights.grad.flatten() for weights in encoder.parameters() if weights.grad is not None]
        )
    baseline = gradients.pop("plain")
    return {
        name: float((gradient - baseline).abs().max() / baseline.abs().max())
        for name, gradient in gradients.items()
    }


def searched(plan: Plan) -> dict[str, Any]:
    """Queries per second of exact search, on all GPUs that FAISS sees and on the CPU."""
    data = mixture(plan.gallery, max(plan.probes, plan.cpu_probes))
    gpus = load_faiss().get_num_gpus()
    measured: dict[str, Any] = {
        "gallery": plan.gallery,
        "dimensions": DIMENSIONS,
        "neighbours": K,
        "gpus": gpus,
        "gpu_rate": None,
        "score_difference": None,
    }
    scores, measured["cpu_rate"] = timed(
        VectorIndex(data.gallery, gpus=0), data.probes[: plan.cpu_probes]
    )
    if gpus:
        own, measured["gpu_rate"] = timed(VectorIndex(data.gallery), data.probes[: plan.probes])
        compared = min(len(own), len(scores))
        measured["score_difference"] = float(np.abs(own[:compared] - scores[:compared]).max())
    return measured


def timed(gallery: VectorIndex, probes: np.ndarray) -> tuple[np.ndarray, float]:
    """Scores of the neighbours and probes per second; the first search is not timed."""
    gallery.search(probes[:1], K)
    started = time.perf_counter()
    scores, _ = gallery.search(probes, K)
    return scores, len(probes) / (time.perf_counter() - started)


def line(row: Row) -> str:
    """A row as text."""
    chunk = "" if row.chunk is None else f", {row.chunk} images at once"
    return f"{row.name}, {row.pairs} pairs{chunk}: " + (
        row.failure or f"{number(row.rate, '.4g')} pairs/s, {number(row.gib, '.1f')} GiB"
    )


def markdown(report: dict[str, Any]) -> str:
    """The tables of training and search."""
    versions, settings, search = report["versions"], report["settings"], report["search"]
    apart = ", ".join(f"{name} {value:.1e}" for name, value in report["differences"].items())
    lines = [
        f"**{versions['device']}**, torch {versions['torch']}, "
        f"CUDA {versions.get('cuda', '-')}, FAISS {versions['faiss']}. {settings['backbone']}, "
        f"{settings['side']}x{settings['side']} pixels, "
        f"bf16. Gradients beside those of our plain loss, float32, relative: {apart}.",
        "",
        "| training | pairs in a batch | images at once | pairs/s | peak memory, GiB |",
        "|---|---|---|---|---|",
    ]
    for row in (Row(**values) for values in report["rows"]):
        rate = row.failure or number(row.rate, ".4g")
        chunk = "all" if row.chunk is None else str(row.chunk)
        lines.append(f"| {row.name} | {row.pairs} | {chunk} | {rate} | {number(row.gib, '.1f')} |")
    gpu = "not measured: FAISS sees no GPU"
    if search["gpu_rate"] is not None:
        gpu = (
            f"{search['gpu_rate']:.4g} ({search['gpu_rate'] / search['cpu_rate']:.1f} times the "
            f"CPU; scores differ by {search['score_difference']:.1e})"
        )
    lines += [
        "",
        f"| exact search, {search['gallery']} references of {search['dimensions']} dimensions, "
        f"{search['neighbours']} neighbours | queries/s |",
        "|---|---|",
        f"| GPU ({search['gpus']}) | {gpu} |",
        f"| CPU | {search['cpu_rate']:.4g} |",
    ]
    return "\n".join(lines) + "\n"
