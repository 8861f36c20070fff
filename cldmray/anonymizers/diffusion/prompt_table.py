"""Prompts encoded once, so that the text encoders' memory is free for images."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cldmray.anonymizers.diffusion import families, prompts
from cldmray.anonymizers.diffusion.settings import DiffusionSettings

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class PromptTable:
    """Embeddings of every prompt that the settings can make; takes the pipeline's encoders away.

    Args:
        pipe: the pipeline, whose encoders work where they are.
        device: where the embeddings are kept.
    """

    def __init__(self, pipe: Any, settings: DiffusionSettings, device: torch.device) -> None:
        self.settings = settings
        texts = prompts.all_prompts(
            (settings.prompt, settings.negative_prompt), settings.prompt_choices
        )
        self.place = {pair: place for place, pair in enumerate(texts)}
        encoded = [self._encode(pipe, *pair) for pair in texts]
        self.embeds = {
            name: torch.cat([embeds[name] for embeds in encoded]).to(device) for name in encoded[0]
        }
        for name in ENCODERS:
            if getattr(pipe, name, None) is not None:
                setattr(pipe, name, None)
        if pipe.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _encode(self, pipe: Any, prompt: str, negative: str) -> dict[str, Tensor]:
        family = families.of_pipeline(pipe)
        guidance: dict[str, Any] = {}
        if family.has_negative_prompt:
            guidance = {
                "do_classifier_free_guidance": self.settings.guidance_scale > 1,
                "negative_prompt": negative,
            }
        embeds = pipe.encode_prompt(
            prompt=prompt,
            device=pipe.device,
            num_images_per_prompt=1,
            **dict.fromkeys(family.own_prompts),
            **guidance,
        )
        return {
            name: tensor
            for name, tensor in zip(family.embeds, embeds, strict=False)
            if tensor is not None
        }

    def __call__(self, seeds: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """The pipeline's arguments for images of these seeds, one row an image."""
        if len(self.place) == 1:
            rows = len(seeds)
            return {
                name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in self.embeds.items()
            }
        places = [self.place[self._texts(int(seed))] for seed in seeds]
        return {
            name: tensor[torch.tensor(places, device=tensor.device)]
            for name, tensor in self.embeds.items()
        }

    def _texts(self, seed: int) -> tuple[str, ...]:
        both = (self.settings.prompt, self.settings.negative_prompt)
        return tuple(prompts.fill(text, self.settings.prompt_choices, seed) for text in both)
