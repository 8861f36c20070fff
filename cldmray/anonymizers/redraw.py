"""Runs a loaded diffusers pipeline on batches, picture by picture reproducible."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cldmray.anonymizers import pipeline
from cldmray.anonymizers.base import Batch
from cldmray.errors import BadInputError
from cldmray.faces.records import Pictures
from cldmray.faces.regions import ellipse
from cldmray.hashing import digest

if TYPE_CHECKING:
    from cldmray.anonymizers.diffusion import Diffusion

EMBEDS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
"""What ``encode_prompt`` returns, in this order; the last two come from SDXL only."""


class PipelineRedraw:
    """Holds a pipeline and the embedded prompt; a call redraws one batch."""

    def __init__(self, settings: "Diffusion") -> None:
        self.settings = settings
        self.pipe = pipeline.load(settings)
        with torch.inference_mode():
            embeds = self.pipe.encode_prompt(
                prompt=settings.prompt,
                device=self.pipe.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=settings.guidance > 1,
                negative_prompt=settings.negative_prompt,
            )
        self.embeds = {
            name: value for name, value in zip(EMBEDS, embeds, strict=False) if value is not None
        }

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Pictures:
        """Redrawn pictures, uint8, shape (N, height, width, 3).

        Raises:
            BadInputError: the sides are no multiples of the autoencoder's factor, or the result
                is not finite.
        """
        count, height, width = batch.images.shape[:3]
        factor = self.pipe.vae_scale_factor
        if not count:
            return np.empty_like(batch.images)
        if height % factor or width % factor:
            raise BadInputError(
                f"{self.settings.name}: pictures of {width}x{height} pixels cannot be drawn, "
                f"both sides must be multiples of {factor}"
            )
        images = self.pipe(
            **{name: value.expand(count, *value.shape[1:]) for name, value in self.embeds.items()},
            **self._control_inputs(batch),
            **self._mode_inputs(batch),
            generator=[torch.Generator().manual_seed(int(seed)) for seed in batch.seeds],
            guidance_scale=self.settings.guidance,
            num_inference_steps=self.settings.steps,
            output_type="np",
        ).images
        if not np.isfinite(images).all():
            raise BadInputError(
                f"{self.settings.name}: the model overflows in {self.settings.dtype}: "
                "set dtype to float32 or bfloat16"
            )
        redrawn: Pictures = np.rint(images * 255).astype(np.uint8)
        if self.settings.mode == "inpaint":
            mask = ellipse(height, width, self.settings.mask)
            redrawn = np.where(mask[..., None], redrawn, batch.images)
        return redrawn

    def _control_inputs(self, batch: Batch) -> dict[str, Any]:
        controls = self.settings.controls
        if not controls:
            return {}
        inputs: dict[str, list[Any]] = {
            "image" if self.settings.mode == "text2img" else "control_image": [
                unit_range(batch.conditions[name]) for name in controls
            ],
            "controlnet_conditioning_scale": [float(one.scale) for one in controls.values()],
            "control_guidance_start": [float(one.start) for one in controls.values()],
            "control_guidance_end": [float(one.end) for one in controls.values()],
        }
        if len(controls) > 1:
            return inputs
        return {name: values[0] for name, values in inputs.items()}

    def _mode_inputs(self, batch: Batch) -> dict[str, Any]:
        count, height, width = batch.images.shape[:3]
        if self.settings.mode == "text2img":
            return {"height": height, "width": width}
        inputs: dict[str, Any] = {
            "image": unit_range(batch.images),
            "strength": self.settings.strength,
        }
        if self.settings.mode == "inpaint":
            mask = torch.from_numpy(ellipse(height, width, self.settings.mask)).float()
            if pipeline.takes_mask(self.pipe):
                inputs["mask_image"] = mask.expand(count, 1, -1, -1)
                inputs |= {"height": height, "width": width}
            else:
                inputs["callback_on_step_end"] = self._keep_outside(batch, mask)
        return inputs

    def _keep_outside(self, batch: Batch, mask: Tensor) -> Callable[..., dict[str, Tensor]]:
        """Hook that puts the noised original back around the mask after every step.

        diffusers' inpainting pipelines do so for latents of four channels only; other models they
        reject or, with a ControlNet, silently redraw as a whole.
        """
        outside = self._latents(batch.images)
        noise = torch.stack([_noise(seed, outside.shape[1:]) for seed in batch.seeds]).to(outside)
        redraw = torch.nn.functional.max_pool2d(mask[None, None], self.pipe.vae_scale_factor)
        redraw = redraw.to(outside)

        def hook(pipe: Any, step: int, _: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
            timesteps = pipe.scheduler.timesteps
            following = len(timesteps) - pipe.num_timesteps + step + 1
            kept = outside
            if following < len(timesteps):
                kept = pipe.scheduler.add_noise(outside, noise, timesteps[following, None])
            latents = state["latents"]
            return {"latents": (redraw * latents + (1 - redraw) * kept).to(latents.dtype)}

        return hook

    def _latents(self, images: Pictures) -> Tensor:
        """Latents (N, channels, h, w) of pictures; an fp16 autoencoder encodes in float32."""
        vae = self.pipe.vae
        half = vae.dtype == torch.float16
        if half:
            vae.to(torch.float32)
        pixels = unit_range(images).to(self.pipe.device, vae.dtype) * 2 - 1
        latents: Tensor = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        if half:
            vae.to(torch.float16)
        return latents.to(vae.dtype)


def unit_range(pictures: Pictures) -> Tensor:
    """uint8 (N, height, width, 3) to float32 (N, 3, height, width) in 0..1."""
    return torch.tensor(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def _noise(seed: np.int64, shape: torch.Size) -> Tensor:
    """Normal noise of one picture's surroundings, independent of what the pipeline draws."""
    own = int(digest("surroundings", int(seed))[:15], 16)
    return torch.randn(shape, generator=torch.Generator().manual_seed(own))
