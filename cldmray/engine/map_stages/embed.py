"""Streams images through encoders into an embeddings table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load

from cldmray import storage
from cldmray.anonymizers.memory import is_out_of_memory
from cldmray.arrays import Images
from cldmray.attackers.base import Attacker, Embed, Learnt
from cldmray.engine.artifacts import WEIGHTS, Artifact, stream_tables, write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.opened import Opened, map_opened
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces.records import (
    EVALUATION,
    ORIGINAL,
    decode_images,
    embeddings_schema,
    encode_images,
)
from cldmray.faces.regions import Region, keep_region
from cldmray.recognizers.base import Embeddings


def region_view(view: str, region: Region) -> str:
    """Name of the view that shows one region of an anonymizer's images."""
    return f"{view} region={region}"


class EmbedActor(Opened):
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
        self.ensure_opened()
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
            vectors = in_parts(self.embed, images)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)
        return table.append_column("embedding", column)


def in_parts(embed: Embed, images: Images) -> Embeddings:
    """Embeddings of images, of halves of them where memory runs out, again and again.

    Raises:
        ConfigError: memory does not suffice for one image.
    """
    try:
        return embed(images)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if len(images) == 1:
            raise ConfigError(
                "engine.gpus_per_actor: not even one image can be embedded in the memory of this "
                "share of a GPU, or of this machine; raise it, or lower engine.actors"
            ) from error
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
    middle = len(images) // 2
    return np.concatenate([in_parts(embed, images[:middle]), in_parts(embed, images[middle:])])


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
    copies: Sequence[str] = (),
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
        copies: further views that show the originals as they are, and get their embeddings.

    Raises:
        BadInputError: there is nothing to embed.
    """
    tables = [*anonymized] if faces is None else [faces, *anonymized]
    if not tables:
        raise BadInputError(f"{attacker.name}: was given no images to embed")

    def views(block: pa.Table) -> pa.Table:
        rows = block.filter(pc.is_in(block["split"], pa.array(list(splits), pa.string())))
        if samples is not None:
            rows = rows.filter(pc.is_in(rows["sample_id"], pa.array(list(samples), pa.string())))
        is_original = bool(rows["anonymizer"].null_count)  # a block is of one table
        rows = rows.append_column("view", pc.fill_null(rows["anonymizer"], ORIGINAL))
        return rows if is_original else with_regions(rows, regions)

    stream = stream_tables(
        tables, ["sample_id", "identity", "split", "image", "anonymizer"], engine.block_rows
    ).map_batches(views, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS)
    gpus = attacker.gpus_per_actor(engine.gpus_per_actor)
    embedded = map_opened(stream, EmbedActor(attacker, fitted, engine), engine, gpus)
    if copies:

        def with_copies(block: pa.Table) -> pa.Table:
            originals = block.filter(pc.equal(block["view"], ORIGINAL))
            place = block.schema.get_field_index("view")
            names = (pa.array([name] * len(originals), pa.string()) for name in copies)
            return pa.concat_tables(
                [block, *(originals.set_column(place, "view", n) for n in names)]
            )

        embedded = embedded.map_batches(
            with_copies, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
        )
    write_records(embedded, folder, embeddings_schema(attacker.dimensions))
