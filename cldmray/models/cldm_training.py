"""Training of the small CLDM: autoencoder, UNet and ControlNets, then the decoder once more."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
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
from cldmray.models.packing import Array, content_hash, mapped, packed
from cldmray.models.pca_initialization import initialize_from_components
from cldmray.models.phases import BatchShard, PhaseConfig, PhaseTrainable, TrainingRun, fit
from cldmray.models.sharpening import SharpeningTrainable, load_decoder
from cldmray.settings import Share, checked_dataclass


@checked_dataclass(kw_only=True)
class CldmTraining(TrainingRun):
    """Everything that decides the weights of the small CLDM.

    Attributes:
        autoencoder, diffusion, sharpening: schedules of the phases; None leaves the decoder as the
            first phase made it. A finished phase goes on where its ``max_steps`` are raised.
        arrays: local folder that keeps images, condition maps and latents for the next start; it
            holds people's faces.
        condition_dropout: fraction of the training images whose conditions are withheld.
        two_conditions_fraction: fraction of the training images on which two conditions act.
    """

    autoencoder: PhaseConfig
    diffusion: PhaseConfig
    arrays: str
    sharpening: PhaseConfig | None = None
    name: str = "cldm"
    condition_dropout: Share = 0.15
    two_conditions_fraction: Share = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if "://" in self.arrays:
            raise ValueError("arrays: must be a local folder")
        self.check_batch(self.autoencoder)
        self.check_batch(self.diffusion)
        if self.sharpening is not None:
            self.check_batch(self.sharpening)


def random_subset(images: Images, seed: int, pixels: int = 2**23) -> Images:
    """Some of the images, drawn with the seed, of at most so many pixels in all."""
    most = pixels // (images.shape[1] * images.shape[2])
    return images[np.random.default_rng(seed).permutation(len(images))[:most]]


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
        shape = (shard.batch_size, *self._architecture.latent_shape)
        noise = shard.local(torch.randn(shape, generator=shard.generator))
        batch = to_unit_range(self._images[shard.rows.numpy()]).to(self.worker.device)
        output, divergence = call(batch, noise.to(self.worker.device))
        loss: Tensor = cldm_networks.autoencoder_loss(output.float(), batch) + 1e-4 * divergence
        return loss


@torch.no_grad()
def encode_latents(autoencoder: Any, images: Images, precision: str) -> Array:
    """Posterior means of images: float32, shape (N, channels, h, w)."""
    with autocast(precision, "cpu"):
        latents: Tensor = autoencoder.encode(to_unit_range(images)).latent_dist.mean
    return latents.float().numpy()


def pack_maps(images: Images, condition: Condition, path: Path) -> Array:
    """One channel of the condition maps of all images: uint8, shape (N, h, w), a memory map."""
    compute = mapped(images, lambda chunk: condition(chunk)[..., 0])
    return packed(path, images.shape[:3], np.uint8, compute)


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
        latents: of the images, shape (N, channels, h, w).
        maps: by the conditions' names, uint8 (N, size, size) each.
        prompt: embedding, shape (1, length, width).
    """

    def __init__(
        self,
        name: str,
        training: CldmTraining,
        arch: cldm.CldmArchitecture,
        *,
        latents: Tensor,
        maps: Mapping[str, Array],
        prompt: Tensor,
    ) -> None:
        super().__init__(name, training.diffusion, training, len(latents))
        self._architecture = arch
        self._latents = latents
        self._maps = maps
        self._prompt = prompt
        self._dropout = training.condition_dropout
        self._two_conditions_fraction = training.two_conditions_fraction

    def build_network(self, worker: Worker) -> nn.Module:
        self.scheduler = cldm.build_scheduler()
        self.prompt = self._prompt.to(worker.device)
        return build_denoiser(self._architecture, self._maps)

    def mean_loss(self, shard: BatchShard, call: Call) -> Tensor:
        count, generator = shard.batch_size, shard.generator
        clean = self._latents[shard.rows]
        noise = shard.local(torch.randn((count, *clean.shape[1:]), generator=generator))
        timesteps = torch.randint(0, len(self.scheduler.betas), (count,), generator=generator)
        times = shard.local(timesteps)
        kept = shard.local(torch.rand(count, generator=generator)) >= self._dropout
        noisy = self.scheduler.add_noise(clean, noise, times)
        target = self.scheduler.get_velocity(clean, noise, times)
        acts = cldm_networks.choose_conditions(
            count, len(self._maps), self._two_conditions_fraction, generator
        )
        rows = shard.rows.numpy()
        maps = torch.from_numpy(np.stack([own[rows] for own in self._maps.values()], 1))
        # (n, conditions, h, w) in 0..255 to (n, conditions, 3, h, w) in 0..1
        control = (maps.float() / 255)[:, :, None].expand(-1, -1, 3, -1, -1)
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


class TrainedAutoencoder(NamedTuple):
    """An autoencoder with standardised latents.

    Attributes:
        network: in evaluation mode.
        latents: of the training images, shape (N, channels, h, w).
        curve: learning curve.
        key: hash of the weights, of the images and of the precision that all is computed with.
    """

    network: AutoencoderKL
    latents: Tensor
    curve: Curve
    key: str


def fit_autoencoder(
    images: Images, content: str, training: CldmTraining, architecture: cldm.CldmArchitecture
) -> TrainedAutoencoder:
    """The first phase; ``content`` is the hash of the images."""
    decisive: dict[str, Any] = {
        "images": content,
        "architecture": hashing.canonicalize(architecture),
        "phase": training.autoencoder.lasting,
        "precision": training.precision,
        "seed": training.seed,
    }
    name = f"autoencoder-{hashing.fingerprint(decisive)}"
    result = fit(AutoencoderTrainable(name, images, training, architecture), training)
    reconstruction = cldm_networks.SampledAutoencoder(cldm.build_autoencoder(architecture))
    reconstruction.load_state_dict(result.state)
    autoencoder = channels_last(reconstruction.autoencoder).eval()
    weights = hashlib.sha256(result.weights).hexdigest()
    key = hashing.fingerprint([weights, content, training.precision])
    latents = packed(
        Path(training.arrays, f"latents-{key}.npy"),
        (len(images), *architecture.latent_shape),
        np.float32,
        mapped(images, partial(encode_latents, autoencoder, precision=training.precision)),
    )
    standard = cldm.normalise_latents(autoencoder, torch.from_numpy(np.array(latents)))
    return TrainedAutoencoder(autoencoder, standard, result.curve, key)


def train_cldm(
    images: Images,
    conditions: Mapping[str, Condition],
    training: CldmTraining,
    architecture: cldm.CldmArchitecture,
) -> TrainedCldm:
    """Fit autoencoder, UNet and one ControlNet a condition, then the decoder again.

    A phase that ``training.storage`` holds, finished or not, with the same images and settings is
    resumed; its folder's name ends with a hash of what decides its weights.

    Args:
        images: what is learnt, uint8 (N, size, size, 3), augmented copies included.
        conditions: by the names that their ControlNets get.

    Raises:
        BadInputError: there are more conditions than a worker's share of a batch has images.
    """
    if len(conditions) > training.diffusion.batch_size // training.most_workers:
        raise BadInputError(
            f"training.diffusion.batch_size: {training.diffusion.batch_size} images over "
            f"{training.most_workers} workers are too few for {len(conditions)} conditions"
        )
    content = content_hash(images)
    autoencoder = fit_autoencoder(images, content, training, architecture)
    torch.manual_seed(training.seed)
    tokenizer = cldm.build_tokenizer(architecture)
    text_encoder = cldm.build_text_encoder(architecture, tokenizer)
    maps = {}
    for name, condition in conditions.items():
        key = hashing.fingerprint([content, hashing.canonicalize(condition)])
        maps[name] = pack_maps(images, condition, Path(training.arrays, f"{name}-{key}.npy"))
    decisive = {
        "autoencoder": autoencoder.key,
        "architecture": hashing.canonicalize(architecture),
        "phase": training.diffusion.lasting,
        "conditions": hashing.canonicalize(conditions),
        "dropout": [training.condition_dropout, training.two_conditions_fraction],
        "seed": training.seed,
    }
    trainable = DiffusionTrainable(
        f"diffusion-{hashing.fingerprint(decisive)}",
        training,
        architecture,
        latents=autoencoder.latents,
        maps=maps,
        prompt=cldm.encode_prompt(cldm.PROMPT, tokenizer, text_encoder),
    )
    result = fit(trainable, training)
    model = build_denoiser(architecture, conditions)
    model.load_state_dict(result.state)
    curves = {"autoencoder": autoencoder.curve, "diffusion": result.curve}
    if training.sharpening is not None:
        curves["sharpening"] = sharpen(autoencoder, images, training.sharpening, training)
    parts = {
        "vae": autoencoder.network,
        "unet": model.unet,
        "scheduler": cldm.build_scheduler(),
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "controlnets": dict(model.controlnets.items()),
    }
    return TrainedCldm(parts, curves)


def sharpen(
    autoencoder: TrainedAutoencoder, images: Images, phase: PhaseConfig, training: CldmTraining
) -> Curve:
    """The third phase, which changes the autoencoder's decoder; its learning curve."""
    trainable = SharpeningTrainable(
        f"sharpening-{hashing.fingerprint([autoencoder.key, phase.lasting, training.seed])}",
        phase,
        training,
        images=images,
        latents=autoencoder.latents,
        autoencoder=autoencoder.network,
    )
    result = fit(trainable, training)
    load_decoder(autoencoder.network, result.state)
    return result.curve
