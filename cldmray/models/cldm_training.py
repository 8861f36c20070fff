"""Ray Train + Accelerate loops that fit the small CLDM: the autoencoder, then the denoiser."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor

from cldmray import hashing
from cldmray.arrays import Images, channels_last, to_unit_range
from cldmray.conditions.base import Condition
from cldmray.errors import BadInputError
from cldmray.models import cldm, cldm_modules
from cldmray.models.cldm_modules import start_as_components
from cldmray.models.phases import (
    Curve,
    PhaseConfig,
    Share,
    TrainingRun,
    fit,
    open_accelerator,
    run_phase,
)


@dataclass(frozen=True, kw_only=True)
class CldmTraining(TrainingRun):
    """Everything that decides the weights of the small CLDM.

    Attributes:
        autoencoder, diffusion: schedules of the two phases.
        condition_dropout: share of training images whose conditions are withheld.
        together: share of training images on which two conditions act at once.
    """

    autoencoder: PhaseConfig
    diffusion: PhaseConfig
    name: str = "cldm"
    condition_dropout: float = 0.15
    together: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_shares("condition_dropout", "together")
        self.check_batch(self.autoencoder)
        self.check_batch(self.diffusion)


def some(images: Images, seed: int, most: int = 2048) -> Images:
    """At most ``most`` of the images, drawn with the seed."""
    return images[np.random.default_rng(seed).permutation(len(images))[:most]]


def autoencoder_loop(config: dict[str, Any]) -> None:
    """Ray Train worker function of the first phase."""
    training: CldmTraining = config["training"]
    accelerator = open_accelerator(training)
    architecture: cldm.CldmArchitecture = config["architecture"]
    images: Images = ray.get(config["images"])
    autoencoder = cldm.build_autoencoder(architecture)
    start_as_components(autoencoder, to_unit_range(some(images, training.seed)))
    model = channels_last(cldm_modules.RoundTrip(autoencoder))
    side = architecture.size // 8
    shape = (architecture.latent_channels, side, side)

    def loss_of(wrapped: torch.nn.Module, share: Share) -> Tensor:
        batch = to_unit_range(images[share.index.numpy()]).to(accelerator.device)
        drawn = torch.randn((share.batch, *shape), generator=share.generator)
        noise = share.own(drawn).to(batch.device)
        with accelerator.autocast():
            output, divergence = wrapped(batch, noise)
        loss: Tensor = cldm_modules.autoencoder_loss(output.float(), batch) + 1e-4 * divergence
        return loss

    run_phase(training.autoencoder, training, accelerator, model, len(images), loss_of)


@torch.no_grad()
def encode_all(autoencoder: Any, images: Images, accelerator: Accelerator) -> Tensor:
    """Posterior means of all images: float32, shape (N, channels, h, w)."""
    autoencoder.to(accelerator.device).eval()

    def chunks() -> Iterator[Tensor]:
        for start in range(0, len(images), 128):
            batch = to_unit_range(images[start : start + 128]).to(accelerator.device)
            with accelerator.autocast():
                yield autoencoder.encode(batch).latent_dist.mean.float().cpu()

    return torch.cat(list(chunks()))


def extract_all(condition: Condition, images: Images) -> Tensor:
    """One channel of the condition maps of all images: uint8, shape (N, h, w)."""
    parts = range(0, len(images), 256)
    maps = [condition(images[start : start + 256])[..., 0] for start in parts]
    return torch.from_numpy(np.concatenate(maps))


def build_denoiser(
    architecture: cldm.CldmArchitecture, conditions: Iterable[str]
) -> cldm_modules.ConditionedDenoiser:
    """Untrained UNet with one ControlNet a condition."""
    unet = cldm.build_unet(architecture)
    controlnets = {name: cldm.build_controlnet(unet, architecture) for name in conditions}
    return cldm_modules.ConditionedDenoiser(unet, controlnets)


def diffusion_loop(config: dict[str, Any]) -> None:
    """Ray Train worker function of the second phase."""
    training: CldmTraining = config["training"]
    accelerator = open_accelerator(training)
    autoencoder = cldm.build_autoencoder(config["architecture"])
    autoencoder.load_state_dict(config["autoencoder"])
    channels_last(autoencoder)
    images: Images = ray.get(config["images"])
    latents = encode_all(autoencoder, images, accelerator)
    conditions: Mapping[str, Condition] = config["conditions"]
    maps = torch.stack([extract_all(one, images) for one in conditions.values()], 1)
    torch.manual_seed(training.seed)
    model = build_denoiser(config["architecture"], conditions)
    channels_last(model)
    scheduler = cldm.build_scheduler()
    prompt: Tensor = config["prompt"].to(accelerator.device)

    def loss_of(wrapped: torch.nn.Module, share: Share) -> Tensor:
        count, generator = share.batch, share.generator
        clean = latents[share.index]
        noise = share.own(torch.randn((count, *clean.shape[1:]), generator=generator))
        times = share.own(torch.randint(0, len(scheduler.betas), (count,), generator=generator))
        kept = share.own(torch.rand(count, generator=generator)) >= training.condition_dropout
        noisy = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        chosen = cldm_modules.choose_conditions(
            count, len(conditions), training.together, generator
        )
        control = maps[share.index].float()[:, :, None].expand(-1, -1, 3, -1, -1) / 255
        given = (control, share.own(chosen), kept.float())
        inputs = [x.to(accelerator.device) for x in given]
        noisy, times, target = (x.to(accelerator.device) for x in (noisy, times, target))
        with accelerator.autocast():
            output = wrapped(noisy, times, prompt, *inputs)
        loss: Tensor = (output.float() - target).pow(2).mean()
        return loss

    run_phase(training.diffusion, training, accelerator, model, len(images), loss_of)


class Trained(NamedTuple):
    """What :func:`cldmray.models.cldm.save_controlnet_pipeline` saves, and how it was learnt.

    ``curves`` has one learning curve a phase.
    """

    parts: dict[str, Any]
    curves: dict[str, Curve]


def fit_autoencoder(
    images: Images, training: CldmTraining, architecture: cldm.CldmArchitecture
) -> tuple[str, AutoencoderKL, Curve]:
    """The first phase: its name, the autoencoder with standardised latents, its curve."""
    decisive: dict[str, Any] = {
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "architecture": hashing.canonicalize(architecture),
        "phase": hashing.canonicalize(training.autoencoder),
        "seed": [training.seed, training.precision],
    }
    name = f"autoencoder-{hashing.fingerprint(decisive)}"
    weights, curve = fit(
        autoencoder_loop, name, training, architecture=architecture, images=ray.put(images)
    )
    reconstruction = cldm_modules.RoundTrip(cldm.build_autoencoder(architecture))
    reconstruction.load_state_dict(weights)
    autoencoder = reconstruction.autoencoder
    with torch.no_grad():
        parts = to_unit_range(some(images, training.seed)).split(128)
        latents = [autoencoder.encode(part).latent_dist.mean for part in parts]
    cldm.normalise_latents(autoencoder, torch.cat(latents))
    return name, autoencoder, curve


def train_cldm(
    originals: Images,
    images: Images,
    conditions: Mapping[str, Condition],
    training: CldmTraining,
    architecture: cldm.CldmArchitecture,
) -> Trained:
    """Fit autoencoder, UNet and one ControlNet a condition.

    A phase that ``training.storage`` holds, finished or not, with the same images and settings is
    resumed; its folder's name ends with a hash of what decides its weights.

    Args:
        images: what the autoencoder learns from, uint8 (N, size, size, 3), variants included.
        images: what is learnt to be drawn, uint8 (M, size, size, 3), variants included.
        conditions: by the names that their ControlNets get.

    Raises:
        BadInputError: there are more conditions than a worker's share of a batch has images.
    """
    if len(conditions) > training.diffusion.batch_size // training.most_workers:
        raise BadInputError(
            f"training.diffusion.batch_size: {training.diffusion.batch_size} images over "
            f"{training.most_workers} workers are too few for {len(conditions)} conditions"
        )
    name, autoencoder, autoencoder_curve = fit_autoencoder(originals, training, architecture)
    torch.manual_seed(training.seed)
    tokenizer = cldm.build_tokenizer(architecture)
    text_encoder = cldm.build_text_encoder(architecture, tokenizer)
    decisive = {
        "autoencoder": name,
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "phase": hashing.canonicalize(training.diffusion),
        "conditions": hashing.canonicalize(conditions),
        "dropout": [training.condition_dropout, training.together],
    }
    weights, diffusion_curve = fit(
        diffusion_loop,
        f"diffusion-{hashing.fingerprint(decisive)}",
        training,
        architecture=architecture,
        images=ray.put(images),
        autoencoder=autoencoder.state_dict(),
        conditions=conditions,
        prompt=cldm.encode_prompt(cldm.PROMPT, tokenizer, text_encoder),
    )
    model = build_denoiser(architecture, conditions)
    model.load_state_dict(weights)
    parts = {
        "vae": autoencoder,
        "unet": model.unet,
        "scheduler": cldm.build_scheduler(),
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "controlnets": dict(model.controlnets.items()),
    }
    return Trained(parts, {"autoencoder": autoencoder_curve, "diffusion": diffusion_curve})
