"""Ray Train + Accelerate loops that fit the small CLDM: the autoencoder, then the denoiser."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import ray
import ray.train
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from cldmray.anonymizers import cldm
from cldmray.conditions.base import Condition
from cldmray.errors import CldmrayError
from cldmray.faces.records import Pictures
from cldmray.torch_layout import channels_last

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class PhaseConfig:
    """Schedule of one training phase.

    Attributes:
        steps: optimiser steps.
        batch: pictures a step, over all workers.
        learning_rate: its peak; linear warm-up, constant, then a cosine to 1 % of it.
        warmup: steps of the warm-up.
        decay_from: share of the steps after which the cosine starts.
        ema: decay of the averaged weights that are kept in the end; 0 keeps the last ones.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 50
    decay_from: float = 0.4
    ema: float = 0.0


@dataclass(frozen=True)
class CldmTraining:
    """Everything that decides the weights.

    Attributes:
        autoencoder, diffusion: schedules of the two phases.
        condition_dropout: share of training pictures whose condition is withheld.
        variants: versions of each photo: 1 itself, 2 mirrored, further ones shifted and scaled.
        precision: ``bf16``, ``fp16`` or ``no`` (Accelerate's mixed precision).
        checkpoint_every: steps between two checkpoints (and two lines of progress).
        workers, use_gpu, threads: size of the worker group.
        storage: folder of Ray Train's checkpoints; a run of the same ``name`` there is resumed.
    """

    autoencoder: PhaseConfig
    diffusion: PhaseConfig
    storage: str
    name: str = "cldm"
    seed: int = 0
    condition_dropout: float = 0.15
    variants: int = 4
    precision: str = "bf16"
    checkpoint_every: int = 250
    workers: int = 1
    use_gpu: bool = False
    threads: int = 2


def learning_rate(phase: PhaseConfig, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    rate = phase.learning_rate * min(1.0, (step + 1) / phase.warmup)
    late = (step / phase.steps - phase.decay_from) / (1 - phase.decay_from)
    if late > 0:
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * late))
    return rate


def local_batch(
    size: int, phase: PhaseConfig, seed: int, step: int, rank: int, workers: int
) -> tuple[npt.NDArray[np.int64], torch.Generator]:
    """Indices of this worker's share of a step's global batch, and the step's generator.

    Both depend on (seed, step) only, so that a resumed run repeats the undisturbed one.
    """
    chosen = np.random.default_rng([seed, step]).integers(0, size, phase.batch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step * workers + rank)
    return chosen[rank::workers], generator


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
            matrix[:, 2] += random.uniform(-2.5, 2.5, 2)
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


def run_phase(
    phase: PhaseConfig,
    training: CldmTraining,
    accelerator: Accelerator,
    model: torch.nn.Module,
    size: int,
    loss_of: Callable[[torch.nn.Module, Tensor, torch.Generator], Tensor],
) -> None:
    """The loop that both phases share: resume, step, average, report, checkpoint.

    Args:
        size: number of training pictures.
        loss_of: loss of (wrapped model, picture indices, generator).
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, phase.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    average = EMAModel(parameters, decay=phase.ema) if phase.ema else None
    first = _restore(model, optimizer, average)
    losses: list[float] = []
    for step in range(first, phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase, step)
        index, generator = local_batch(size, phase, training.seed, step, rank, workers)
        loss = loss_of(wrapped, torch.from_numpy(index), generator)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if average:
            average.step(parameters)
        losses.append(float(loss.detach()))
        done = step + 1
        if done % training.checkpoint_every == 0 or done == phase.steps:
            metrics = {
                "step": done,
                "loss": float(np.mean(losses)),
                "lr": learning_rate(phase, step),
            }
            _report(metrics, rank, model, optimizer, average)
            losses.clear()


def _restore(model: torch.nn.Module, optimizer: Any, average: EMAModel | None) -> int:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, STATE_FILE), map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average:
        average.load_state_dict(state["average"])
    return int(state["step"])


def _report(
    metrics: dict[str, Any],
    rank: int,
    model: torch.nn.Module,
    optimizer: Any,
    average: EMAModel | None,
) -> None:
    with TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            print(" ".join(f"{key} {value:.5g}" for key, value in metrics.items()), flush=True)
            parameters = list(model.parameters())
            state: dict[str, Any] = {
                "step": metrics["step"],
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict() if average else {},
            }
            if average:
                average.store(parameters)
                average.copy_to(parameters)
                state["final"] = {k: v.clone() for k, v in model.state_dict().items()}
                average.restore(parameters)
            else:
                state["final"] = state["model"]
            torch.save(state, Path(folder, STATE_FILE))
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint)


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
        return cldm.autoencoder_loss(output.float(), batch) + 1e-4 * divergence

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
    """Fit autoencoder, UNet and one ControlNet; resumes whatever ``training.storage`` holds.

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
    weights = fit(autoencoder_loop, "autoencoder", training, **shared)
    reconstruction = cldm.Reconstruction(cldm.build_autoencoder(architecture))
    reconstruction.load_state_dict(weights)
    autoencoder = reconstruction.autoencoder
    sample = to_unit_range(pictures[:2048])
    with torch.no_grad():
        latents = [autoencoder.encode(part).latent_dist.mean for part in sample.split(128)]
    cldm.normalise_latents(autoencoder, torch.cat(latents))
    weights = fit(
        diffusion_loop,
        "diffusion",
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
