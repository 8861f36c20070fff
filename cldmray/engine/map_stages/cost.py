"""What one image costs an anonymizer, measured on a few before the work starts."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from cldmray.anonymizers.base import Anonymizer
from cldmray.engine import cluster
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.failures import reraise_worker_errors
from cldmray.engine.map_stages.anonymize import ActorInputs, AnonymizerActor, audited_images
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.records import EVALUATION, FACES, encode_image, encode_images

IMAGES = 32
"""Images that are tried at most, and no more than one batch."""
SECONDS = 3.0
"""For which an anonymizer is tried after its first image."""


class Cost(NamedTuple):
    """Of one image: seconds of one actor's processor or GPU, and encoded bytes."""

    seconds: float
    size: float


Trial = tuple[Cost | None, Cost | None]
"""Of reading an image and of anonymizing it; None for what could not be tried: no image is
usable, or the anonymizer has no image of any."""


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
    alike_places: dict[tuple[float, tuple[tuple[str, float], ...]], list[int]] = {}
    for place, anonymizer in enumerate(anonymizers):
        others = dict(anonymizer.resources)
        others.pop("GPU", None)
        gpus = anonymizer.gpus_per_actor(engine.gpus_per_actor)
        alike_places.setdefault((gpus, tuple(sorted(others.items()))), []).append(place)
    few = listing.slice(0, min(IMAGES, engine.embedded_at_once)).combine_chunks()
    trials: dict[int, Trial] = {}
    for (gpus, resources), places in alike_places.items():
        cluster.start()
        # A process with a GPU ends afterwards; one without serves the stages, torch imported.
        worker = ray.remote(max_calls=1 if gpus else 0, max_retries=0)(_try_all).options(
            num_cpus=TASK_CPUS,
            num_gpus=gpus or None,
            resources=dict(resources) or None,
        )
        members = [anonymizers[place] for place in places]
        with reraise_worker_errors():
            costs = ray.get(worker.remote(source, members, few, engine, gpus > 0))
        trials.update(zip(places, costs, strict=True))
    return [trials[place] for place in range(len(anonymizers))]


def _try_all(
    source: FaceSource,
    anonymizers: Sequence[Anonymizer],
    listing: pa.Table,
    engine: EngineConfig,
    on_gpu: bool,
) -> list[Trial]:
    read_face = source.open()
    started = time.process_time()
    rows = []
    contents = source.read(listing["location"].to_pylist())
    for sample, content in zip(listing["sample_id"].to_pylist(), contents, strict=True):
        try:
            image = encode_image(read_face(content).image)
        except InvalidImageError:
            continue
        rows.append({"sample_id": sample, "identity": "", "split": EVALUATION, "image": image})
    if not rows:
        return [(None, None) for _ in anonymizers]
    size = sum(len(row["image"]) for row in rows) / len(rows)
    reading = Cost((time.process_time() - started) / len(rows), size)
    return [(reading, _anonymizing(anonymizer, rows, engine, on_gpu)) for anonymizer in anonymizers]


def _anonymizing(
    anonymizer: Anonymizer, rows: list[dict[str, Any]], engine: EngineConfig, on_gpu: bool
) -> Cost | None:
    kept = [row for row in rows if anonymizer.select([row["sample_id"]])[0]]
    if not kept:
        return None
    inputs = ActorInputs(anonymizer, {EVALUATION: 1}, 0)
    actor = AnonymizerActor(anonymizer, engine.batch_size, engine.threads, float(on_gpu))
    actor.ensure_opened()
    clock = time.perf_counter if on_gpu else time.process_time

    def anonymize(part: list[dict[str, Any]]) -> Cost:
        started = clock()
        block = pa.Table.from_pylist(part, FACES)
        encoded = encode_images(audited_images(actor(inputs(block))))
        sizes = [len(content.as_buffer()) for content in encoded]
        return Cost((clock() - started) / len(part), sum(sizes) / len(part))

    first = anonymize(kept[:1])
    count = min(len(kept), int(SECONDS / max(first.seconds, 1e-6)))
    return anonymize(kept[: max(1, count)])
