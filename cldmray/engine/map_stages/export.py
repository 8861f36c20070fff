"""Writes anonymized images as files, for people and tools that read no tables."""

import posixpath
from collections.abc import Mapping

import pyarrow as pa

from cldmray import hashing, storage
from cldmray.engine.artifacts import Artifact
from cldmray.engine.cluster import TASK_CPUS, EngineConfig

MANIFEST = pa.schema(
    [
        pa.field("original", pa.string(), nullable=False),
        pa.field("anonymized", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)
"""One row a file: paths of the original below its source's root and of the anonymized image below
the folder of its anonymizer."""
COLUMNS = ["sample_id", "identity", "split", "sample", "seed", "image"]


def file_name(source: str, row: Mapping[str, str], location: str) -> str:
    """Path without extension of a sample's file: as the original's, so that it is found again.

    The sample id stands where the original's path is no name, as of a row of a Parquet file, or
    would leave the folder.

    Args:
        source: name of the source.
        row: ``sample_id`` and ``identity``.
        location: of the original below its source's root.

    >>> row = {"sample_id": hashing.sample_id("mine", "Ada/7"), "identity": "Ada"}
    >>> file_name("mine", row, "Ada/7.jpg"), file_name("mine", row, "part.parquet#7")
    ('Ada/7', '9b04564c8e2048a0')
    """
    identity, sample_id = row["identity"], row["sample_id"]
    for name in (location, f"{identity}/{posixpath.basename(location)}"):
        for candidate in (posixpath.splitext(name)[0], name):
            is_inside = posixpath.normpath(candidate) == candidate and ".." not in candidate
            is_own = hashing.sample_id(source, candidate) == sample_id
            if is_own and is_inside and not candidate.startswith("/"):
                return candidate
    return sample_id


def export_images(
    anonymized: Artifact,
    locations: Mapping[str, str],
    source: str,
    engine: EngineConfig,
    folder: str,
) -> pa.Table:
    """Write all images of a table as PNG files.

    Args:
        anonymized: of one anonymizer.
        locations: of each original below its source's root, by sample id.
        source: name of the source.
        folder: gets the files; local path or URI.

    Returns:
        Schema :data:`MANIFEST`, sorted by ``original`` and ``sample``.
    """
    several = any(number > 0 for number in anonymized.read(["sample"])["sample"].to_pylist())

    def write(block: pa.Table) -> pa.Table:
        rows = []
        for row in block.to_pylist():
            location = locations[row["sample_id"]]
            ending = f"_{row['sample']}" if several else ""
            name = f"{file_name(source, row, location)}{ending}.png"
            storage.write_bytes(storage.join(folder, name), row["image"])
            kept = {key: row[key] for key in ("sample_id", "split", "sample", "seed")}
            rows.append({"original": location, "anonymized": name, **kept})
        return pa.Table.from_pylist(rows, MANIFEST)

    stream = anonymized.stream(COLUMNS, engine.block_rows).map_batches(
        write, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    batches = stream.iter_batches(batch_size=None, batch_format="pyarrow")
    order = [("original", "ascending"), ("sample", "ascending")]
    return pa.concat_tables([MANIFEST.empty_table(), *batches]).sort_by(order)
