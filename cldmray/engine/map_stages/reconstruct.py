"""Streams anonymized images through actors that reconstruct originals, and embeds these."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray import storage
from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.reconstruction.training import load_reconstructor
from cldmray.attackers.reconstruction.validation import embed_guesses
from cldmray.engine.artifacts import WEIGHTS, Artifact, stream_tables, write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.map_stages.embed import with_regions
from cldmray.engine.opened import Opened, map_opened
from cldmray.errors import BadInputError
from cldmray.faces.records import EVALUATION, decode_images, embeddings_schema, encode_image
from cldmray.faces.regions import Region
from cldmray.hashing import image_seed

COLUMNS = ["sample_id", "identity", "split", "sample", "image", "anonymizer"]


def reconstructions_schema(dimensions: int) -> pa.Schema:
    """That of the embeddings table, and beside it the encoded ``guesses``, one list an image.

    ``view`` is the name of the setting whose images were rebuilt; ``embedding`` is the mean of
    the guesses' embeddings, of unit norm.
    """
    return embeddings_schema(dimensions).append(
        pa.field("guesses", pa.list_(pa.binary()), nullable=False)
    )


def reconstruction_seed(sample_id: str, sample: int, audit_seed: int) -> int:
    """Random seed of one image's reconstruction, in [0, 2**63), never that of the image itself.

    The attacker does not know the noise with which the anonymizer has made the image.
    """
    return image_seed(f"reconstruction of {sample_id}", sample, audit_seed)


class ReconstructActor(Opened):
    """Holds a reconstruction model and the held-out recognizer."""

    def open(
        self, attacker: ReconstructionAttacker, fitted: Artifact, seed: int, engine: EngineConfig
    ) -> None:
        """Load the reconstruction model.

        Args:
            attacker: whose reconstruction model it is.
            fitted: stage of the reconstruction model's training.
            seed: of the audit.
            engine: threads, batch size, and whether there is a GPU.
        """
        import torch

        torch.set_num_threads(engine.threads)
        device = "cuda" if engine.gpus_per_actor > 0 else "cpu"
        self.attacker = attacker
        weights = storage.join(fitted.folder, WEIGHTS)
        self.reconstructor = load_reconstructor(attacker.model, weights, device)
        if self.reconstructor.network is not None:
            self.reconstructor.network.eval()
        self.seed = seed
        self.batch_size = engine.embedded_at_once

    def __call__(self, block: pa.Table) -> pa.Table:
        self.ensure_opened()
        parts = [
            self._rebuilt(block.slice(start, self.batch_size))
            for start in range(0, max(1, block.num_rows), self.batch_size)
        ]
        return pa.concat_tables(parts)

    def _rebuilt(self, block: pa.Table) -> pa.Table:
        table = block.select(["sample_id", "identity", "view"])
        vectors = np.zeros((0, self.attacker.dimensions), np.float32)
        guesses: list[list[bytes]] = []
        if block.num_rows:
            keys = zip(block["sample_id"].to_pylist(), block["sample"].to_pylist(), strict=True)
            seeds = np.array([reconstruction_seed(*key, self.seed) for key in keys], np.int64)
            images = decode_images(block["image"].to_pylist())
            rebuilt = self.reconstructor.reconstruct(images, seeds)
            vectors = embed_guesses(self.attacker.held_out_recognizer, rebuilt)
            guesses = [[encode_image(guess) for guess in row] for row in rebuilt]
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        table = table.append_column("embedding", column)
        return table.append_column("guesses", pa.array(guesses, pa.list_(pa.binary())))


def reconstruct(
    attacker: ReconstructionAttacker,
    fitted: Artifact,
    anonymized: Sequence[Artifact],
    seed: int,
    engine: EngineConfig,
    folder: str,
    splits: Sequence[str] = (EVALUATION,),
    regions: Sequence[Region] = (),
) -> None:
    """Rebuild the anonymized images of the people of some splits, and embed what comes out.

    Args:
        attacker: whose reconstruction model and held-out recognizer are used.
        fitted: its reconstruction model's stage.
        anonymized: tables of schema ``records.ANONYMIZED``.
        seed: of the audit; an image's own comes from it, the sample id and the sample.
        folder: gets a table of :func:`reconstructions_schema`.
        splits: whose images are rebuilt.
        regions: each adds a view :func:`cldmray.engine.map_stages.embed.region_view` of images in
            which the rest is masked before they are rebuilt.

    Raises:
        BadInputError: there is nothing to rebuild.
    """
    if not anonymized:
        raise BadInputError(f"{attacker.name}: was given no images to rebuild")

    def of_splits(block: pa.Table) -> pa.Table:
        rows = block.filter(pc.is_in(block["split"], pa.array(list(splits), pa.string())))
        names = ["view" if name == "anonymizer" else name for name in rows.column_names]
        return with_regions(rows.rename_columns(names), regions)

    stream = stream_tables(anonymized, COLUMNS, engine.block_rows).map_batches(
        of_splits, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    actor = ReconstructActor(attacker, fitted, seed, engine)
    rebuilt = map_opened(stream, actor, engine, engine.gpus_per_actor)
    write_records(rebuilt, folder, reconstructions_schema(attacker.dimensions))
