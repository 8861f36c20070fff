"""What a model makes of the subjects under each condition."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion, model_folder
from cldmray.anonymizers.diffusion.inference import PipelineRunner, unit_range
from cldmray.arrays import Images
from cldmray.conditions import Canny, Depth, SoftEdge
from cldmray.conditions.base import Condition
from cldmray.hashing import image_seed
from quality.subjects import Subjects

BATCH = 64
BLUR_SIGMA = 4.0


class Gallery:
    """Maps and images by name, each uint8 of the subjects' shape.

    Attributes:
        maps: ``canny`` and, where the model has their ControlNets, ``soft_edge`` and ``depth``.
        images: the same names for what is drawn from these maps; ``canny_off`` (Canny at scale
            0), ``none`` (no ControlNet), ``round_trip`` (through the autoencoder) and ``blurred``.
    """

    def __init__(self, model: Diffusion, subjects: Subjects) -> None:
        self.maps: dict[str, Images] = {}
        self.images: dict[str, Images] = {}
        for name, condition in conditions(model).items():
            self.maps[name] = condition(subjects.given)
            control = Control(condition, f"controlnet-{name}")
            settings = replace(model, controls={name: control})
            self.images[name] = draw(settings, subjects, {name: self.maps[name]})
        off = Control(Canny(), "controlnet-canny", controlnet_conditioning_scale=0.0)
        settings = replace(model, controls={"canny": off})
        self.images["canny_off"] = draw(settings, subjects, {"canny": self.maps["canny"]})
        self.images["none"] = draw(model, subjects, {})
        self.images["round_trip"] = round_trip(model, subjects.given)
        self.images["blurred"] = np.stack(
            [cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA) for image in subjects.given]
        )


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


def draw(settings: Diffusion, subjects: Subjects, maps: dict[str, Images]) -> Images:
    """The subjects anonymized, each from the seed of its sample id, in batches."""
    anonymize = settings.open()
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
