"""What bounds large audits: the driver's CPU-seconds a block of a stage, and those of a pair.

    python benchmarks/driver.py [--blocks 250 1000] [--images 10000 20000]

All images of an audit pass through tasks, but one process lists them and hands out the blocks of
every stage. No further core makes that faster, so it bounds an audit from some size on
(``docs/scaling.md``). The search for near-duplicates is shared out, but grows with the square of
the images.

- *a block*: CPU-seconds of the driver between two numbers of blocks of one image each, in the stage
  that reads images and in one that anonymizes them by ``no_op``. Ray's own processes are not in it.
  On a busy machine it is an upper bound, since the driver also looks after the time that passes.
- *a pair*: CPU-seconds of the search for near-duplicates among random hashes, none of which are
  alike, divided by the square of their number; one thread.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from cldmray.anonymizers.baselines import NoOp
from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig, connect
from cldmray.engine.map_stages.anonymize import anonymize, samples_per_split
from cldmray.engine.map_stages.faces import load_faces
from cldmray.faces import SyntheticFaces
from cldmray.faces.near_duplicates import HASH_BYTES, SIDE, Fingerprints
from cldmray.faces.records import EVALUATION
from cldmray.gallery.near_duplicates import near_duplicates

IMAGES = 5
"""Of each person."""


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU-seconds that this process, all its threads included, takes for an action."""
    before = time.process_time()
    action()
    return time.process_time() - before


def stages(blocks: int, folder: Path) -> dict[str, float]:
    """CPU-seconds of the driver in two stages of blocks of one image each."""
    engine = EngineConfig(address="local", block_rows=1)
    source = SyntheticFaces(n_identities=-(-blocks // IMAGES), images_per_identity=IMAGES, size=16)
    listing = source.listing().slice(0, blocks)
    listing = listing.append_column("split", pa.array([EVALUATION] * blocks))
    first, second = str(folder / f"faces-{blocks}"), str(folder / f"anonymized-{blocks}")
    seconds = {"read": cpu_seconds(lambda: load_faces(source, listing, engine, first))}
    manifest = read_manifest(first)
    assert manifest is not None
    faces = Artifact(first, manifest, "faces")
    seconds["anonymize"] = cpu_seconds(
        lambda: anonymize(faces, NoOp(), samples_per_split(0), 0, engine, second)
    )
    return seconds


def search(images: int) -> float:
    """CPU-seconds of the search for near-duplicates among random hashes, in one thread."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (images, HASH_BYTES), np.uint8)
    thumbnails = np.zeros((images, SIDE, SIDE), np.uint8)
    return cpu_seconds(lambda: near_duplicates(Fingerprints(hashes, thumbnails)))


def main() -> None:
    """Measure, print a line for each figure and all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", nargs=2, type=int, default=[250, 1000])
    parser.add_argument("--images", nargs="+", type=int, default=[10_000, 20_000])
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    report: dict[str, float] = {}
    for images in arguments.images:
        seconds = search(images)
        report[f"ns a pair, {images} images"] = 1e9 * seconds / images**2
    few, many = arguments.blocks
    connect(EngineConfig(address="local"))
    with tempfile.TemporaryDirectory(prefix="driver") as folder:
        stages(10, Path(folder))  # imports, and processes that start, are in neither
        first, second = stages(few, Path(folder)), stages(many, Path(folder))
    for name in first:
        report[f"ms a block, {name}"] = 1e3 * (second[name] - first[name]) / (many - few)
    for name, value in report.items():
        print(f"{name}: {value:.2f}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
