"""What a model makes of the subjects under each condition."""

import json
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch

from cldmray.anonymizers.base import AnonymizeFunction, Batch
from cldmray.anonymizers.diffusion import Control, Diffusion, model_folder
from cldmray.anonymizers.diffusion.inference import PipelineRunner, unit_range
from cldmray.arrays import Images
from cldmray.conditions import Canny, Depth, SoftEdge
from cldmray.conditions.base import Condition
from cldmray.config.compose import compose
from cldmray.config.instantiate import build
from cldmray.hashing import image_seed
from quality.subjects import Subjects

BATCH = 64
BLUR_SIGMA, BLURRED_AT = 4.0, 64
"""Standard deviation in pixels, of images of that side."""


class Gallery:
    """Maps and images by name, each uint8 of the subjects' shape.

    A model of another size draws from shrunk images, and its outputs are enlarged.

    Attributes:
        maps: ``canny`` and, where the model has their ControlNets, ``soft_edge`` and ``depth``, of
            the subjects' images as they are.
        images: the same names for what is drawn from such maps; ``canny_off`` (Canny at scale
            0), ``none`` (no ControlNet), ``round_trip`` (through the autoencoder) and ``blurred``.
        seconds: of one thread's time that an image drawn from its Canny map takes.
    """

    def __init__(self, model: Diffusion, subjects: Subjects) -> None:
        side = subjects.given.shape[1]
        own = subjects._replace(given=resized(subjects.given, model_size(model)))
        self.maps: dict[str, Images] = {}
        self.images: dict[str, Images] = {}
        self.seconds = 0.0
        for name, condition in conditions(model).items():
            self.maps[name] = condition(subjects.given)
            maps = {name: condition(own.given)}
            settings = replace(model, controls={name: Control(condition, f"controlnet-{name}")})
            anonymize = settings.open()
            started = time.process_time()
            self.images[name] = draw(anonymize, own, maps)
            if name == "canny":
                self.seconds = (time.process_time() - started) / len(own.given)
                off = Control(condition, f"controlnet-{name}", controlnet_conditioning_scale=0.0)
                self.images["canny_off"] = draw(
                    replace(model, controls={name: off}).open(), own, maps
                )
        self.images["none"] = draw(model.open(), own, {})
        self.images["round_trip"] = round_trip(model, own.given)
        self.images = {name: resized(images, side) for name, images in self.images.items()}
        self.images["blurred"] = np.stack(
            [
                cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA * side / BLURRED_AT)
                for image in subjects.given
            ]
        )


def configured(key: str, **changes: Any) -> Diffusion:
    """A member of the group ``anonymizers`` as audits run it, but for some settings."""
    settings = compose("audit", [f"anonymizers=[{key}]"])["anonymizers"][key]
    return build(settings | changes, Diffusion, f"anonymizers.{key}")


def model_size(model: Diffusion) -> int:
    """Side in pixels of the images that a model's folder draws."""
    folder = model_folder.find(model.model)
    if folder is None or not (folder / "vae" / "config.json").is_file():
        raise SystemExit(f"{model.model} is no local folder of diffusers")
    return int(json.loads((folder / "vae" / "config.json").read_text())["sample_size"])


def resized(images: Images, side: int) -> Images:
    """Square images of another side: averaged where they shrink, cubic where they grow."""
    if images.shape[1] == side:
        return images
    method = cv2.INTER_AREA if side < images.shape[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(image, (side, side), interpolation=method) for image in images])


def conditions(model: Diffusion) -> dict[str, Condition]:
    """The conditions whose ControlNets the model's folder has."""
    folder = model_folder.find(model.model)
    if folder is None or not (folder / "controlnet-canny").is_dir():
        raise SystemExit(f"{model.model} is no local folder with a controlnet-canny")
    conditions: dict[str, Condition] = {"canny": Canny()}
    if (folder / "controlnet-soft_edge").is_dir():
        conditions["soft_edge"] = SoftEdge()
    if (folder / "controlnet-depth").is_dir():
        conditions["depth"] = Depth()
    return conditions


def draw(anonymize: AnonymizeFunction, subjects: Subjects, maps: dict[str, Images]) -> Images:
    """The subjects anonymized, each from the seed of its sample id, in batches."""
    seeds = np.array([image_seed(sample_id, 0, 0) for sample_id in subjects.sample_ids], np.int64)
    parts = []
    for start in range(0, len(seeds), BATCH):
        part = slice(start, start + BATCH)
        own = {name: each[part] for name, each in maps.items()}
        parts.append(
            anonymize(Batch(subjects.sample_ids[part], subjects.given[part], seeds[part], own))
        )
    return np.concatenate(parts)


@torch.inference_mode()
def round_trip(model: Diffusion, images: Images) -> Images:
    """Images encoded and decoded again by the model's autoencoder, without noise."""
    vae = PipelineRunner(model).pipe.vae
    parts = []
    for start in range(0, len(images), BATCH):
        pixels = unit_range(images[start : start + BATCH]).to(vae.device, vae.dtype) * 2 - 1
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        unit = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        parts.append(np.rint(unit * 255).astype(np.uint8))
    return np.concatenate(parts)
