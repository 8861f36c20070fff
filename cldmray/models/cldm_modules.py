"""What a training of the small CLDM wraps and minimises.

A head start of the autoencoder: its encoder begins as a principal component analysis.

A linear encoder of 8x8 patches with 16 components keeps more of a face than the network finds in a
thousand steps from a random start (Bourlard and Kamp 1988: a linear autoencoder is a PCA).
"""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class RoundTrip(nn.Module):
    """Encode, sample the posterior, decode: one module, so that one wrapper trains it."""

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
            conditions that act together are summed, as diffusers' MultiControlNet does.
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
    images: int, conditions: int, together: float, generator: torch.Generator
) -> Tensor:
    """Which conditions act on which image of a batch, bool, shape (images, conditions).

    Each image has one, in equal shares; a share ``together`` of the images has a second.
    """
    first = (torch.arange(images) % conditions)[torch.randperm(images, generator=generator)]
    acts = nn.functional.one_hot(first, conditions).bool()
    if conditions > 1:
        step = torch.randint(1, conditions, (images,), generator=generator)
        second = nn.functional.one_hot((first + step) % conditions, conditions).bool()
        pair = torch.rand(images, generator=generator) < together
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


ANCHOR = 12.0
"""Constant beside the components in each group, so that group normalisation hardly scales them."""
RANDOM = 0.1
"""Share of the usual random start that all weights keep, so that every weight can learn."""
START_LOGVAR = -6.0


def patch_components(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and leading principal components of 8x8 patches, divided by their standard deviations.

    Args:
        images: in -1..1, shape (N, 3, h, w), sides multiples of 8.
        count: of components, at most 192.

    Returns:
        Mean (192,) and components (count, 192); a patch is laid out as three rounds of
        space-to-depth do: (second-level offset, first-level offset, pixel offset, colour).
    """
    folded = images.float()
    for _ in range(3):
        batch, channels, height, width = folded.shape
        folded = folded.reshape(batch, channels, height // 2, 2, width // 2, 2)
        folded = folded.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // 2, width // 2)
    patches = folded.permute(0, 2, 3, 1).reshape(-1, folded.shape[1]).double()
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    leading = vectors.T.flip(0)[:count] / values.flip(0)[:count, None].clamp(min=1e-8).sqrt()
    return patches.mean(0).float(), leading.float()


def check_widths(widths: tuple[int, ...], autoencoder: AutoencoderKL) -> None:
    """Raise ValueError where space-to-depth, or the latents in pairs, do not fit the widths."""
    groups, latents = autoencoder.config["norm_num_groups"], autoencoder.config["latent_channels"]
    last = max(48, groups * (2 + 2 * -(-latents // groups)))
    if len(widths) != 4 or widths[0] < 12 or widths[1] < 48 or not last <= widths[2] == widths[3]:
        raise ValueError(
            f"autoencoder_channels: {widths} must be four widths, at least 12, 48 and twice {last} "
            f"for {latents} latent channels, the last two equal"
        )


@torch.no_grad()
def start_as_components(autoencoder: AutoencoderKL, images: Tensor) -> None:
    """Make the encoder's posterior mean the standardised components of each 8x8 patch, nearly.

    The residual branches start at zero, the three downsamplings at space-to-depth, and the last
    normalisation is kept from mixing by constant channels; x = silu(x) - silu(-x) undoes the last
    activation. The decoder's residual branches start at zero too.

    Args:
        autoencoder: untrained; changed in place.
        images: training images in -1..1, shape (N, 3, h, w).

    Raises:
        ValueError: the autoencoder has other than four levels or is too narrow to hold its latents.
    """
    check_widths(tuple(autoencoder.config["block_out_channels"]), autoencoder)
    for module in autoencoder.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    encoder = autoencoder.encoder
    latents = autoencoder.config["latent_channels"]
    mean, components = patch_components(images, latents)
    _soften(encoder.conv_in)
    encoder.conv_in.weight[:3, :, 1, 1] += torch.eye(3)
    kept = 3
    for level in (0, 1):
        convolution = encoder.down_blocks[level].downsamplers[0].conv
        _soften(convolution)
        for tap in range(4):
            rows = slice(tap * kept, (tap + 1) * kept)
            convolution.weight[rows, :kept, tap // 2, tap % 2] += torch.eye(kept)
        kept *= 4
        shortcut = encoder.down_blocks[level + 1].resnets[0].conv_shortcut
        if shortcut is not None:
            _soften(shortcut)
            shortcut.weight[:kept, :kept, 0, 0] += torch.eye(kept)
    last = encoder.down_blocks[2].downsamplers[0].conv
    _soften(last)
    norm = encoder.conv_norm_out
    group = norm.num_channels // norm.num_groups
    _soften(encoder.conv_out)
    _soften(autoencoder.quant_conv)
    autoencoder.quant_conv.weight[:, :, 0, 0] += torch.eye(2 * latents)
    encoder.conv_out.bias[latents:] = START_LOGVAR
    taps = components.reshape(latents, 4, kept)
    spread = ANCHOR * (2 / group) ** 0.5
    for number in range(norm.num_groups):
        last.bias[number * group] = ANCHOR
        last.bias[number * group + 1] = -ANCHOR
    for latent in range(latents):
        place = latent % norm.num_groups * group + 2 + 2 * (latent // norm.num_groups)
        for channel, sign in ((place, 1.0), (place + 1, -1.0)):
            for tap in range(4):
                last.weight[channel, :kept, tap // 2, tap % 2] += sign * taps[latent, tap]
            last.bias[channel] = -sign * float(components[latent] @ mean)
            encoder.conv_out.weight[latent, channel, 1, 1] += sign * spread


def _soften(convolution: nn.Conv2d) -> None:
    convolution.weight *= RANDOM
    assert convolution.bias is not None
    convolution.bias.zero_()
