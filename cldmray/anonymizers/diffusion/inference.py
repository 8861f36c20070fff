"""Runs a loaded diffusers pipeline on batches, image by image reproducible."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cldmray.anonymizers import memory
from cldmray.anonymizers.base import Batch, UnusableImagesError
from cldmray.anonymizers.diffusion import families, loading
from cldmray.anonymizers.diffusion.prompt_table import PromptTable
from cldmray.anonymizers.diffusion.settings import DiffusionSettings
from cldmray.arrays import Images, to_device
from cldmray.errors import BadInputError
from cldmray.faces.regions import ellipse
from cldmray.hashing import digest


class PipelineRunner:
    """Holds a pipeline and the embedded prompts; a call anonymizes one batch.

    With guidance the pipelines of diffusers put the images with and without the prompt into one
    batch for each step, so that a step calls each network once.
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        self.settings = settings
        self.pipe = loading.load(settings)
        self.family = families.of_pipeline(self.pipe)
        self.device = torch.device(loading.find_device(settings.device))
        self.encodes_batches = self.device.type != "cpu"
        self.prompts = PromptTable(self.pipe, settings, self.device)
        loading.place(self.pipe, settings.offload, str(self.device))

    def __call__(self, batch: Batch) -> Images:
        """Anonymized images, uint8, shape (N, height, width, 3).

        Raises:
            BadInputError: the sides are no multiples of what the model can draw.
            UnusableImagesError: images are not finite, not even where the autoencoder decodes them
                in float32.
        """
        return self.start(batch)()

    @property
    def one_size(self) -> bool:
        """Whether each further batch size costs minutes of compiling."""
        return self.settings.compile

    def largest_batch(self, example: Batch, share: float) -> int | None:
        """Images that the GPU's free memory holds at once; None where there is no GPU.

        Args:
            example: at least one image; two copies of it are drawn.
            share: of the GPU that belongs to this process, in (0, 1].
        """
        if self.device.type != "cuda":
            return None

        def draw(count: int) -> None:
            with torch.compiler.set_stance("force_eager"):
                self(example.take([0] * count))

        return memory.largest_batch(draw, self.device, share)

    @torch.inference_mode()
    def start(self, batch: Batch) -> Callable[[], Images]:
        """Anonymize a batch, but leave the images on the GPU.

        Returns:
            A function that waits for the images and returns what the plain call does. Meanwhile
            the next batch may be started.

        Raises:
            BadInputError: as for a plain call.
        """
        count, height, width = batch.images.shape[:3]
        factor = self._side_factor()
        if not count:
            return lambda: np.empty_like(batch.images)
        if height % factor or width % factor:
            raise BadInputError(
                f"{self.settings.name}: images of {width}x{height} pixels cannot be drawn, "
                f"both sides must be multiples of {factor}"
            )
        images = self.pipe(**self._inputs(batch), output_type="pt").images
        finite, pixels = _on_host(images)

        def finish() -> Images:
            anonymized, unusable = pixels().numpy(), ~finite().numpy()
            for row in np.flatnonzero(unusable).tolist():
                # One by one: float32 needs more memory than the batch was measured for.
                anonymized[row], unusable[row] = self._rescued(batch.take([row]), anonymized[row])
            if self.settings.mode == "inpaint":
                mask = ellipse(height, width, self.settings.mask)
                anonymized = np.where(mask[..., None], anonymized, batch.images)
            if unusable.any():
                raise UnusableImagesError(
                    f"{self.settings.name}: the model overflows in {self.settings.dtype}: "
                    "set dtype to float32 or bfloat16",
                    anonymized,
                    unusable,
                )
            return anonymized

        return finish

    def _side_factor(self) -> int:
        """Pixels of which an image's sides are multiples: the autoencoder's, times a patch's."""
        denoiser = getattr(self.pipe, self.family.denoiser)
        patch = denoiser.config.get("patch_size", 1) if self.family.is_transformer else 1
        return int(self.pipe.vae_scale_factor * self.family.packing * patch)

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """What the pipeline is called with, but for the kind of its output."""
        generators = [torch.Generator().manual_seed(int(seed)) for seed in batch.seeds]
        return {
            **self.prompts(batch.seeds),
            **self._control_inputs(batch),
            **self._mode_inputs(batch, generators),
            "generator": generators,
            "guidance_scale": self.settings.guidance_scale,
            "num_inference_steps": self.settings.num_inference_steps,
        }

    @torch.inference_mode()
    def _rescued(self, single: Batch, anonymized: Images) -> tuple[Images, bool]:
        """An image, and whether it is still unusable, after an autoencoder in float32 decoded it.

        In half precision the autoencoder overflows first. Networks that wait in main memory are
        placed by hooks, which this would disturb.
        """
        vae, offload = self.pipe.vae, self.settings.offload
        if vae.dtype == torch.float32 or offload != "none":
            return anonymized, True
        latents = self.pipe(**self._inputs(single), output_type="latent").images.float()
        if self.family.packing > 1:
            height, width = single.images.shape[1:3]
            latents = self.pipe._unpack_latents(latents, height, width, self.pipe.vae_scale_factor)
        usual = vae.dtype
        try:
            vae.to(torch.float32)
            shift = getattr(vae.config, "shift_factor", None) or 0.0
            decoded = vae.decode(latents / vae.config.scaling_factor + shift).sample
        finally:
            vae.to(usual)
        finite, pixels = _on_host((decoded / 2 + 0.5).clamp(0, 1))
        return pixels().numpy()[0], not finite().item()

    def _control_inputs(self, batch: Batch) -> dict[str, Any]:
        controls = self.settings.controls
        if not controls:
            return {}
        maps = [self._pixels(batch.conditions[name]) for name in controls]
        if self.family.is_transformer:
            # The autoencoder encodes them; diffusers scales images of PIL alone to -1..1.
            maps = [2 * pixels - 1 for pixels in maps]
        is_only_image = self.settings.mode == "text2img" and not self.family.is_transformer
        inputs: dict[str, list[Any]] = {
            "image" if is_only_image else "control_image": maps,
            "controlnet_conditioning_scale": [
                float(control.controlnet_conditioning_scale) for control in controls.values()
            ],
            "control_guidance_start": [
                float(control.control_guidance_start) for control in controls.values()
            ],
            "control_guidance_end": [
                float(control.control_guidance_end) for control in controls.values()
            ],
        }
        if len(controls) > 1:
            if self.family is families.FLUX:
                inputs["control_mode"] = [None] * len(controls)
            return inputs
        return {name: values[0] for name, values in inputs.items()}

    def _mode_inputs(self, batch: Batch, generators: list[torch.Generator]) -> dict[str, Any]:
        count, height, width = batch.images.shape[:3]
        if self.settings.mode == "text2img":
            return {"height": height, "width": width}
        takes_mask = self.settings.mode == "inpaint" and loading.takes_mask(self.pipe)
        inputs: dict[str, Any] = {
            "image": self._pixels(batch.images)
            if takes_mask
            else self._start(batch.images, generators),
            "strength": self.settings.strength,
        }
        if self.family.is_transformer:
            inputs |= {"height": height, "width": width}
        if self.settings.mode == "inpaint":
            mask = torch.from_numpy(ellipse(height, width, self.settings.mask)).float()
            if takes_mask:
                inputs["mask_image"] = mask.expand(count, 1, -1, -1)
                inputs |= {"height": height, "width": width}
            else:
                inputs["callback_on_step_end"] = self._keep_outside(batch, mask)
        return inputs

    def _keep_outside(self, batch: Batch, mask: Tensor) -> Callable[..., dict[str, Tensor]]:
        """Hook that puts the noised original back around the mask after every step.

        diffusers' inpainting pipelines do so for latents of four channels only; other models they
        reject or, with a ControlNet, silently anonymize as a whole.
        """
        outside = self._latents(batch.images)
        noise = torch.stack([_noise(seed, outside.shape[1:]) for seed in batch.seeds]).to(outside)
        anonymize = torch.nn.functional.max_pool2d(mask[None, None], self.pipe.vae_scale_factor)
        anonymize = anonymize.to(outside)

        def hook(pipe: Any, step: int, _: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
            timesteps = pipe.scheduler.timesteps
            following = len(timesteps) - pipe.num_timesteps + step + 1
            kept = outside
            if following < len(timesteps):
                kept = pipe.scheduler.add_noise(outside, noise, timesteps[following, None])
            latents = state["latents"]
            return {"latents": (anonymize * latents + (1 - anonymize) * kept).to(latents.dtype)}

        return hook

    def _pixels(self, images: Images) -> Tensor:
        return unit_range(images, self.device)

    def _start(self, images: Images, generators: list[torch.Generator]) -> Tensor:
        """What the pipeline starts from: on a GPU latents that were encoded all at once.

        Where each image has a generator, diffusers encodes one after the other. Latents of four
        channels it takes as they are; each generator gives the same numbers in the same order.
        """
        config = self.pipe.vae.config
        is_usual = (
            not self.family.is_transformer
            and config.latent_channels == 4
            and getattr(config, "latents_mean", None) is None
        )
        if not (self.encodes_batches and is_usual and self.settings.offload == "none"):
            return self._pixels(images)
        return self._latents(images, generators)

    def _latents(self, images: Images, generators: list[torch.Generator] | None = None) -> Tensor:
        """Latents (N, channels, h, w) of images; an fp16 autoencoder encodes in float32.

        Args:
            generators: draw them from the autoencoder's distribution; None: its mode.
        """
        vae = self.pipe.vae
        half = vae.dtype == torch.float16
        if half:
            vae.to(torch.float32)
        encoded = vae.encode(self._pixels(images).to(vae.dtype) * 2 - 1)
        tiny = hasattr(encoded, "latents")
        latents: Tensor
        if tiny:
            latents = encoded.latents
        elif generators is None:
            latents = encoded.latent_dist.mode()
        else:
            latents = encoded.latent_dist.sample(generators)
        latents = latents * vae.config.scaling_factor
        if half:
            vae.to(torch.float16)
        return latents.to(vae.dtype)


def _on_host(images: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Begin to copy images (N, 3, height, width) in 0..1 from their device.

    Returns:
        Functions that wait for which are finite, (N,), and for uint8 (N, height, width, 3).
    """
    images = images.permute(0, 2, 3, 1).float()
    finite = memory.to_host(torch.isfinite(images).flatten(1).all(1))
    return finite, memory.to_host((images * 255).round().to(torch.uint8).contiguous())


def unit_range(images: Images, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (N, height, width, 3) to float32 (N, 3, height, width) in 0..1, on a device."""
    return to_device(images, device).permute(0, 3, 1, 2).float() / 255


def _noise(seed: np.int64, shape: torch.Size) -> Tensor:
    """Normal noise of one image's surroundings, independent of what the pipeline draws."""
    own = int(digest("surroundings", int(seed))[:15], 16)
    return torch.randn(shape, generator=torch.Generator().manual_seed(own))
