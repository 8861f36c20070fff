"""Streams faces through condition tasks and a pool of anonymizer actors into a table.

Anonymizers that need to see all images: features, a plan of groups, one surrogate a group.
"""

import io
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from PIL import Image
from ray.data import Dataset

from cldmray import hashing
from cldmray.anonymizers.base import Anonymizer, Batch, GroupAnonymizer
from cldmray.anonymizers.batching import BatchedRunner
from cldmray.arrays import Images
from cldmray.detection.alignment import fitted
from cldmray.engine.artifacts import Artifact, write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.opened import Opened, map_opened
from cldmray.engine.stages import StageHandle
from cldmray.faces.records import (
    ANONYMIZED,
    ATTACKER,
    ATTACKER_VALIDATION,
    AUXILIARY,
    EVALUATION,
    FACES,
    decode_images,
    encode_image,
    encode_images,
)

SHAPE = ["height", "width"]
AUDITED_SHAPE = ["audited_height", "audited_width"]
"""Columns of the size of the images before they are brought to an anonymizer's own."""
PIXELS = "pixels"
MAP = "condition "
"""Prefix of the columns of condition maps, before the control's name."""
GPU_CALLS = 2
"""Calls of an actor at once: one anonymizes while the other unpacks its block or packs it."""
PIECE_BYTES = 128 * 2**20
"""Raw pixels, maps included, that a task prepares at once; it takes about four times as much."""
CONDITION_IMAGE = "condition_image"
"""Column, where a block has one, of the images that the conditions are taken from."""


def raw_column(images: Images) -> pa.Array:
    """Images as a binary column of raw pixels, for columns that live between two tasks only."""
    return pa.array([image.tobytes() for image in images], pa.large_binary())


def raw_images(block: pa.Table, column: str) -> Images:
    """A column of :func:`raw_column` as images (N, height, width, 3); N may be 0.

    ``height`` and ``width`` of the block, the same in all rows, give the shape.
    """
    if not block.num_rows:
        return np.zeros((0, 1, 1, 3), np.uint8)
    height, width = (block[name][0].as_py() for name in SHAPE)
    rows = [np.frombuffer(value.as_buffer(), np.uint8) for value in block[column]]
    return np.stack(rows).reshape(len(rows), height, width, 3)


class ActorInputs:
    """Turns faces into what the actors need: samples, seeds, raw pixels and condition maps.

    Images and maps have the anonymizer's own size, where it has one. The maps are those of the
    images in the column :data:`CONDITION_IMAGE` where there is one.
    Columns that faces do not have travel on with the images.
    """

    def __init__(self, anonymizer: Anonymizer, splits: Mapping[str, int], audit_seed: int) -> None:
        self.anonymizer = anonymizer
        self.samples = dict(splits)
        self.audit_seed = audit_seed

    def __call__(self, block: pa.Table) -> pa.Table:
        ids: list[str] = block["sample_id"].to_pylist()
        splits: list[str] = block["split"].to_pylist()
        kept = self.anonymizer.select(ids)
        made = [row for row, split in enumerate(splits) if kept[row] and self.samples.get(split)]
        kept[made] = self.anonymizer.usable([ids[row] for row in made])
        rows = [
            (row, sample)
            for row, split in enumerate(splits)
            for sample in range(self.samples.get(split, 0))
            if kept[row]
        ]
        take = [row for row, _ in rows]
        samples = [sample for _, sample in rows]
        seeds = [hashing.image_seed(ids[row], sample, self.audit_seed) for row, sample in rows]
        others = [name for name in block.column_names if name not in ("image", CONDITION_IMAGE)]
        table = block.select(others).take(pa.array(take, pa.int64()))
        used, position = np.unique(np.array(take, np.int64), return_inverse=True)
        images = decode_images(block["image"].to_pylist())[used]
        audited = images.shape[1:3]
        images = self._own_size(images)
        sources = images
        if CONDITION_IMAGE in block.column_names:
            sources = self._own_size(decode_images(block[CONDITION_IMAGE].to_pylist())[used])
        height, width = images.shape[1:3]
        columns: dict[str, pa.Array] = {
            "sample": pa.array(samples, pa.int32()),
            "seed": pa.array(seeds, pa.int64()),
            "height": pa.array([height] * len(rows), pa.int32()),
            "width": pa.array([width] * len(rows), pa.int32()),
            PIXELS: raw_column(images[position]),
        }
        for name, length in zip(AUDITED_SHAPE, audited, strict=True):
            columns[name] = pa.array([length] * len(rows), pa.int32())
        for name, condition in self.anonymizer.conditions.items():
            maps = condition(sources) if rows else sources
            columns[MAP + name] = raw_column(maps[position])
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table

    def pieces(self, block: pa.Table) -> Iterator[pa.Table]:
        """The inputs of a block in pieces of at most :data:`PIECE_BYTES`, of one image at least.

        Whole blocks of large images, or of many samples, would not fit into memory beside those of
        other tasks.
        """
        rows = max(1, len(block))
        if len(block):
            width, height = Image.open(io.BytesIO(block["image"][0].as_py())).size
            side = self.anonymizer.input_side
            pixels = width * height if side is None else side * side
            samples = max(1, *self.samples.values()) if self.samples else 1
            columns = 1 + len(self.anonymizer.conditions)
            rows = max(1, PIECE_BYTES // (3 * pixels * samples * columns))
        for start in range(0, max(1, len(block)), rows):
            yield self(block.slice(start, rows))

    def _own_size(self, images: Images) -> Images:
        side = self.anonymizer.input_side
        return images if side is None else fitted(images, side, side)


def audited_images(block: pa.Table) -> Images:
    """Anonymized images of a block, brought back to the size of the audited ones."""
    images = raw_images(block, PIXELS)
    if not block.num_rows:
        return images
    height, width = (block[name][0].as_py() for name in AUDITED_SHAPE)
    return fitted(images, height, width)


def _is_raw(column: str) -> bool:
    return column == PIXELS or column.startswith(MAP)


class AnonymizerActor(Opened):
    """Holds one opened anonymizer, whose weights load once, and anonymizes blocks batch by batch.

    Images that could not be made get a ``reason``, and a ``location`` for the list of those.
    Calls may overlap; one of them anonymizes at a time.
    """

    def open(
        self, anonymizer: Anonymizer, batch_size: int | None, threads: int, gpus: float = 0.0
    ) -> None:
        """Load the anonymizer.

        Args:
            batch_size: images at once; None: as many as the GPU's memory holds.
            threads: of torch on the CPU.
            gpus: share of a GPU, or number of GPUs, that belongs to the actor.
        """
        import torch

        from cldmray.anonymizers import memory

        torch.set_num_threads(threads)
        memory.limit(gpus)
        self.controls = list(anonymizer.conditions)
        share = gpus if 0 < gpus < 1 else 1.0
        self.runner = BatchedRunner(
            anonymizer.open_on("cuda" if gpus else "cpu"), batch_size, share
        )
        self.anonymizing = threading.Lock()

    def __call__(self, block: pa.Table) -> pa.Table:
        self.ensure_opened()
        table = block.select([name for name in block.column_names if not _is_raw(name)])
        unusable: dict[int, str] = {}
        pixels: pa.Array | pa.ChunkedArray = block[PIXELS]
        if block.num_rows:
            done: list[Images] = []
            with self.anonymizing:
                for attempt in self.runner.attempts(self._batch(block), done, unusable):
                    with attempt:
                        attempt.finish = self.runner.start(attempt.batch)
            pixels = raw_column(np.concatenate(done))
        # Where a reason is not empty, the sink lists the row instead of keeping it.
        reasons = [unusable.get(row, "") for row in range(block.num_rows)]
        places = [f"sample {sample}" for sample in block["sample"].to_pylist()]
        for name, column in (("reason", reasons), ("location", places)):
            table = table.append_column(name, pa.array(column, pa.string()))
        return table.append_column(PIXELS, pixels)

    def _batch(self, rows: pa.Table) -> Batch:
        return Batch(
            sample_ids=rows["sample_id"].to_pylist(),
            images=raw_images(rows, PIXELS),
            seeds=rows["seed"].to_numpy(),
            conditions={name: raw_images(rows, MAP + name) for name in self.controls},
            samples=rows["sample"].to_numpy(),
        )


def anonymize(
    faces: Artifact | StageHandle | Dataset,
    anonymizer: Anonymizer,
    samples: Mapping[str, int],
    audit_seed: int,
    engine: EngineConfig,
    folder: str,
    schema: pa.Schema = ANONYMIZED,
) -> None:
    """Write the anonymized table of a per-image anonymizer.

    Args:
        faces: the faces table, or a stream of its rows with further columns, see
            :class:`ActorInputs`.
        samples: how many times each split's images are anonymized, each time with its own seed.
        audit_seed: enters every image's seed.
        folder: gets a table of ``schema``.
        schema: ``records.ANONYMIZED`` and those further columns that are kept.
    """
    name = anonymizer.name

    def encode(block: pa.Table) -> pa.Table:
        images = encode_images(audited_images(block))
        table = block.drop_columns([*SHAPE, *AUDITED_SHAPE, PIXELS]).append_column("image", images)
        return table.append_column("anonymizer", pa.array([name] * len(table), pa.string()))

    rows = faces
    if not isinstance(rows, Dataset):
        rows = rows.stream(FACES.names, engine.block_rows)
    resources = {kind: n for kind, n in anonymizer.resources.items() if kind != "GPU"}
    gpus = anonymizer.gpus_per_actor(engine.gpus_per_actor)
    blocks: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
    prepared = rows.map_batches(
        ActorInputs(anonymizer, samples, audit_seed).pieces, num_cpus=TASK_CPUS, **blocks
    )
    anonymized = map_opened(
        prepared,
        AnonymizerActor(anonymizer, engine.batch_size, engine.threads, gpus),
        engine,
        gpus,
        calls=GPU_CALLS,
        resources=resources,
    )
    encoded = anonymized.map_batches(encode, num_cpus=TASK_CPUS, **blocks)
    write_records(encoded, folder, schema)


def samples_per_split(samples_per_image: int, auxiliary: bool = False) -> dict[str, int]:
    """Samples per split: the attacker may query often, or not at all; the others exist once.

    Args:
        samples_per_image: samples of each of the attacker's images; its validation images get one.
        auxiliary: whether the attacker learns from auxiliary people too.
    """
    queried = min(samples_per_image, 1)
    samples = {EVALUATION: 1, ATTACKER: samples_per_image, ATTACKER_VALIDATION: queried}
    return {**samples, AUXILIARY: samples_per_image} if auxiliary else samples


def anonymize_groups(
    faces: Artifact | StageHandle,
    anonymizer: GroupAnonymizer,
    samples: Mapping[str, int],
    engine: EngineConfig,
    folder: str,
) -> None:
    """Write the anonymized table of a group anonymizer: features, plan, one surrogate a group.

    Evaluation people are never grouped with the attacker's; each image is published once,
    whatever ``samples`` says.
    """
    used = [split for split, count in samples.items() if count]
    groups = ray.put(plan_groups(faces, anonymizer, used, engine))
    name = anonymizer.name

    def label(block: pa.Table) -> pa.Table:
        group_of: dict[str, str] = ray.get(groups)
        labels = [group_of.get(sample, "") for sample in block["sample_id"].to_pylist()]
        table = block.append_column("group", pa.array(labels, pa.string()))
        return table.filter(pc.not_equal(table["group"], ""))

    def merge(group: pa.Table) -> pa.Table:
        ordered = group.sort_by("sample_id")
        surrogate = encode_image(anonymizer.merge(decode_images(ordered["image"].to_pylist())))
        table = ordered.select(["sample_id", "identity", "split"])
        size = len(table)
        for column, value, kind in (
            ("anonymizer", name, pa.string()),
            ("sample", 0, pa.int32()),
            ("seed", 0, pa.int64()),
            ("image", surrogate, pa.binary()),
        ):
            table = table.append_column(column, pa.array([value] * size, kind))
        return table

    labelled = faces.stream(FACES.names, engine.block_rows).map_batches(
        label, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    merged = labelled.groupby("group", num_partitions=4).map_groups(
        merge, batch_format="pyarrow", num_cpus=TASK_CPUS
    )
    write_records(merged, folder, ANONYMIZED)


def plan_groups(
    faces: Artifact | StageHandle,
    anonymizer: GroupAnonymizer,
    used: list[str],
    engine: EngineConfig,
) -> dict[str, str]:
    """Group label of every sample of the used splits; the attacker's splits are one pool."""

    def features(block: pa.Table) -> pa.Table:
        rows = anonymizer.features(decode_images(block["image"].to_pylist()))
        table = block.select(["sample_id", "identity", "split"])
        return table.append_column("features", pa.array(list(rows), pa.list_(pa.float32())))

    stream = faces.stream(FACES.names, engine.block_rows).map_batches(
        features, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    rows = sorted(stream.iter_rows(), key=lambda row: row["sample_id"])
    labels: dict[str, str] = {}
    for pool in ([EVALUATION], [ATTACKER, ATTACKER_VALIDATION, AUXILIARY]):
        members = [row for row in rows if row["split"] in pool and row["split"] in used]
        if not members:
            continue
        ids = [row["sample_id"] for row in members]
        identities = [row["identity"] for row in members]
        plan = anonymizer.plan(ids, identities, np.stack([row["features"] for row in members]))
        names = (f"{pool[0]} {group}" for group in plan)
        labels.update(zip(ids, names, strict=True))
    return labels
