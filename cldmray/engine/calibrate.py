"""What one picture costs an anonymizer, measured on a few before the work starts."""

import time
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from cldmray.anonymizers.base import Anonymizer
from cldmray.engine.anonymize import PIXELS, AnonymizerActor, Prepare, raw_pictures
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.failures import own_errors
from cldmray.faces.decode import BadPicture, decode
from cldmray.faces.records import EVALUATION, FACES, encode_picture, encode_pictures
from cldmray.faces.source import FaceSource

PICTURES = 32
"""Photographs that are tried at most, and no more than one batch."""
SECONDS = 3.0
"""For which an anonymizer is tried after its first picture."""


class Cost(NamedTuple):
    """Of one picture: seconds of one actor's processor or GPU, and encoded bytes."""

    seconds: float
    size: float


def calibrate(
    source: FaceSource,
    anonymizer: Anonymizer,
    listing: pa.Table,
    engine: EngineConfig,
) -> tuple[Cost | None, Cost | None]:
    """Costs of reading a photograph and of redrawing it, in a worker like the stage's own.

    Loading the model and the first picture, which is slower than others, are not counted.

    Args:
        source: of the photographs.
        listing: of the photographs, schema ``records.LISTING``; the first few are tried.

    Returns:
        None for what could not be tried: no photograph is usable, or the anonymizer has no picture
        of any.

    Raises:
        CldmrayError: the anonymizer cannot be opened.
    """
    resources = dict(anonymizer.resources)
    gpus = resources.pop("GPU", engine.gpus_per_actor)
    worker = ray.remote(_tried).options(
        num_cpus=engine.cpus_per_actor,
        num_gpus=gpus or None,
        resources=resources or None,
        max_retries=0,
    )
    few = listing.slice(0, min(PICTURES, engine.batch_size)).combine_chunks()
    with own_errors():
        found: tuple[Cost | None, Cost | None] = ray.get(
            worker.remote(source, anonymizer, few, engine, gpus > 0)
        )
    return found


def _tried(
    source: FaceSource,
    anonymizer: Anonymizer,
    listing: pa.Table,
    engine: EngineConfig,
    on_gpu: bool,
) -> tuple[Cost | None, Cost | None]:
    started = time.process_time()
    rows = []
    contents = source.read(listing["location"].to_pylist())
    for sample, content in zip(listing["sample_id"].to_pylist(), contents, strict=True):
        try:
            image = encode_picture(decode(content, source.crop, source.size))
        except BadPicture:
            continue
        rows.append({"sample_id": sample, "identity": "", "split": EVALUATION, "image": image})
    if not rows:
        return None, None
    size = sum(len(row["image"]) for row in rows) / len(rows)
    reading = Cost((time.process_time() - started) / len(rows), size)
    kept = [row for row in rows if anonymizer.select([row["sample_id"]])[0]]
    if not kept:
        return reading, None
    prepare = Prepare(anonymizer, {EVALUATION: 1}, 0)
    actor = AnonymizerActor(anonymizer, engine.batch_size, engine.threads)
    clock = time.perf_counter if on_gpu else time.process_time

    def redraw(part: list[dict[str, Any]]) -> Cost:
        begun = clock()
        block = pa.Table.from_pylist(part, FACES)
        encoded = encode_pictures(raw_pictures(actor(prepare(block)), PIXELS))
        sizes = [len(content.as_buffer()) for content in encoded]
        return Cost((clock() - begun) / len(part), sum(sizes) / len(part))

    first = redraw(kept[:1])
    count = min(len(kept), int(SECONDS / max(first.seconds, 1e-6)))
    return reading, redraw(kept[:count]) if count > 1 else first
