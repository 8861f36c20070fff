"""Ray Data streams that start at a face source or a Parquet table."""

from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset

from cldmray.faces.decode import BadPicture, decode
from cldmray.faces.records import Pictures, decode_pictures, encode_picture
from cldmray.faces.source import FaceSource


def blocks(table: pa.Table, rows: int) -> list[pa.Table]:
    """The table cut into consecutive pieces of at most ``rows`` rows (at least one piece)."""
    starts = range(0, max(table.num_rows, 1), rows)
    return [table.slice(start, rows).combine_chunks() for start in starts]


def read_faces(source: FaceSource, listing: pa.Table, block_rows: int) -> Dataset:
    """Stream the listed samples as decoded, cropped, re-encoded pictures.

    Args:
        source: where the samples are.
        listing: schema ``records.LISTING`` plus ``split``.
        block_rows: samples read by one task.

    Returns:
        Dataset with ``sample_id, identity, split, location, image, reason``: ``image`` holds a
        PNG file, or is empty where ``reason`` says why the file was rejected.
    """

    def load(block: pa.Table) -> pa.Table:
        locations = block["location"].to_pylist()
        images: list[bytes] = []
        reasons: list[str] = []
        for content in source.read(locations):
            try:
                images.append(encode_picture(decode(content, source.crop, source.size)))
                reasons.append("")
            except BadPicture as error:
                images.append(b"")
                reasons.append(str(error))
        table = block.select(["sample_id", "identity", "split", "location"])
        table = table.append_column("image", pa.array(images, pa.binary()))
        return table.append_column("reason", pa.array(reasons, pa.string()))

    stream = ray.data.from_arrow(blocks(listing, block_rows))
    return stream.map_batches(load, batch_format="pyarrow", batch_size=None, num_cpus=0.5)


def load_pictures(
    source: FaceSource, listing: pa.Table, block_rows: int = 256
) -> tuple[Pictures, list[str], list[str]]:
    """Decode the listed samples into memory, in order of sample id; bad files are left out.

    Returns:
        Pictures (N, size, size, 3), their identities and their sample ids.
    """
    stream = read_faces(source, listing, block_rows)
    rows: list[dict[str, Any]] = [row for row in stream.iter_rows() if not row["reason"]]
    rows.sort(key=lambda row: row["sample_id"])
    pictures = decode_pictures(row["image"] for row in rows)
    if not rows:
        pictures = np.zeros((0, source.size, source.size, 3), np.uint8)
    return pictures, [row["identity"] for row in rows], [row["sample_id"] for row in rows]
