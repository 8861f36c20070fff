"""Stable Diffusion 1.5 with one ControlNet: its published shape, random weights, and its FLOPs.

Source of the shapes: the ``config.json`` files of Stable Diffusion 1.5 (Rombach et al. 2022) and
of its ControlNets (Zhang, Rao and Agrawala 2023). Speed does not depend on what weights say.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

CONTROL = "canny"
GUIDED = 2
"""UNet and ControlNet see every image twice, with the prompt and without (guidance above 1)."""


class Shape(NamedTuple):
    """Sizes of a model; the defaults are those of Stable Diffusion 1.5.

    Attributes:
        side: of the images, pixels; latents have an eighth.
        unet: channels of the UNet's four levels.
        vae: channels of the autoencoder's four levels.
        condition: channels of the ControlNet's layers that read the map.
        groups: of the normalisations.
        text_width, text_layers, text_heads, vocabulary: of the text encoder.
    """

    side: int = 512
    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    vae: tuple[int, ...] = (128, 256, 512, 512)
    condition: tuple[int, ...] = (16, 32, 96, 256)
    groups: int = 32
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 49408


TINY = Shape(64, (16, 16, 32, 32), (8, 8, 16, 16), (8, 8, 16, 16), 8, 16, 1, 2, 514)
TEXT_LENGTH = 77


class Flops(NamedTuple):
    """Floating-point operations of the models, a multiplication and an addition being two.

    Attributes:
        unet, controlnet: of one step of one image, both halves of the guidance together.
        decoder: of the autoencoder's decoder for one image.
    """

    unet: int
    controlnet: int
    decoder: int

    def of_image(self, steps: int) -> int:
        """All of one image; the prompt is not counted."""
        return steps * (self.unet + self.controlnet) + self.decoder


def build(shape: Shape, device: str) -> dict[str, Any]:
    """The parts of a pipeline with random weights, float32, on a torch device.

    A ControlNet starts at zero in two places, where real ones do not stay; both are drawn.
    """
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=shape.side // 8,
            block_out_channels=shape.unet,
            cross_attention_dim=shape.text_width,
            norm_num_groups=shape.groups,
        )
        vae = AutoencoderKL(
            sample_size=shape.side,
            block_out_channels=shape.vae,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=shape.groups,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.text_width,
                intermediate_size=4 * shape.text_width,
                projection_dim=shape.text_width,
                num_hidden_layers=shape.text_layers,
                num_attention_heads=shape.text_heads,
                max_position_embeddings=TEXT_LENGTH,
            )
        )
        controlnet = ControlNetModel.from_unet(
            unet,
            conditioning_embedding_out_channels=shape.condition,
            load_weights_from_unet=device != "meta",
        )
    nn.init.kaiming_normal_(controlnet.controlnet_cond_embedding.conv_out.weight)
    for convolution in [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]:
        nn.init.normal_(convolution.weight, std=0.3 / convolution.weight.shape[1] ** 0.5)
    return {"unet": unet, "vae": vae, "text_encoder": text, "controlnets": {CONTROL: controlnet}}


def save(shape: Shape, device: str, folder: Path) -> None:
    """Build a pipeline and save it as people publish them: fp16 safetensors, UniPC."""
    from diffusers import UniPCMultistepScheduler

    from cldmray.models import cldm

    scheduler = UniPCMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    text = replace(cldm.CldmArchitecture(), text_length=TEXT_LENGTH)
    parts = {"scheduler": scheduler, "tokenizer": cldm.build_tokenizer(text)}
    cldm.save_controlnet_pipeline(folder, build(shape, device) | parts)


def parameters(shape: Shape) -> dict[str, int]:
    """Number of weights of each part."""
    networks = build(shape, "meta")
    networks["controlnet"] = networks.pop("controlnets")[CONTROL]
    return {
        name: sum(weights.numel() for weights in network.parameters())
        for name, network in networks.items()
    }


@torch.no_grad()
def count(shape: Shape) -> Flops:
    """FLOPs of the matrix products and convolutions, without computing anything."""
    from torch.utils.flop_counter import FlopCounterMode

    parts = build(shape, "meta")
    side = shape.side // 8
    with torch.device("meta"):
        latents = torch.empty(GUIDED, 4, side, side)
        text = torch.empty(GUIDED, TEXT_LENGTH, shape.text_width)
        maps = torch.empty(GUIDED, 3, shape.side, shape.side)
        step = torch.empty(GUIDED)
        with FlopCounterMode(display=False) as controlnet:
            down, middle = parts["controlnets"][CONTROL](
                latents, step, encoder_hidden_states=text, controlnet_cond=maps, return_dict=False
            )
        with FlopCounterMode(display=False) as unet:
            parts["unet"](
                latents,
                step,
                encoder_hidden_states=text,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )
        with FlopCounterMode(display=False) as decoder:
            parts["vae"].decode(latents[:1])
    return Flops(unet.get_total_flops(), controlnet.get_total_flops(), decoder.get_total_flops())
