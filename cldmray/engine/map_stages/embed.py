"""Streams images through a pool of encoder actors into an embeddings table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load

from cldmray import storage
from cldmray.attackers.base import Attacker, Learnt
from cldmray.engine.artifacts import WEIGHTS, Artifact, write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.failures import OpenedActor
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    EVALUATION,
    ORIGINAL,
    decode_images,
    embeddings_schema,
    encode_images,
)
from cldmray.faces.regions import Region, keep_region


def region_view(view: str, region: Region) -> str:
    """Name of the view that shows one region of an anonymizer's images."""
    return f"{view} region={region}"


class EmbedActor(OpenedActor):
    """Holds what an attacker embeds with.

    Originals are read as they are, other views as the attacker reads them.
    """

    def open(self, attacker: Attacker, fitted: Artifact | None, engine: EngineConfig) -> None:
        """Load the attacker's encoder.

        Args:
            fitted: what the attacker has learnt; None where it learns nothing.
        """
        import torch

        torch.set_num_threads(engine.threads)
        self.attacker = attacker
        device = "cuda" if attacker.gpus_per_actor(engine.gpus_per_actor) else "cpu"
        learnt = None if fitted is None else learnt_arrays(fitted)
        self.embed = attacker.embedder(learnt, device, engine.embedded_at_once)

    def __call__(self, block: pa.Table) -> pa.Table:
        self.check_opened()
        table = block.select(["sample_id", "identity", "view"])
        images = decode_images(block["image"].to_pylist())
        condition = self.attacker.probe_condition
        if condition is not None and len(images):
            probes = np.array([view != ORIGINAL for view in block["view"].to_pylist()])
            if probes.any():
                images[probes] = condition(images[probes])
        dimensions = self.attacker.dimensions
        vectors = np.zeros((0, dimensions), np.float32)
        if len(images):
            vectors = self.embed(images)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)
        return table.append_column("embedding", column)


def learnt_arrays(fitted: Artifact) -> Learnt:
    """What an attacker has learnt, read from its artifact."""
    arrays: Learnt = load(storage.read_bytes(storage.join(fitted.folder, WEIGHTS)))
    return arrays


def with_regions(whole: pa.Table, regions: Sequence[Region]) -> pa.Table:
    """Rows of images, and after them the same rows once for each region."""
    if not regions or not whole.num_rows:
        return whole
    images = decode_images(whole["image"].to_pylist())
    tables = [whole]
    for region in regions:
        table = whole
        for name, column in (
            ("image", encode_images(keep_region(images, region))),
            ("view", pa.array([region_view(v, region) for v in whole["view"].to_pylist()])),
        ):
            place = whole.schema.get_field_index(name)
            table = table.set_column(place, whole.schema.field(name), column)
        tables.append(table)
    return pa.concat_tables(tables)


def embed_views(
    attacker: Attacker,
    fitted: Artifact | None,
    faces: Artifact | None,
    anonymized: Sequence[Artifact],
    engine: EngineConfig,
    folder: str,
    splits: Sequence[str] = (EVALUATION,),
    regions: Sequence[Region] = (),
    samples: Sequence[str] | None = None,
) -> None:
    """Write embeddings of images and of anonymized images, by one attacker.

    Args:
        fitted: what the attacker has learnt; None where it learns nothing.
        faces: embedded as the view ``original``; None leaves images out.
        anonymized: each embedded as the view of its anonymizer's name.
        folder: gets a table of :func:`cldmray.faces.records.embeddings_schema`.
        splits: whose images are embedded.
        regions: each adds a view :func:`region_view` of every anonymizer's images, in which the
            rest is masked. An attacker that reads probes through a condition sees the mask's
            border.
        samples: that are embedded alone; None: all.

    Raises:
        BadInputError: there is nothing to embed.
    """
    columns = ["sample_id", "identity", "split", "image"]

    def of_splits(block: pa.Table) -> pa.Table:
        rows = block.filter(pc.is_in(block["split"], pa.array(list(splits), pa.string())))
        if samples is None:
            return rows
        return rows.filter(pc.is_in(rows["sample_id"], pa.array(list(samples), pa.string())))

    def original(block: pa.Table) -> pa.Table:
        table = of_splits(block)
        return table.append_column("view", pa.array([ORIGINAL] * len(table), pa.string()))

    def anonymized_rows(block: pa.Table) -> pa.Table:
        whole = of_splits(block).rename_columns({"anonymizer": "view"}).select([*columns, "view"])
        return with_regions(whole, regions)

    tasks: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": TASK_CPUS}
    rows = engine.block_rows
    views = [table.stream([*columns, "anonymizer"], rows) for table in anonymized]
    parts = [view.map_batches(anonymized_rows, **tasks) for view in views]
    if faces is not None:
        parts.insert(0, faces.stream(columns, rows).map_batches(original, **tasks))
    if not parts:
        raise BadInputError(f"{attacker.name}: was given no images to embed")
    stream = parts[0].union(*parts[1:]) if parts[1:] else parts[0]
    gpus = attacker.gpus_per_actor(engine.gpus_per_actor)
    embedded = stream.map_batches(
        EmbedActor,
        fn_constructor_args=(attacker, fitted, engine),
        batch_format="pyarrow",
        batch_size=engine.rows_per_call(gpus),
        compute=engine.pool(gpus=gpus),
        num_cpus=engine.cpus_per_actor,
        num_gpus=gpus or None,
    )
    write_records(embedded, folder, embeddings_schema(attacker.dimensions))
