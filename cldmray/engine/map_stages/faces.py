"""Ray Data streams that start at a face source or a Parquet table.

The first stage: images from a source, decoded and cropped, into the faces table.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from cldmray.arrays import Images
from cldmray.engine import cluster
from cldmray.engine.artifacts import write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.records import FACES, decode_images, encode_image

SEARCH_COLUMNS = pa.schema(
    [
        pa.field("n_faces", pa.int32()),
        pa.field("side", pa.float64()),
        pa.field("quarter_turns", pa.int32()),
    ]
)
"""Further columns of faces that were searched for, see
:class:`cldmray.detection.face_search.FoundFace`; null where there is none."""


def _columns(source: FaceSource) -> list[pa.Field]:
    """What reading adds to a listing."""
    added = [pa.field("image", pa.binary()), pa.field("reason", pa.string())]
    return [*added, *SEARCH_COLUMNS] if source.finds_faces else added


def read_faces(source: FaceSource, listing: pa.Table, block_rows: int) -> Dataset:
    """Stream the listed samples as decoded, cropped, re-encoded images.

    Args:
        source: where the samples are.
        listing: schema ``records.LISTING`` plus ``split``.
        block_rows: samples read by one task, about.

    Returns:
        Dataset with ``sample_id, identity, split, location, image, reason``: ``image`` holds a
        PNG file, or is empty where ``reason`` says why the file was rejected. Where the source
        finds faces, those of :data:`SEARCH_COLUMNS` as well.
    """

    def load(block: pa.Table) -> pa.Table:
        read_face = source.open()
        rows: list[dict[str, Any]] = []
        for content in source.read(block["location"].to_pylist()):
            try:
                face = read_face(content)
            except InvalidImageError as error:
                rows.append({"image": b"", "reason": str(error)})
                continue
            row = {"image": encode_image(face.image), "reason": ""}
            if face.search is not None:
                row |= {name: getattr(face.search, name) for name in SEARCH_COLUMNS.names}
            rows.append(row)
        table = block.select(["sample_id", "identity", "split", "location"])
        for column in _columns(source):
            values = pa.array([row.get(column.name) for row in rows], column.type)
            table = table.append_column(column.name, values)
        return table

    cluster.start()
    stream = ray.data.from_arrow(source.reading_blocks(listing, block_rows))
    return stream.map_batches(load, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS)


def map_rows(
    source: FaceSource,
    listing: pa.Table,
    load: Callable[[pa.Table], dict[str, Any]],
    block_rows: int,
) -> list[dict[str, Any]]:
    """Rows of arrays that tasks make of a listing's blocks, in order of sample id.

    Args:
        source: of the listing.
        listing: schema ``records.LISTING``.
        load: columns of a block of about ``block_rows`` rows, ``sample_id`` among them.
    """
    cluster.start()
    stream = ray.data.from_arrow(source.reading_blocks(listing, block_rows)).map_batches(
        load, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    return sorted(stream.iter_rows(), key=lambda row: str(row["sample_id"]))


def load_images(
    source: FaceSource, listing: pa.Table, block_rows: int = 256
) -> tuple[Images, list[str]]:
    """Decode the listed images into memory, in order of sample id; bad files are left out.

    Args:
        listing: schema ``records.LISTING``.

    Returns:
        Images (N, size, size, 3) and their identities.

    Raises:
        BadInputError: none of the files is a usable image.
    """
    listing = listing.append_column("split", pa.repeat("", listing.num_rows))
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
        folder: gets a table of schema ``records.FACES``, with :data:`SEARCH_COLUMNS` where the
            source finds faces.

    Raises:
        BadInputError: the listing is empty.
    """
    if not listing.num_rows:
        raise BadInputError(f"{source.name}: no images of people to evaluate or to learn from")
    schema = pa.schema([*FACES, *SEARCH_COLUMNS]) if source.finds_faces else FACES
    write_records(read_faces(source, listing, engine.rows_of(source.size)), folder, schema)
