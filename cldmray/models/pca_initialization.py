"""Head start of an autoencoder: its encoder begins as a principal component analysis.

A linear encoder of 8x8 patches with 16 components keeps more of a face than the network finds in a
thousand steps from random weights (Bourlard and Kamp 1988: a linear autoencoder is a PCA).
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

ANCHOR = 12.0
"""Constant beside the components in each group, so that group normalisation hardly scales them."""
RANDOM = 0.1
"""Factor on the usual random weights, which all stay above 0 so that every weight can learn."""
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
def initialize_from_components(autoencoder: AutoencoderKL, images: Tensor) -> None:
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
    _weaken(encoder.conv_in)
    encoder.conv_in.weight[:3, :, 1, 1] += torch.eye(3)
    kept = 3
    for level in (0, 1):
        convolution = encoder.down_blocks[level].downsamplers[0].conv
        _weaken(convolution)
        for tap in range(4):
            rows = slice(tap * kept, (tap + 1) * kept)
            convolution.weight[rows, :kept, tap // 2, tap % 2] += torch.eye(kept)
        kept *= 4
        shortcut = encoder.down_blocks[level + 1].resnets[0].conv_shortcut
        if shortcut is not None:
            _weaken(shortcut)
            shortcut.weight[:kept, :kept, 0, 0] += torch.eye(kept)
    last = encoder.down_blocks[2].downsamplers[0].conv
    _weaken(last)
    norm = encoder.conv_norm_out
    group = norm.num_channels // norm.num_groups
    _weaken(encoder.conv_out)
    _weaken(autoencoder.quant_conv)
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


def _weaken(convolution: nn.Conv2d) -> None:
    convolution.weight *= RANDOM
    assert convolution.bias is not None
    convolution.bias.zero_()
