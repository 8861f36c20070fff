"""Images per second of the anonymization stage, beside two peers measured in the same run.

    python benchmarks/anonymize.py [--images 2000] [--naive 60]

- *bare loop*: plain processes, as many and with as many threads as the stage has actors, each
  running diffusers on batches of the same size; condition maps and PNG encoding included.
- *naive script*: what a user would write: one image a call, the prompt encoded each time, with
  all the threads.

Both the stage and the bare loop are timed whole: start of the workers, loading, drawing, writing.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ACTORS, THREADS, BATCH = 2, 1, 64
SIDE = 128


def anonymizer() -> Any:
    """The embedded model on Canny edges, as in conf/anonymizers/cldm_canny.yaml."""
    from cldmray.anonymizers.diffusion import Control, Diffusion
    from cldmray.conditions import Canny

    return Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")})


def bare_process(images: np.ndarray, seeds: np.ndarray, out: str) -> None:
    """One process of the bare loop: its own pipeline, batches, PNG files in one folder."""
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
    from PIL import Image

    from cldmray.anonymizers.diffusion.model_folder import EMBEDDED, find
    from cldmray.conditions import Canny

    torch.set_num_threads(THREADS)
    folder = str(find(EMBEDDED))
    controlnet = ControlNetModel.from_pretrained(f"{folder}/controlnet-canny", dtype=torch.float32)
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=controlnet, dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        maps = torch.from_numpy(Canny()(images[part])).permute(0, 3, 1, 2).float() / 255
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[part]]
        drawn = pipeline(
            ["a photo of a face"] * len(maps), image=maps, num_inference_steps=8,
            guidance_scale=1.0, generator=generators, output_type="np", width=SIDE, height=SIDE,
        ).images  # fmt: skip
        for offset, image in enumerate((drawn * 255).round().astype(np.uint8)):
            Image.fromarray(image).save(f"{out}/{start + offset}.png", compress_level=1)


def time_bare(images: np.ndarray, seeds: np.ndarray) -> float:
    """Seconds that the bare loop takes, from the start of its processes to their end."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        processes = []
        for rank in range(ACTORS):
            os.makedirs(f"{out}/{rank}")
            shard = (images[rank::ACTORS], seeds[rank::ACTORS], f"{out}/{rank}")
            processes.append(context.Process(target=bare_process, args=shard))
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("the bare loop failed")
    return time.perf_counter() - started


def time_naive(images: np.ndarray) -> float:
    """Seconds for these images, one a call, all threads in one process, loading not counted."""
    import cv2
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
    from PIL import Image

    from cldmray.anonymizers.diffusion.model_folder import EMBEDDED, find

    torch.set_num_threads(ACTORS * THREADS)
    folder = str(find(EMBEDDED))
    controlnet = ControlNetModel.from_pretrained(f"{folder}/controlnet-canny", dtype=torch.float32)
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=controlnet, dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        for number, image in enumerate(images):
            edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 80, 160)
            control = Image.fromarray(np.repeat(edges[..., None], 3, 2))
            drawn = pipeline(
                "a photo of a face", image=control, num_inference_steps=8, guidance_scale=1.0
            )
            drawn.images[0].save(f"{out}/{number}.png")
    return time.perf_counter() - started


def main() -> None:
    """Measure and print one table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--naive", type=int, default=60)
    arguments = parser.parse_args()
    import pyarrow as pa

    from cldmray.engine.artifacts import Artifact, read_manifest
    from cldmray.engine.cluster import WORKER_ENVIRONMENT, EngineConfig, connect
    from cldmray.engine.map_stages.anonymize import anonymize, samples_per_split
    from cldmray.engine.map_stages.faces import load_faces
    from cldmray.faces import SyntheticFaces
    from cldmray.faces.records import decode_images

    os.environ.update(WORKER_ENVIRONMENT)
    engine = EngineConfig(actors=ACTORS, threads=THREADS, batch_size=BATCH, progress=False)
    connect(engine)
    cache_dir = Path(tempfile.mkdtemp())
    n_identities = -(-arguments.images // 5)
    source = SyntheticFaces(n_identities, images_per_identity=5, size=SIDE)
    listing = source.listing().slice(0, arguments.images)
    listing = listing.append_column("split", pa.array(["evaluation"] * listing.num_rows))
    load_faces(source, listing, engine, f"{cache_dir}/faces")
    manifest = read_manifest(f"{cache_dir}/faces")
    assert manifest is not None
    faces = Artifact(f"{cache_dir}/faces", manifest, "benchmark")
    images = decode_images(faces.read()["image"].to_pylist())

    started = time.perf_counter()
    anonymize(faces, anonymizer(), samples_per_split(0), 0, engine, f"{cache_dir}/anonymized")
    stage = time.perf_counter() - started
    bare = time_bare(images, np.arange(len(images)))
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        naive = pool.apply(time_naive, (images[: arguments.naive],))
    shutil.rmtree(cache_dir)

    rates = {
        "stage": len(images) / stage,
        "bare loop": len(images) / bare,
        "naive script": arguments.naive / naive,
    }
    print(f"{len(images)} images of {SIDE}x{SIDE}, 8 steps, {ACTORS} workers x {THREADS} thread(s)")
    for name, rate in rates.items():
        print(f"{name:14s} {rate:8.2f} images/s   stage is {rates['stage'] / rate:5.2f} x")
    print(json.dumps({name.replace(" ", "_"): round(rate, 3) for name, rate in rates.items()}))


if __name__ == "__main__":
    main()
