"""The Arrow records that stages exchange (docs/architecture.md) and the image codec."""

import io
import json
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from cldmray.arrays import Images

AUXILIARY = "auxiliary"
ATTACKER = "attacker"
ATTACKER_VALIDATION = "attacker_validation"
EVALUATION = "evaluation"
SPLITS = (AUXILIARY, ATTACKER, ATTACKER_VALIDATION, EVALUATION)
LISTING = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
"""What a source offers: ``location`` is understood by the source's ``read``; ``version``
(size and modification time, or a content hash) changes whenever the content does."""
NOTES = b"notes"
"""Metadata of a listing: what the source found and left out, a JSON list of sentences."""
FACES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
ANONYMIZED = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
REJECTED = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def listing_notes(listing: pa.Table) -> list[str]:
    """What the source says of its listing, as sentences for the log and the report."""
    metadata = listing.schema.metadata or {}
    notes: list[str] = json.loads(metadata.get(NOTES, b"[]"))
    return notes


def embeddings_schema(dimensions: int) -> pa.Schema:
    """Schema of the embeddings table for vectors of ``dimensions`` float32 of unit norm."""
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("identity", pa.string(), nullable=False),
            pa.field("view", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


CONTENT_ID = "content_id"
"""Column of embeddings that near-duplicates share, where there are any."""


def with_content_ids(table: pa.Table, contents: Mapping[str, str]) -> pa.Table:
    """The table with the column :data:`CONTENT_ID`, or as it is where no content is given.

    Args:
        table: with the column ``sample_id``.
        contents: content id of the samples that have near-duplicates.

    >>> table = pa.table({"sample_id": ["a", "b", "c"]})
    >>> with_content_ids(table, {"a": "a", "c": "a"})[CONTENT_ID].to_pylist()
    ['a', 'b', 'a']
    """
    if not contents:
        return table
    ids = [contents.get(sample, sample) for sample in table["sample_id"].to_pylist()]
    return table.append_column(CONTENT_ID, pa.array(ids, pa.string()))


def embedding_matrix(table: pa.Table) -> npt.NDArray[np.float32]:
    """The vectors of an embeddings table, shape (N, dimensions)."""
    column = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(column).reshape(len(table), table.schema.field("embedding").type.list_size)


def encode_image(image: Images) -> bytes:
    """One RGB image (height, width, 3) as PNG: lossless, so that reruns are identical."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_images(images: Images) -> pa.Array:
    """Images (N, height, width, 3) as a binary column of PNG files."""
    return pa.array([encode_image(image) for image in images], pa.binary())


def decode_image(content: bytes) -> Images:
    """A PNG written by :func:`encode_image` as an array (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def decode_images(column: Iterable[bytes]) -> Images:
    """A binary column as one array (N, height, width, 3); all images share one size."""
    images = [decode_image(bytes(content)) for content in column]
    return np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8)


ORIGINAL = "original"
