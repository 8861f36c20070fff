"""Compares anonymized images with their originals, pixel by pixel, within the face."""

from itertools import chain, repeat

import pyarrow as pa
import pyarrow.compute as pc
import ray

from cldmray import storage
from cldmray.detection.alignment import fitted
from cldmray.engine.artifacts import Artifact, Slice, write_records
from cldmray.engine.cluster import TASK_CPUS
from cldmray.faces.records import EVALUATION, decode_image
from cldmray.faces.regions import FACE, ellipse
from cldmray.metrics.image_similarity import mean_absolute_difference

PIXELS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("difference", pa.float64(), nullable=False),
    ]
)
"""One row an anonymized image of an evaluated person: the mean absolute difference to its original,
in grey levels, within the central ellipse that holds the face. ``view`` is the anonymizer."""


def compare_pixels(faces: Artifact, anonymized: list[Artifact], folder: str) -> None:
    """Write how far the pixels of each anonymized face are from those of its original.

    Args:
        faces: the faces table.
        anonymized: table of each anonymizer.
        folder: gets a table of schema :data:`PIXELS`.
    """
    blocks = faces.blocks()
    ids = (storage.read_table(uri, ["sample_id"])["sample_id"] for uri in faces.uris)
    numbers = chain.from_iterable(repeat(n, block.rows) for n, block in enumerate(blocks))
    number_of = dict(zip(chain.from_iterable(i.to_pylist() for i in ids), numbers, strict=True))
    pieces = [piece for table in anonymized for piece in table.blocks()]

    def compare(block: pa.Table) -> pa.Table:
        (piece,) = (pieces[place] for place in block["place"].to_pylist())
        return _compared(piece, blocks, number_of)

    places = [{"place": place} for place in range(len(pieces))]
    stream = ray.data.from_items(places, override_num_blocks=len(places)).map_batches(
        compare, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    write_records(stream, folder, PIXELS)


def _compared(piece: Slice, blocks: list[Slice], number_of: dict[str, int]) -> pa.Table:
    """Rows of :data:`PIXELS` for one block of anonymized images.

    Args:
        blocks: of the faces table.
        number_of: place of each original's block among them.
    """
    (rows,) = piece.read(["sample_id", "identity", "split", "anonymizer", "image"])
    rows = rows.filter(pc.equal(rows["split"], EVALUATION))
    samples = rows["sample_id"]
    wanted = samples.combine_chunks()
    numbers = sorted({number_of[sample] for sample in samples.to_pylist()})
    parts = [blocks[number].read_samples(["sample_id", "image"], wanted) for number in numbers]
    originals = {
        sample: image
        for part in parts
        for sample, image in zip(
            part["sample_id"].to_pylist(), part["image"].to_pylist(), strict=True
        )
    }
    differences = []
    for sample, content in zip(samples.to_pylist(), rows["image"].to_pylist(), strict=True):
        original = decode_image(originals[sample])[None]
        height, width = original.shape[1:3]
        image = fitted(decode_image(content)[None], height, width)
        face = ellipse(height, width, FACE)
        differences.append(float(mean_absolute_difference(original, image, face)[0]))
    values = [samples, rows["identity"], rows["anonymizer"], pa.array(differences, pa.float64())]
    return pa.Table.from_arrays(values, schema=PIXELS)
