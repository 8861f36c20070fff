"""Training of the small CLDM in two phases: the autoencoder, then UNet and ControlNets."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from cldmray import hashing
from cldmray.arrays import Images, channels_last, to_unit_range
from cldmray.attackers.nn.training import Call, Curve, Worker, autocast
from cldmray.conditions.base import Condition
from cldmray.errors import BadInputError
from cldmray.models import cldm, cldm_networks
from cldmray.models.pca_initialization import initialize_from_components
from cldmray.models.phases import BatchShard, PhaseConfig, PhaseTrainable, TrainingRun, fit
from cldmray.settings import Share, checked_dataclass


@checked_dataclass(kw_only=True)
class CldmTraining(TrainingRun):
    """Everything that decides the weights of the small CLDM.

    Attributes:
        autoencoder, diffusion: schedules of the two phases.
        condition_dropout: fraction of the training images whose conditions are withheld.
        two_conditions_fraction: fraction of the training images on which two conditions act.
    """

    autoencoder: PhaseConfig
    diffusion: PhaseConfig
    name: str = "cldm"
    condition_dropout: Share = 0.15
    two_conditions_fraction: Share = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_batch(self.autoencoder)
        self.check_batch(self.diffusion)


def random_subset(images: Images, seed: int, size: int = 2048) -> Images:
    """At most ``size`` of the images, drawn with the seed."""
    return images[np.random.default_rng(seed).permutation(len(images))[:size]]


class AutoencoderTrainable(PhaseTrainable):
    """The first phase: the autoencoder of the images."""

    def __init__(
        self, name: str, images: Images, training: CldmTraining, arch: cldm.CldmArchitecture
    ) -> None:
        super().__init__(name, training.autoencoder, training, len(images))
        self._images = images
        self._architecture = arch

    def build_network(self, worker: Worker) -> nn.Module:
        autoencoder = cldm.build_autoencoder(self._architecture)
        initialize_from_components(
            autoencoder, to_unit_range(random_subset(self._images, self.schedule.seed))
        )
        return cldm_networks.SampledAutoencoder(autoencoder)

    def mean_loss(self, shard: BatchShard, call: Call) -> Tensor:
        side = self._architecture.size // 8
        shape = (shard.batch_size, self._architecture.latent_channels, side, side)
        noise = shard.local(torch.randn(shape, generator=shard.generator))
        batch = to_unit_range(self._images[shard.rows.numpy()]).to(self.worker.device)
        output, divergence = call(batch, noise.to(self.worker.device))
        loss: Tensor = cldm_networks.autoencoder_loss(output.float(), batch) + 1e-4 * divergence
        return loss


@torch.no_grad()
def encode_latents(autoencoder: Any, images: Images, precision: str, device: str) -> Tensor:
    """Posterior means of all images: float32, shape (N, channels, h, w)."""
    autoencoder.to(device).eval()

    def chunks() -> Iterator[Tensor]:
        for start in range(0, len(images), 128):
            batch = to_unit_range(images[start : start + 128]).to(device)
            with autocast(precision, device):
                yield autoencoder.encode(batch).latent_dist.mean.float().cpu()

    return torch.cat(list(chunks()))


def extract_maps(condition: Condition, images: Images) -> Tensor:
    """One channel of the condition maps of all images: uint8, shape (N, h, w)."""
    parts = range(0, len(images), 256)
    maps = [condition(images[start : start + 256])[..., 0] for start in parts]
    return torch.from_numpy(np.concatenate(maps))


def build_denoiser(
    architecture: cldm.CldmArchitecture, conditions: Iterable[str]
) -> cldm_networks.ConditionedDenoiser:
    """Untrained UNet with one ControlNet a condition."""
    unet = cldm.build_unet(architecture)
    controlnets = {name: cldm.build_controlnet(unet, architecture) for name in conditions}
    return cldm_networks.ConditionedDenoiser(unet, controlnets)


class DiffusionTrainable(PhaseTrainable):
    """The second phase: UNet and ControlNets, on the latents of a trained autoencoder.

    Args:
        autoencoder: its weights.
        prompt: embedding, shape (1, length, width).
    """

    def __init__(
        self,
        name: str,
        images: Images,
        training: CldmTraining,
        arch: cldm.CldmArchitecture,
        *,
        autoencoder: Mapping[str, Tensor],
        conditions: Mapping[str, Condition],
        prompt: Tensor,
    ) -> None:
        super().__init__(name, training.diffusion, training, len(images))
        self._images = images
        self._architecture = arch
        self._autoencoder = autoencoder
        self._conditions = conditions
        self._prompt = prompt
        self._dropout = training.condition_dropout
        self._two_conditions_fraction = training.two_conditions_fraction

    def build_network(self, worker: Worker) -> nn.Module:
        autoencoder = cldm.build_autoencoder(self._architecture)
        autoencoder.load_state_dict(self._autoencoder)
        channels_last(autoencoder)
        images = self._images
        self.latents = encode_latents(autoencoder, images, self.schedule.precision, worker.device)
        maps = [extract_maps(condition, images) for condition in self._conditions.values()]
        self.maps = torch.stack(maps, 1)
        self.scheduler = cldm.build_scheduler()
        self.prompt = self._prompt.to(worker.device)
        torch.manual_seed(self.schedule.seed)
        return build_denoiser(self._architecture, self._conditions)

    def mean_loss(self, shard: BatchShard, call: Call) -> Tensor:
        count, generator = shard.batch_size, shard.generator
        clean = self.latents[shard.rows]
        noise = shard.local(torch.randn((count, *clean.shape[1:]), generator=generator))
        timesteps = torch.randint(0, len(self.scheduler.betas), (count,), generator=generator)
        times = shard.local(timesteps)
        kept = shard.local(torch.rand(count, generator=generator)) >= self._dropout
        noisy = self.scheduler.add_noise(clean, noise, times)
        target = self.scheduler.get_velocity(clean, noise, times)
        acts = cldm_networks.choose_conditions(
            count, len(self._conditions), self._two_conditions_fraction, generator
        )
        # (n, conditions, h, w) in 0..255 to (n, conditions, 3, h, w) in 0..1
        control = self.maps[shard.rows].float()[:, :, None].expand(-1, -1, 3, -1, -1) / 255
        inputs = (noisy, times, control, shard.local(acts), kept.float(), target)
        noisy, times, control, acts, kept, target = (x.to(self.worker.device) for x in inputs)
        output = call(noisy, times, self.prompt, control, acts, kept)
        loss: Tensor = (output.float() - target).pow(2).mean()
        return loss


class TrainedCldm(NamedTuple):
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
    result = fit(AutoencoderTrainable(name, images, training, architecture), training)
    reconstruction = cldm_networks.SampledAutoencoder(cldm.build_autoencoder(architecture))
    reconstruction.load_state_dict(result.state)
    autoencoder = reconstruction.autoencoder
    with torch.no_grad():
        parts = to_unit_range(random_subset(images, training.seed)).split(128)
        latents = [autoencoder.encode(part).latent_dist.mean for part in parts]
    cldm.normalise_latents(autoencoder, torch.cat(latents))
    return name, autoencoder, result.curve


def train_cldm(
    originals: Images,
    images: Images,
    conditions: Mapping[str, Condition],
    training: CldmTraining,
    architecture: cldm.CldmArchitecture,
) -> TrainedCldm:
    """Fit autoencoder, UNet and one ControlNet a condition.

    A phase that ``training.storage`` holds, finished or not, with the same images and settings is
    resumed; its folder's name ends with a hash of what decides its weights.

    Args:
        originals: what the autoencoder learns from, uint8 (N, size, size, 3), with their augmented
            copies.
        images: what UNet and ControlNets learn to generate, uint8 (M, size, size, 3), with their
            augmented copies.
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
        "dropout": [training.condition_dropout, training.two_conditions_fraction],
    }
    trainable = DiffusionTrainable(
        f"diffusion-{hashing.fingerprint(decisive)}",
        images,
        training,
        architecture,
        autoencoder=autoencoder.state_dict(),
        conditions=conditions,
        prompt=cldm.encode_prompt(cldm.PROMPT, tokenizer, text_encoder),
    )
    result = fit(trainable, training)
    model = build_denoiser(architecture, conditions)
    model.load_state_dict(result.state)
    parts = {
        "vae": autoencoder,
        "unet": model.unet,
        "scheduler": cldm.build_scheduler(),
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "controlnets": dict(model.controlnets.items()),
    }
    return TrainedCldm(parts, {"autoencoder": autoencoder_curve, "diffusion": result.curve})
