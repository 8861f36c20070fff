"""What the training of the small CLDM wraps and minimises: networks, conditions, losses."""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn


class SampledAutoencoder(nn.Module):
    """An AutoencoderKL that encodes, samples the posterior and decodes in one call.

    One module, so that one wrapper trains encoder and decoder.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions (N, 3, size, size) in -1..1 and the mean KL divergence to N(0, 1).

        Args:
            images: in -1..1, shape (N, 3, size, size).
            noise: standard normal, shape of the latents.
        """
        posterior = self.autoencoder.encode(images).latent_dist
        output = self.autoencoder.decode(posterior.mean + posterior.std * noise).sample
        mean, var = posterior.mean.float(), posterior.var.float()
        divergence = 0.5 * (mean**2 + var - 1 - posterior.logvar.float()).mean()
        return output, divergence


class ConditionedDenoiser(nn.Module):
    """UNet and ControlNets as one module, so that one wrapper trains all.

    Args (of ``forward``):
        noisy: latents, shape (N, channels, h, w).
        timesteps: int64, shape (N,).
        prompt: embedding, shape (1, length, width).
        maps: condition maps in 0..1, shape (N, conditions, 3, size, size), conditions in the
            order of ``controlnets``.
        acts: which condition acts on which image, bool, shape (N, conditions). The residuals of
            several conditions are summed, as diffusers' MultiControlNet does.
        keep: 1.0, or 0.0 where all that acts is dropped, shape (N,).
    """

    def __init__(
        self, unet: UNet2DConditionModel, controlnets: Mapping[str, ControlNetModel]
    ) -> None:
        super().__init__()
        self.unet = unet
        self.controlnets = nn.ModuleDict(controlnets)

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        prompt: Tensor,
        maps: Tensor,
        acts: Tensor,
        keep: Tensor,
    ) -> Tensor:
        text = prompt.expand(len(noisy), -1, -1)
        total: list[Tensor] = []
        for number, controlnet in enumerate(self.controlnets.values()):
            rows = acts[:, number].nonzero()[:, 0]
            down, middle = controlnet(
                noisy[rows],
                timesteps[rows],
                encoder_hidden_states=text[rows],
                controlnet_cond=maps[rows, number],
                return_dict=False,
            )
            residuals = [residual * keep[rows].view(-1, 1, 1, 1) for residual in (*down, middle)]
            if not total:
                total = [r.new_zeros((len(noisy), *r.shape[1:])) for r in residuals]
            total = [
                sum_.index_add(0, rows, residual.to(sum_.dtype))
                for sum_, residual in zip(total, residuals, strict=True)
            ]
        output: Tensor = self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=text,
            down_block_additional_residuals=total[:-1],
            mid_block_additional_residual=total[-1],
        ).sample
        return output


def choose_conditions(
    images: int, conditions: int, two_conditions_fraction: float, generator: torch.Generator
) -> Tensor:
    """Which conditions act on which image of a batch, bool, shape (images, conditions).

    Each image has one, in equal numbers; the fraction ``two_conditions_fraction`` has a second.
    """
    first = (torch.arange(images) % conditions)[torch.randperm(images, generator=generator)]
    acts = nn.functional.one_hot(first, conditions).bool()
    if conditions > 1:
        step = torch.randint(1, conditions, (images,), generator=generator)
        second = nn.functional.one_hot((first + step) % conditions, conditions).bool()
        pair = torch.rand(images, generator=generator) < two_conditions_fraction
        acts |= second & pair[:, None]
    return acts


def autoencoder_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """L1 at three scales plus L1 of the image gradients; both arguments in -1..1 (N, 3, h, w)."""
    loss = (reconstruction - images).abs().mean()
    for factor in (2, 4):
        pooled = [nn.functional.avg_pool2d(x, factor) for x in (reconstruction, images)]
        loss = loss + 0.5 * (pooled[0] - pooled[1]).abs().mean()
    for axis in (-1, -2):
        slopes = [torch.diff(x, dim=axis) for x in (reconstruction, images)]
        loss = loss + (slopes[0] - slopes[1]).abs().mean()
    return loss
