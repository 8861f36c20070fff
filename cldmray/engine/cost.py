"""What one image costs an anonymizer, measured on a few before the work starts."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from cldmray.anonymizers.base import Anonymizer
from cldmray.engine.anonymize import PIXELS, ActorInputs, AnonymizerActor, raw_images
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.failures import reraise_worker_errors
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import InvalidImageError, decode
from cldmray.faces.records import EVALUATION, FACES, encode_image, encode_images

IMAGES = 32
"""Images that are tried at most, and no more than one batch."""
SECONDS = 3.0
"""For which an anonymizer is tried after its first image."""


class Cost(NamedTuple):
    """Of one image: seconds of one actor's processor or GPU, and encoded bytes."""

    seconds: float
    size: float


Tried = tuple[Cost | None, Cost | None]
"""Of reading an image and of redrawing it; None for what could not be tried: no image is
usable, or the anonymizer has no image of any."""


def calibrate(
    source: FaceSource,
    anonymizers: Sequence[Anonymizer],
    listing: pa.Table,
    engine: EngineConfig,
) -> list[Tried]:
    """Costs of each anonymizer, in a worker like the stage's own, which ends afterwards.

    Loading the model and the first image, which is slower than others, are not counted.

    Args:
        source: of the images.
        listing: of the images, schema ``records.LISTING``; the first few are tried.

    Raises:
        CldmrayError: an anonymizer cannot be opened.
    """
    alike: dict[tuple[float, tuple[tuple[str, float], ...]], list[int]] = {}
    for place, one in enumerate(anonymizers):
        others = dict(one.resources)
        others.pop("GPU", None)
        gpus = one.gpus_per_actor(engine.gpus_per_actor)
        alike.setdefault((gpus, tuple(sorted(others.items()))), []).append(place)
    few = listing.slice(0, min(IMAGES, engine.embedded_at_once)).combine_chunks()
    found: dict[int, Tried] = {}
    for (gpus, resources), places in alike.items():
        worker = ray.remote(max_calls=1, max_retries=0)(_tried).options(
            num_cpus=engine.cpus_per_actor,
            num_gpus=gpus or None,
            resources=dict(resources) or None,
        )
        chosen = [anonymizers[place] for place in places]
        with reraise_worker_errors():
            told = ray.get(worker.remote(source, chosen, few, engine, gpus > 0))
        found.update(zip(places, told, strict=True))
    return [found[place] for place in range(len(anonymizers))]


def _tried(
    source: FaceSource,
    anonymizers: Sequence[Anonymizer],
    listing: pa.Table,
    engine: EngineConfig,
    on_gpu: bool,
) -> list[Tried]:
    started = time.process_time()
    rows = []
    contents = source.read(listing["location"].to_pylist())
    for sample, content in zip(listing["sample_id"].to_pylist(), contents, strict=True):
        try:
            image = encode_image(decode(content, source.crop, source.size))
        except InvalidImageError:
            continue
        rows.append({"sample_id": sample, "identity": "", "split": EVALUATION, "image": image})
    if not rows:
        return [(None, None) for _ in anonymizers]
    size = sum(len(row["image"]) for row in rows) / len(rows)
    reading = Cost((time.process_time() - started) / len(rows), size)
    return [(reading, _redrawing(one, rows, engine, on_gpu)) for one in anonymizers]


def _redrawing(
    anonymizer: Anonymizer, rows: list[dict[str, Any]], engine: EngineConfig, on_gpu: bool
) -> Cost | None:
    kept = [row for row in rows if anonymizer.select([row["sample_id"]])[0]]
    if not kept:
        return None
    prepare = ActorInputs(anonymizer, {EVALUATION: 1}, 0)
    actor = AnonymizerActor(anonymizer, engine.batch_size, engine.threads, float(on_gpu))
    clock = time.perf_counter if on_gpu else time.process_time

    def anonymize(part: list[dict[str, Any]]) -> Cost:
        begun = clock()
        block = pa.Table.from_pylist(part, FACES)
        encoded = encode_images(raw_images(actor(prepare(block)), PIXELS))
        sizes = [len(content.as_buffer()) for content in encoded]
        return Cost((clock() - begun) / len(part), sum(sizes) / len(part))

    first = anonymize(kept[:1])
    count = min(len(kept), int(SECONDS / max(first.seconds, 1e-6)))
    return anonymize(kept[:count]) if count > 1 else first
