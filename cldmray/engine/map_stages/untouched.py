"""Compares anonymized images with their originals, pixel by pixel, within the face."""

import pyarrow as pa
import pyarrow.compute as pc
import ray

from cldmray import storage
from cldmray.detection.alignment import fitted
from cldmray.engine.artifacts import Artifact, read_samples, write_records
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
    file_of: dict[str, str] = {}
    for uri in faces.uris:
        table = storage.read_table(uri, ["sample_id", "split"])
        evaluated = table.filter(pc.equal(table["split"], EVALUATION))["sample_id"]
        file_of |= dict.fromkeys(evaluated.to_pylist(), uri)

    def compare(block: pa.Table) -> pa.Table:
        return pa.concat_tables([_compared(uri, file_of) for uri in block["uri"].to_pylist()])

    files = [{"uri": uri} for table in anonymized for uri in table.uris]
    stream = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
        compare, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    write_records(stream, folder, PIXELS)


def _compared(uri: str, file_of: dict[str, str]) -> pa.Table:
    """Rows of :data:`PIXELS` for one file of anonymized images."""
    columns = ["sample_id", "identity", "split", "anonymizer", "image"]
    rows = storage.read_table(uri, columns)
    rows = rows.filter(pc.equal(rows["split"], EVALUATION))
    samples = rows["sample_id"]
    files = sorted({file_of[sample] for sample in samples.to_pylist()})
    parts = [read_samples(file, ["sample_id", "image"], samples.combine_chunks()) for file in files]
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
