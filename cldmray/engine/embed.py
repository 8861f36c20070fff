"""Streams pictures through a pool of encoder actors into an embeddings table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.data import ActorPoolStrategy

from cldmray.attackers.ladder import Rung
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.tables import TASK_CPUS, StageTable, write_records
from cldmray.faces.records import EVALUATION, decode_pictures, embeddings_schema

ORIGINAL = "original"


class EmbedActor:
    """Holds one trained encoder; it embeds originals as they are, other views as the rung reads."""

    def __init__(self, rung: Rung, encoder: StageTable, engine: EngineConfig) -> None:
        import torch

        from cldmray.engine.attack_training import load_encoder

        torch.set_num_threads(engine.threads)
        self.rung = rung
        self.batch_size = engine.batch_size
        self.device = "cuda" if engine.gpus_per_actor > 0 else "cpu"
        self.encoder = load_encoder(encoder, rung.encoder).to(self.device)

    def __call__(self, block: pa.Table) -> pa.Table:
        from cldmray.attackers.encoder import embed

        table = block.select(["sample_id", "identity", "view"])
        pictures = decode_pictures(block["image"].to_pylist())
        condition = self.rung.probe_condition
        if condition is not None and len(pictures):
            probes = np.array([view != ORIGINAL for view in block["view"].to_pylist()])
            if probes.any():
                pictures[probes] = condition(pictures[probes])
        dimensions = self.rung.encoder.dimensions
        vectors = np.zeros((0, dimensions), np.float32)
        if len(pictures):
            vectors = embed(self.encoder, pictures, self.batch_size, self.device)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)
        return table.append_column("embedding", column)


def embed_views(
    rung: Rung,
    encoder: StageTable,
    faces: StageTable,
    anonymized: Sequence[StageTable],
    engine: EngineConfig,
    folder: str,
) -> None:
    """Write embeddings of the evaluation people's photographs and anonymized pictures.

    Args:
        encoder: trained encoder of the rung.
        faces: embedded as the view ``original``.
        anonymized: each embedded as the view of its anonymizer's name.
        folder: gets a table of :func:`cldmray.faces.records.embeddings_schema`.
    """
    columns = ["sample_id", "identity", "split", "image"]

    def original(block: pa.Table) -> pa.Table:
        table = _evaluated(block)
        return table.append_column("view", pa.array([ORIGINAL] * len(table), pa.string()))

    def redrawn(block: pa.Table) -> pa.Table:
        return _evaluated(block).rename_columns({"anonymizer": "view"}).select([*columns, "view"])

    tasks: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": TASK_CPUS}
    sizes = (engine.block_rows, engine.actors)
    stream = faces.stream(columns, *sizes).map_batches(original, **tasks)
    for table in anonymized:
        view = table.stream([*columns, "anonymizer"], *sizes).map_batches(redrawn, **tasks)
        stream = stream.union(view)
    embedded = stream.map_batches(
        EmbedActor,
        fn_constructor_args=(rung, encoder, engine),
        batch_format="pyarrow",
        batch_size=None,
        compute=ActorPoolStrategy(size=engine.actors),
        num_cpus=engine.cpus_per_actor,
        num_gpus=engine.gpus_per_actor or None,
    )
    write_records(embedded, folder, embeddings_schema(rung.encoder.dimensions))


def _evaluated(block: pa.Table) -> pa.Table:
    return block.filter(pc.equal(block["split"], EVALUATION))
