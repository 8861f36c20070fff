"""A small conditioned latent diffusion model of our own, in diffusers' format.

The parts are the standard ones (AutoencoderKL, UNet2DConditionModel, ControlNetModel, CLIP text
encoder and tokenizer, DDIM), only narrower, so that ``StableDiffusionControlNetPipeline`` opens
the saved folder like any Stable Diffusion (Rombach et al. 2022; Zhang, Rao and Agrawala 2023).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cldmray.settings import Count, checked_dataclass

PROMPT = "a photo of a face"

GROUPS = 8
"""Normalisation groups of the autoencoder."""


@checked_dataclass
class CldmArchitecture:
    """Widths of the small model.

    Attributes:
        size: side of the images in pixels, a multiple of :attr:`factor`.
        latent_channels: of the latents, whose side is ``size / factor``.
        autoencoder_channels: of each level of the encoder, from full resolution down; see
            :func:`cldmray.models.pca_initialization.check_widths`.
        unet_channels: of the two levels of UNet and ControlNets.
        condition_channels: of the embedding of condition maps, as many as the autoencoder has
            levels, because it must halve the maps as often.
        text_width, text_length: of the prompt's embedding.

    >>> CldmArchitecture(size=128).factor
    16
    """

    size: Count = 128
    latent_channels: Count = 32
    autoencoder_channels: tuple[Count, ...] = (16, 32, 64, 80, 80)
    unet_channels: tuple[Count, Count] = (96, 160)
    condition_channels: tuple[Count, ...] = (8, 16, 32, 64, 96)
    text_width: Count = 64
    text_length: Count = 16

    def __post_init__(self) -> None:
        levels = len(self.autoencoder_channels)
        if len(self.condition_channels) != levels:
            raise ValueError(f"condition_channels: must be {levels} widths, as of the autoencoder")
        if self.size % (2 * self.factor):
            raise ValueError(f"size: {self.size} is no multiple of {2 * self.factor}")

    @property
    def factor(self) -> int:
        """Pixels of an image's side for each of the latents' side."""
        return int(2 ** (len(self.autoencoder_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        return self.latent_channels, self.size // self.factor, self.size // self.factor


def build_autoencoder(arch: CldmArchitecture) -> AutoencoderKL:
    """Untrained autoencoder: images in -1..1 (3, size, size) to latents; see ``latent_shape``."""
    levels = len(arch.autoencoder_channels)
    return AutoencoderKL(
        sample_size=arch.size,
        block_out_channels=arch.autoencoder_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=arch.latent_channels,
        norm_num_groups=GROUPS,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def build_unet(arch: CldmArchitecture) -> UNet2DConditionModel:
    """Untrained denoiser of the latents, predicting v (Salimans and Ho 2022)."""
    unet = UNet2DConditionModel(
        sample_size=arch.latent_shape[1],
        in_channels=arch.latent_channels,
        out_channels=arch.latent_channels,
        block_out_channels=arch.unet_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=arch.text_width,
        attention_head_dim=2,
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())
    return unet


def build_controlnet(unet: UNet2DConditionModel, arch: CldmArchitecture) -> ControlNetModel:
    """A ControlNet for joint training from scratch.

    diffusers zero-initialises it twice (the last convolution of the condition embedding and every
    output convolution), which leaves no gradient to the condition when the UNet is untrained too;
    both get a small random start instead.
    """
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=arch.condition_channels
    )
    nn.init.kaiming_normal_(controlnet.controlnet_cond_embedding.conv_out.weight)
    for convolution in [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]:
        nn.init.normal_(convolution.weight, std=0.3 / convolution.weight.shape[1] ** 0.5)
    controlnet.set_attn_processor(AttnProcessor())
    return controlnet


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR and trailing steps (Lin et al. 2024)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def build_tokenizer(arch: CldmArchitecture) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer without merges: any text, one token a byte."""
    bytes_alphabet = _byte_alphabet()
    tokens = [*bytes_alphabet, *(symbol + "</w>" for symbol in bytes_alphabet)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=arch.text_length)


def build_text_encoder(arch: CldmArchitecture, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A one-layer CLIP text encoder; it stays at its random start, prompts are only labels."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=arch.text_width,
        intermediate_size=2 * arch.text_width,
        projection_dim=arch.text_width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=arch.text_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


@torch.no_grad()
def encode_prompt(prompt: str, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> Tensor:
    """Embedding of a prompt, shape (1, text_length, text_width), as the pipelines compute it."""
    tokens = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    embedding: Tensor = text_encoder(tokens.input_ids)[0]
    return embedding


@torch.no_grad()
def normalise_latents(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Make each latent channel zero-mean and unit-variance, exactly, by changing weights only.

    The shift and scale fold into the two 1x1 convolutions beside the latent, so that the standard
    pipelines need to know nothing of it.

    Args:
        autoencoder: changed in place.
        latents: posterior means of training images, shape (N, channels, h, w).

    Returns:
        The latents as the changed autoencoder gives them.
    """
    std, mean = torch.std_mean(latents, (0, 2, 3))
    channels = mean.numel()
    quant, post = autoencoder.quant_conv, autoencoder.post_quant_conv
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[channels:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
    return (latents - mean[:, None, None]) / std[:, None, None]


def save_controlnet_pipeline(folder: Path, parts: dict[str, Any]) -> None:
    """Save trained parts as fp16 safetensors in the folder layout of a ControlNet pipeline.

    Args:
        folder: gets ``model_index.json``, ``vae/``, ``unet/``, ``scheduler/``, ``tokenizer/``,
            ``text_encoder/`` and one ``controlnet-<name>/`` for every name.
        parts: ``vae``, ``unet``, ``scheduler``, ``tokenizer``, ``text_encoder`` and
            ``controlnets`` (name to model).
    """
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=parts["vae"],
        unet=parts["unet"],
        scheduler=parts["scheduler"],
        tokenizer=parts["tokenizer"],
        text_encoder=parts["text_encoder"],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name, controlnet in parts["controlnets"].items():
        controlnet.to(torch.float16).save_pretrained(
            folder / f"controlnet-{name}", safe_serialization=True
        )


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(extra)) for byte in range(256)]
