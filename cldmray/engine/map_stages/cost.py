"""What one image costs an anonymizer or an attacker, measured on a few before the work starts."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import ray

from cldmray.anonymizers.base import Anonymizer
from cldmray.attackers.base import Attacker
from cldmray.engine import cluster
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.failures import reraise_worker_errors
from cldmray.engine.map_stages.anonymize import ActorInputs, AnonymizerActor, audited_images
from cldmray.faces.base import FaceSource, ReadFace
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.records import EVALUATION, FACES, decode_images, encode_image, encode_images

IMAGES = 32
"""Images that are tried at most, and no more than one batch."""
SECONDS = 3.0
"""For which an anonymizer or a training is tried after its first image or step."""


class Cost(NamedTuple):
    """Of one image: seconds of one actor's processor or GPU, and encoded bytes."""

    seconds: float
    size: float


Trial = tuple[Cost | None, Cost | None]
"""Of reading an image and of anonymizing it; None for what could not be tried: no image is
usable, or the anonymizer has no image of any."""


class AttackCost(NamedTuple):
    """Of an attacker.

    Attributes:
        embedding: of one image; None where it embeds none by itself.
        step: seconds of one step of its training; None where it takes none.
    """

    embedding: Cost | None = None
    step: float | None = None


Rows = list[dict[str, Any]]
Tried = TypeVar("Tried", Anonymizer, Attacker)
Result = TypeVar("Result")


def calibrate(
    source: FaceSource,
    anonymizers: Sequence[Anonymizer],
    listing: pa.Table,
    engine: EngineConfig,
) -> list[Trial]:
    """Costs of each anonymizer, in a worker like the stage's own.

    Loading the model and the first call, which is slower than others, are not counted.

    Args:
        source: of the images.
        listing: of the images, schema ``records.LISTING``; the first few are tried.

    Raises:
        CldmrayError: an anonymizer cannot be opened.
    """
    resources = [dict(anonymizer.resources) for anonymizer in anonymizers]
    gpus = [anonymizer.gpus_per_actor(engine.gpus_per_actor) for anonymizer in anonymizers]
    return _in_workers(_try_anonymizers, source, anonymizers, gpus, resources, listing, engine)


def calibrate_attackers(
    source: FaceSource, attackers: Sequence[Attacker], listing: pa.Table, engine: EngineConfig
) -> list[AttackCost]:
    """Costs of each attacker, in a worker like the stage's own.

    A training that costs the same as its own is begun on a few images; what it would learn from
    need not be there.

    Args:
        source, listing: see :func:`calibrate`.

    Raises:
        CldmrayError: an attacker lacks what it needs.
    """
    gpus = [attacker.gpus_per_actor(engine.gpus_per_actor) for attacker in attackers]
    none: list[dict[str, float]] = [{} for _ in attackers]
    return _in_workers(_try_attackers, source, attackers, gpus, none, listing, engine)


def _in_workers(
    try_all: Callable[[FaceSource, Sequence[Tried], pa.Table, EngineConfig, bool], list[Result]],
    source: FaceSource,
    members: Sequence[Tried],
    gpus: Sequence[float],
    resources: Sequence[Mapping[str, float]],
    listing: pa.Table,
    engine: EngineConfig,
) -> list[Result]:
    """What a function finds of each member; those that need the same share a worker."""
    alike: dict[tuple[float, tuple[tuple[str, float], ...]], list[int]] = {}
    for place, (share, wanted) in enumerate(zip(gpus, resources, strict=True)):
        others = tuple(sorted((name, n) for name, n in wanted.items() if name != "GPU"))
        alike.setdefault((share, others), []).append(place)
    few = listing.slice(0, min(IMAGES, engine.embedded_at_once)).combine_chunks()
    results: dict[int, Result] = {}
    for (share, others), places in alike.items():
        cluster.start()
        # A process with a GPU ends afterwards; one without serves the stages, torch imported.
        worker = ray.remote(max_calls=1 if share else 0, max_retries=0)(try_all).options(
            num_cpus=TASK_CPUS,
            num_gpus=share or None,
            resources=dict(others) or None,
        )
        some = [members[place] for place in places]
        with reraise_worker_errors():
            costs = ray.get(worker.remote(source, some, few, engine, share > 0))
        results.update(zip(places, costs, strict=True))
    return [results[place] for place in range(len(members))]


def _try_anonymizers(
    source: FaceSource,
    anonymizers: Sequence[Anonymizer],
    listing: pa.Table,
    engine: EngineConfig,
    on_gpu: bool,
) -> list[Trial]:
    read_face = source.open()
    started = time.process_time()
    rows = _read(source, read_face, listing)
    if not rows:
        return [(None, None) for _ in anonymizers]
    size = sum(len(row["image"]) for row in rows) / len(rows)
    reading = Cost((time.process_time() - started) / len(rows), size)
    return [(reading, _anonymizing(anonymizer, rows, engine, on_gpu)) for anonymizer in anonymizers]


def _try_attackers(
    source: FaceSource,
    attackers: Sequence[Attacker],
    listing: pa.Table,
    engine: EngineConfig,
    on_gpu: bool,
) -> list[AttackCost]:
    rows = _read(source, source.open(), listing)
    return [
        _attacking(attacker, rows, engine, on_gpu) if rows else AttackCost()
        for attacker in attackers
    ]


def _read(source: FaceSource, read_face: ReadFace, listing: pa.Table) -> Rows:
    rows = []
    contents = source.read(listing["location"].to_pylist())
    for sample, content in zip(listing["sample_id"].to_pylist(), contents, strict=True):
        try:
            image = encode_image(read_face(content).image)
        except InvalidImageError:
            continue
        rows.append({"sample_id": sample, "identity": "", "split": EVALUATION, "image": image})
    return rows


def _anonymizing(
    anonymizer: Anonymizer, rows: Rows, engine: EngineConfig, on_gpu: bool
) -> Cost | None:
    kept = [row for row in rows if anonymizer.select([row["sample_id"]])[0]]
    if not kept:
        return None
    inputs = ActorInputs(anonymizer, {EVALUATION: 1}, 0)
    actor = AnonymizerActor(anonymizer, engine.batch_size, engine.threads, float(on_gpu))
    actor.ensure_opened()
    clock = _clock(on_gpu)

    def anonymize(part: Rows) -> Cost:
        started = clock()
        block = pa.Table.from_pylist(part, FACES)
        encoded = encode_images(audited_images(actor(inputs(block))))
        sizes = [len(content.as_buffer()) for content in encoded]
        return Cost((clock() - started) / len(part), sum(sizes) / len(part))

    first = anonymize(kept[:1])
    count = min(len(kept), int(SECONDS / max(first.seconds, 1e-6)))
    return anonymize(kept[: max(1, count)])


def _attacking(attacker: Attacker, rows: Rows, engine: EngineConfig, on_gpu: bool) -> AttackCost:
    import torch

    from cldmray.attackers.nn.training import TrainingLoop, Worker

    torch.set_num_threads(engine.threads)
    clock, device = _clock(on_gpu), "cuda" if on_gpu else "cpu"
    images = decode_images(row["image"] for row in rows)
    rehearsal = attacker.rehearsal(images)
    step, learnt = None, None
    if rehearsal is not None:
        steps = TrainingLoop(rehearsal, Worker(device=device)).steps()
        seconds: list[float] = []
        while not seconds or sum(seconds[1:]) < SECONDS:
            started = clock()
            if next(steps, None) is None:
                break
            seconds.append(clock() - started)
        step = float(np.mean(seconds[1:] or seconds))
        learnt = {name: tensor.cpu().numpy() for name, tensor in rehearsal.state().items()}
    if not attacker.embeds_images or (attacker.training_splits and learnt is None):
        return AttackCost(None, step)
    embed = attacker.embedder(learnt, device, engine.embedded_at_once)
    condition = attacker.probe_condition
    embed(images[:1])
    started = clock()
    vectors = embed(images if condition is None else condition(images))
    return AttackCost(Cost((clock() - started) / len(images), vectors[0].nbytes), step)


def _clock(on_gpu: bool) -> Callable[[], float]:
    return time.perf_counter if on_gpu else time.process_time
