"""Three ways of anonymizing the same images: a user's script, the same in batches, and ours.

Each takes images, finds their edges, anonymizes them and writes PNG files, as an audit does.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from PIL import Image

from on_gpu.architecture import CONTROL

Images = npt.NDArray[np.uint8]
Side = Callable[[Images, Path], None]
"""Anonymizes images (N, side, side, 3) into PNG files of a folder."""

PROMPT, GUIDANCE = "a photo of a face", 7.5
SPEED = {"compile": True, "channels_last": True}
"""Settings of ours that are switched on where ``Diffusion`` has them."""
FIXED = {"model", "controls", "prompt", "guidance_scale", "steps", "device"}
"""Settings of ours that are those of the others."""
THREADS = 4
"""That find edges and write files beside the device."""


class Task(NamedTuple):
    """What all sides do alike.

    Attributes:
        folder: of the saved pipeline.
        device: of torch.
        dtype: of weights and arithmetic, for example ``float16``.
        steps: of denoising.
        batch: images drawn at once, but by the user's script.
    """

    folder: Path
    device: str
    dtype: str
    steps: int
    batch: int


def sample_images(count: int, side: int) -> Images:
    """Patches of random colours, so that there are edges; uint8 (count, side, side, 3)."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    nearest = cv2.INTER_NEAREST
    return np.stack([cv2.resize(image, (side, side), interpolation=nearest) for image in coarse])


def beside(image: npt.NDArray[np.uint8], written: Path, times: int = 5) -> float:
    """Seconds of one thread for one image's work off the device: its edges and its PNG file."""
    drawn = Image.open(written).convert("RGB")
    started = time.perf_counter()
    for _ in range(times):
        _edges(image)
        drawn.save(written)
    return (time.perf_counter() - started) / times


def script(task: Task) -> Side:
    """What a user would write with diffusers: one image a call."""
    return _with_diffusers(task._replace(batch=1))


def batched(task: Task) -> Side:
    """The same script with several images a call."""
    return _with_diffusers(task)


def _with_diffusers(task: Task) -> Side:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    dtype = getattr(torch, task.dtype)
    controlnet = ControlNetModel.from_pretrained(task.folder / f"controlnet-{CONTROL}", dtype=dtype)
    pipe: Any = StableDiffusionControlNetPipeline.from_pretrained(
        task.folder, controlnet=controlnet, dtype=dtype, safety_checker=None
    ).to(task.device)
    pipe.set_progress_bar_config(disable=True)

    def run(images: Images, out: Path) -> None:
        for start in range(0, len(images), task.batch):
            part = images[start : start + task.batch]
            edges = [Image.fromarray(np.repeat(_edges(image)[..., None], 3, 2)) for image in part]
            output = pipe(
                [PROMPT] * len(part),
                image=edges,
                num_inference_steps=task.steps,
                guidance_scale=GUIDANCE,
            )
            for number, image in enumerate(output.images, start):
                image.save(out / f"{number}.png")

    return run


def ours(task: Task, options: dict[str, Any]) -> Side:
    """What an audit does with a block, in its own tasks and actor, as threads instead of on Ray.

    Threads prepare blocks ahead of the actor (decode PNG files, find edges) and encode behind it.
    The actor works on as many calls at once as on a GPU of a cluster.

    Args:
        options: fields of ``Diffusion`` beside those of the task.
    """
    from cldmray.anonymizers.diffusion import Control, Diffusion
    from cldmray.conditions import Canny
    from cldmray.engine.map_stages.anonymize import (
        GPU_CALLS,
        ActorInputs,
        AnonymizerActor,
        audited_images,
    )
    from cldmray.faces.records import EVALUATION, FACES, encode_images

    anonymizer = Diffusion(
        model=str(task.folder),
        controls={CONTROL: Control(Canny(), f"controlnet-{CONTROL}")},
        prompt=PROMPT,
        guidance_scale=GUIDANCE,
        num_inference_steps=task.steps,
        device=task.device,
        **({"dtype": task.dtype} | options),
    )
    prepare = ActorInputs(anonymizer, {EVALUATION: 1}, 0)
    actor = AnonymizerActor(anonymizer, task.batch, THREADS, float(task.device.startswith("cuda")))
    actor.ensure_opened()

    def write(drawn: "Future[pa.Table]", out: Path) -> None:
        block = drawn.result()
        contents = encode_images(audited_images(block))
        for name, content in zip(block["sample_id"].to_pylist(), contents, strict=True):
            (out / f"{name}.png").write_bytes(content.as_py())

    def run(images: Images, out: Path) -> None:
        count = len(images)
        columns = [
            [str(number) for number in range(count)],
            ["person"] * count,
            [EVALUATION] * count,
            encode_images(images),
        ]
        faces = pa.Table.from_arrays([pa.array(column) for column in columns], schema=FACES)
        with ThreadPoolExecutor(THREADS) as pool, ThreadPoolExecutor(GPU_CALLS) as callers:
            prepared = [
                pool.submit(prepare, faces.slice(start, task.batch))
                for start in range(0, count, task.batch)
            ]
            drawn = [callers.submit(lambda block: actor(block.result()), p) for p in prepared]
            for future in [pool.submit(write, each, out) for each in drawn]:
                future.result()

    return run


def _edges(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    edges: npt.NDArray[np.uint8] = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 80, 160)
    return edges


def speed_options(given: Sequence[str]) -> dict[str, Any]:
    """Fields of ``Diffusion`` from ``NAME=VALUE`` (JSON, else text), over those of ``SPEED``.

    Raises:
        SystemExit: there is no such field, or no ``=``.
    """
    from cldmray.anonymizers.diffusion import Diffusion

    fields = {field.name for field in dataclasses.fields(Diffusion)} - FIXED
    options: dict[str, Any] = {name: value for name, value in SPEED.items() if name in fields}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or name not in fields:
            raise SystemExit(
                f"--ours {item}: not NAME=VALUE with one of {', '.join(sorted(fields))}"
            )
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text
    return options
