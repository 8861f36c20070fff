"""A driver that anonymizes images by two actors with half a GPU each; the GPU is only pretended."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch
from cldmray.arrays import Images
from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.anonymize import anonymize
from cldmray.faces.records import decode_images, encode_images

COUNT = 70


def anonymizer() -> Anonymizer:
    """Its images tell the number of the GPU and of the process, and how much of the GPU it has.

    The class is made here, so that it travels to the workers by value.
    """

    @dataclass(frozen=True)
    class Telling(Anonymizer):
        @property
        def name(self) -> str:
            return "telling"

        @property
        def uses_gpu(self) -> bool:
            return True

        def open(self) -> AnonymizeFunction:
            import os

            (gpu,) = ray.get_gpu_ids()
            share = ray.get_runtime_context().get_assigned_resources()["GPU"]
            process = os.getpid()

            def anonymize(batch: Batch) -> Images:
                images = np.zeros_like(batch.images)
                images[:, 0, 0] = batch.images[:, 0, 0]
                images[:, 0, 1] = (int(gpu), int(100 * share), process % 256)
                return images

            return anonymize

    return Telling()


def main(temporary: str) -> None:
    options: dict[str, Any] = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 150 * 2**20}
    options |= {"include_dashboard": False, "log_to_driver": False, "_temp_dir": temporary}
    ray.init(address="local", **options)
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    faces = pa.table(
        {
            "sample_id": [f"{row:016x}" for row in range(COUNT)],
            "identity": [str(row) for row in range(COUNT)],
            "split": ["evaluation"] * COUNT,
            "image": encode_images(images),
        }
    )
    stream = ray.data.from_arrow([faces.slice(row, 10) for row in range(0, COUNT, 10)])
    engine = EngineConfig(actors=2, cpus_per_actor=0.25, gpus_per_actor=0.5, batch_size=None)
    folder = f"{temporary}/anonymized"
    anonymize(stream, anonymizer(), {"evaluation": 1}, 0, engine, folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    rows = Artifact(folder, manifest, "").read().to_pylist()
    ids = [int(row["sample_id"], 16) for row in rows]
    drawn = decode_images([row["image"] for row in rows])
    ray.shutdown()
    print(
        json.dumps(
            {
                "ids": sorted(ids),
                "same": bool((drawn[:, 0, 0] == images[ids, 0, 0]).all()),
                "gpus": sorted(set(drawn[:, 0, 1, 0].tolist())),
                "shares": sorted(set(drawn[:, 0, 1, 1].tolist())),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
