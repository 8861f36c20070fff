"""Ray Data streams that start at a face source or a Parquet table.

The first stage: images from a source, decoded and cropped, into the faces table.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from cldmray.arrays import Images
from cldmray.engine.artifacts import write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import InvalidImageError, decode
from cldmray.faces.records import FACES, decode_images, encode_image
from cldmray.faces.splits import SplitConfig, split_listing


def blocks(table: pa.Table, rows: int) -> list[pa.Table]:
    """The table cut into consecutive pieces of at most ``rows`` rows (at least one piece)."""
    starts = range(0, max(table.num_rows, 1), rows)
    return [table.slice(start, rows).combine_chunks() for start in starts]


def read_faces(source: FaceSource, listing: pa.Table, block_rows: int) -> Dataset:
    """Stream the listed samples as decoded, cropped, re-encoded images.

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
                images.append(encode_image(decode(content, source.crop, source.size)))
                reasons.append("")
            except InvalidImageError as error:
                images.append(b"")
                reasons.append(str(error))
        table = block.select(["sample_id", "identity", "split", "location"])
        table = table.append_column("image", pa.array(images, pa.binary()))
        return table.append_column("reason", pa.array(reasons, pa.string()))

    stream = ray.data.from_arrow(blocks(listing, block_rows))
    return stream.map_batches(load, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS)


def map_rows(
    listing: pa.Table, load: Callable[[pa.Table], dict[str, Any]], block_rows: int
) -> list[dict[str, Any]]:
    """Rows of arrays that tasks make of a listing's blocks, in order of sample id.

    Args:
        listing: schema ``records.LISTING``.
        load: columns of a block of at most ``block_rows`` rows, ``sample_id`` among them.
    """
    stream = ray.data.from_arrow(blocks(listing, block_rows)).map_batches(
        load, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    return sorted(stream.iter_rows(), key=lambda row: str(row["sample_id"]))


def load_split(
    source: FaceSource, splits: SplitConfig, split: str, block_rows: int = 256
) -> tuple[Images, list[str]]:
    """Decode one split into memory, in order of sample id; bad files are left out.

    Returns:
        Images (N, size, size, 3) and their identities.

    Raises:
        BadInputError: the split has no usable image.
    """
    listing = source.listing()
    assigned = split_listing(listing, splits)
    column = [assigned.get(identity, "") for identity in listing["identity"].to_pylist()]
    listing = listing.append_column("split", pa.array(column, pa.string()))
    listing = listing.filter(pc.equal(listing["split"], split))
    if not listing.num_rows:
        raise BadInputError(f"{source.name}: there are no {split} people")
    return _load(source, listing, block_rows)


def load_all(source: FaceSource, block_rows: int = 256) -> tuple[Images, list[str]]:
    """Decode every image of a source into memory; see :func:`load_split`."""
    listing = source.listing()
    column = pa.array([""] * listing.num_rows, pa.string())
    return _load(source, listing.append_column("split", column), block_rows)


def _load(source: FaceSource, listing: pa.Table, block_rows: int) -> tuple[Images, list[str]]:
    stream = read_faces(source, listing, block_rows)
    rows: list[dict[str, Any]] = [row for row in stream.iter_rows() if not row["reason"]]
    if not rows:
        raise BadInputError(f"{source.name}: none of {listing.num_rows} files is a usable image")
    rows.sort(key=lambda row: row["sample_id"])
    return decode_images(row["image"] for row in rows), [row["identity"] for row in rows]


def load_faces(source: FaceSource, listing: pa.Table, engine: EngineConfig, folder: str) -> None:
    """Write the faces table and the list of rejected files.

    Args:
        listing: schema ``records.LISTING`` plus ``split``.
        folder: gets a table of schema ``records.FACES``.

    Raises:
        BadInputError: the listing is empty.
    """
    if not listing.num_rows:
        raise BadInputError(f"{source.name}: no images of people to evaluate or to learn from")
    write_records(read_faces(source, listing, engine.block_rows), folder, FACES)
