"""Ray Train + Accelerate loops that fit the small CLDM: the autoencoder, then the denoiser."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ray
import torch
from accelerate import Accelerator
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from cldmray import hashing
from cldmray.anonymizers import cldm
from cldmray.conditions.base import Condition
from cldmray.engine.phases import STATE_FILE, CldmTraining, run_phase
from cldmray.errors import CldmrayError
from cldmray.faces.records import Pictures
from cldmray.torch_layout import channels_last


def picture_variants(pictures: Pictures, variants: int, seed: int) -> Pictures:
    """Each picture ``variants`` times: itself, mirrored, then shifted and scaled a little."""
    versions = [pictures, pictures[:, :, ::-1]]
    random = np.random.default_rng(seed)
    centre = ((pictures.shape[2] - 1) / 2, (pictures.shape[1] - 1) / 2)
    for extra in range(2, variants):
        moved = np.empty_like(pictures)
        for i, picture in enumerate(pictures):
            matrix = cv2.getRotationMatrix2D(
                centre, random.uniform(-6, 6), random.uniform(0.97, 1.12)
            )
            matrix[:, 2] = matrix[:, 2] + random.uniform(-2.5, 2.5, 2)
            source = picture if extra % 2 == 0 else np.ascontiguousarray(picture[:, ::-1])
            moved[i] = cv2.warpAffine(
                source, matrix, picture.shape[1::-1], flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            )  # fmt: skip
        versions.append(moved)
    return np.concatenate(versions[:variants])


def to_unit_range(pictures: Pictures) -> Tensor:
    """uint8 (N, h, w, 3) to float32 (N, 3, h, w) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _accelerator(training: CldmTraining) -> Accelerator:
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    return Accelerator(mixed_precision=training.precision, cpu=not training.use_gpu)


def autoencoder_loop(config: dict[str, Any]) -> None:
    """Ray Train worker function of the first phase."""
    training: CldmTraining = config["training"]
    accelerator = _accelerator(training)
    architecture: cldm.CldmArchitecture = config["architecture"]
    model = cldm.Reconstruction(cldm.build_autoencoder(architecture))
    channels_last(model)
    pictures: Pictures = ray.get(config["pictures"])
    side = architecture.size // 8
    shape = (architecture.latent_channels, side, side)

    def loss_of(wrapped: torch.nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        batch = to_unit_range(pictures[index.numpy()]).to(accelerator.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        noise = torch.randn((len(batch), *shape), generator=generator).to(batch.device)
        with accelerator.autocast():
            output, divergence = wrapped(batch, noise)
        loss: Tensor = cldm.autoencoder_loss(output.float(), batch) + 1e-4 * divergence
        return loss

    run_phase(training.autoencoder, training, accelerator, model, len(pictures), loss_of)


@torch.no_grad()
def encode_all(autoencoder: Any, pictures: Pictures, accelerator: Accelerator) -> Tensor:
    """Posterior means of all pictures: float32, shape (N, channels, h, w)."""
    autoencoder.to(accelerator.device).eval()

    def chunks() -> Iterator[Tensor]:
        for start in range(0, len(pictures), 128):
            batch = to_unit_range(pictures[start : start + 128]).to(accelerator.device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            with accelerator.autocast():
                yield autoencoder.encode(batch).latent_dist.mean.float().cpu()

    return torch.cat(list(chunks()))


def diffusion_loop(config: dict[str, Any]) -> None:
    """Ray Train worker function of the second phase."""
    training: CldmTraining = config["training"]
    accelerator = _accelerator(training)
    autoencoder = cldm.build_autoencoder(config["architecture"])
    autoencoder.load_state_dict(config["autoencoder"])
    channels_last(autoencoder)
    pictures: Pictures = ray.get(config["pictures"])
    latents = encode_all(autoencoder, pictures, accelerator)
    condition: Condition = config["condition"]
    maps = torch.from_numpy(condition(pictures)[..., 0].copy())
    torch.manual_seed(training.seed)
    unet = cldm.build_unet(config["architecture"])
    model = cldm.ConditionedDenoiser(unet, cldm.build_controlnet(unet, config["architecture"]))
    channels_last(model)
    scheduler = cldm.build_scheduler()
    prompt: Tensor = config["prompt"].to(accelerator.device)

    def loss_of(wrapped: torch.nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        clean = latents[index]
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, len(scheduler.betas), (len(clean),), generator=generator)
        keep = (torch.rand(len(clean), generator=generator) >= training.condition_dropout).float()
        noisy = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        control = maps[index].float()[:, None].expand(-1, 3, -1, -1) / 255
        inputs = [x.to(accelerator.device) for x in (noisy, times, control, keep, target)]
        with accelerator.autocast():
            output = wrapped(inputs[0], inputs[1], prompt, inputs[2], inputs[3])
        loss: Tensor = (output.float() - inputs[4]).pow(2).mean()
        return loss

    run_phase(training.diffusion, training, accelerator, model, len(pictures), loss_of)


def fit(loop: Callable[..., None], name: str, training: CldmTraining, **config: Any) -> Any:
    """Run one phase on the cluster and return the final weights of its last checkpoint."""
    trainer = TorchTrainer(
        loop,
        train_loop_config={"training": training, **config},
        scaling_config=ScalingConfig(
            num_workers=training.workers,
            use_gpu=training.use_gpu,
            resources_per_worker=None if training.use_gpu else {"CPU": 0.5},
        ),
        run_config=RunConfig(
            name=f"{training.name}-{name}",
            storage_path=str(Path(training.storage).expanduser().absolute()),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    checkpoint = trainer.fit().checkpoint
    if checkpoint is None:
        raise CldmrayError(f"training of {name} ended without a checkpoint")
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, STATE_FILE), map_location="cpu", weights_only=True)
    return state["final"]


def train_cldm(
    pictures: Pictures,
    condition: Condition,
    training: CldmTraining,
    architecture: cldm.CldmArchitecture,
) -> dict[str, Any]:
    """Fit autoencoder, UNet and one ControlNet.

    A phase that ``training.storage`` holds, finished or not, with the same pictures and settings is
    resumed; its folder's name ends with a hash of what decides its weights.

    Args:
        pictures: background people only, uint8 (N, size, size, 3).

    Returns:
        The parts that :func:`cldmray.anonymizers.cldm.save_controlnet_pipeline` saves.
    """
    torch.manual_seed(training.seed)
    tokenizer = cldm.build_tokenizer(architecture)
    text_encoder = cldm.build_text_encoder(architecture, tokenizer)
    reference = ray.put(picture_variants(pictures, training.variants, training.seed))
    shared = {"architecture": architecture, "pictures": reference}
    decisive: dict[str, Any] = {
        "pictures": hashlib.sha256(pictures.tobytes()).hexdigest(),
        "architecture": hashing.describe(architecture),
        "phase": hashing.describe(training.autoencoder),
        "seed": [training.seed, training.variants, training.precision, training.workers],
    }
    first = f"autoencoder-{hashing.fingerprint(decisive)}"
    weights = fit(autoencoder_loop, first, training, **shared)
    reconstruction = cldm.Reconstruction(cldm.build_autoencoder(architecture))
    reconstruction.load_state_dict(weights)
    autoencoder = reconstruction.autoencoder
    sample = to_unit_range(pictures[:2048])
    with torch.no_grad():
        latents = [autoencoder.encode(part).latent_dist.mean for part in sample.split(128)]
    cldm.normalise_latents(autoencoder, torch.cat(latents))
    decisive = {
        "autoencoder": first,
        "phase": hashing.describe(training.diffusion),
        "condition": hashing.describe(condition),
        "dropout": training.condition_dropout,
    }
    weights = fit(
        diffusion_loop,
        f"diffusion-{hashing.fingerprint(decisive)}",
        training,
        **shared,
        autoencoder=autoencoder.state_dict(),
        condition=condition,
        prompt=cldm.encode_prompt(cldm.PROMPT, tokenizer, text_encoder),
    )
    unet = cldm.build_unet(architecture)
    model = cldm.ConditionedDenoiser(unet, cldm.build_controlnet(unet, architecture))
    model.load_state_dict(weights)
    return {
        "vae": autoencoder,
        "unet": model.unet,
        "scheduler": cldm.build_scheduler(),
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "controlnets": {condition.name: model.controlnet},
    }
