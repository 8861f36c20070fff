"""Head start of an autoencoder: its encoder begins as a principal component analysis.

A linear encoder of 8x8 patches with 16 components, or of 16x16 patches with 32, keeps more of a
face than the network finds in a thousand steps from random weights (Bourlard and Kamp 1988: a
linear autoencoder is a PCA).
"""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

ANCHOR = 12.0
"""Constant beside the components in each group, so that group normalisation hardly scales them."""
RANDOM = 0.1
"""Factor on the usual random weights, which all stay above 0 so that every weight can learn."""
START_LOGVAR = -6.0


def patch_components(images: Tensor, counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Principal components of patches of 2x2, 4x4, 8x8 and so on, each of those before.

    A level gathers 2x2 neighbours of the level before, space-to-depth, and keeps the directions in
    which they vary most. Where it can keep all of them it leaves them as they are.

    Args:
        images: in -1..1, shape (N, 3, h, w), sides multiples of ``2 ** len(counts)``.
        counts: components that each level keeps at most.

    Returns:
        For each level the mean (d,) and the components (count, d) of what it gathers. It is laid
        out as (offset in the neighbourhood, component of the level before). The components of the
        last level are divided by their standard deviations, all others have unit norm.
    """
    levels = []
    for number, count in enumerate(counts, 1):
        # (N, d, h, w) to (N, 4 * d, h / 2, w / 2)
        batch, channels, height, width = images.shape
        folded = images.reshape(batch, channels, height // 2, 2, width // 2, 2)
        folded = folded.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // 2, width // 2)
        rows = folded.permute(0, 2, 3, 1).reshape(-1, folded.shape[1])
        mean, components = torch.zeros(rows.shape[1]), torch.eye(rows.shape[1])
        last = number == len(counts)
        if last or count < rows.shape[1]:
            mean = rows.mean(0)
            values, vectors = torch.linalg.eigh(torch.cov(rows.T).double())
            components = vectors.T.flip(0)[:count]
            if last:
                components = components / values.flip(0)[:count, None].clamp(min=1e-8).sqrt()
            components = components.float()
        levels.append((mean, components))
        images = torch.einsum("nchw,kc->nkhw", folded - mean[:, None, None], components)
    return levels


def least_width(autoencoder: AutoencoderKL) -> int:
    """Channels that the last level needs to hold every latent twice, beside two anchors a group."""
    groups, latents = autoencoder.config["norm_num_groups"], autoencoder.config["latent_channels"]
    return int(groups * (2 + 2 * -(-latents // groups)))


def check_widths(widths: tuple[int, ...], autoencoder: AutoencoderKL) -> None:
    """Raise ValueError where the first pixels or the last latents do not fit the widths."""
    first, last = 12, least_width(autoencoder)
    if min(widths) < first or widths[-1] < last or widths[-2:] != widths[-1:] * 2:
        raise ValueError(
            f"autoencoder_channels: {widths} must be at least {first}, and the last two equal "
            f"and at least {last}"
        )


@torch.no_grad()
def initialize_from_components(autoencoder: AutoencoderKL, images: Tensor) -> None:
    """Make the encoder's posterior mean the standardised components of each patch, nearly.

    A patch is what becomes one place of the latents. The residual branches start at zero, the
    downsamplings at space-to-depth with its leading components, and the last normalisation is kept
    from mixing by constant channels; x = silu(x) - silu(-x) undoes the last activation. The
    decoder's residual branches start at zero too.

    Args:
        autoencoder: untrained; changed in place.
        images: training images in -1..1, shape (N, 3, h, w).

    Raises:
        ValueError: the autoencoder is too narrow to hold its latents.
    """
    widths = tuple(autoencoder.config["block_out_channels"])
    check_widths(widths, autoencoder)
    for module in autoencoder.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    encoder = autoencoder.encoder
    latents = autoencoder.config["latent_channels"]
    *levels, (mean, components) = patch_components(images.float(), (*widths[:-2], latents))
    _weaken(encoder.conv_in)
    encoder.conv_in.weight[:3, :, 1, 1] += torch.eye(3)
    for level, (centre, kept) in enumerate(levels):
        count = len(kept)
        convolution = encoder.down_blocks[level].downsamplers[0].conv
        _weaken(convolution)
        _add_taps(convolution, slice(count), kept)
        convolution.bias[:count] -= kept @ centre
        shortcut = encoder.down_blocks[level + 1].resnets[0].conv_shortcut
        if shortcut is not None:
            _weaken(shortcut)
            shortcut.weight[:count, :count, 0, 0] += torch.eye(count)
    last = encoder.down_blocks[-2].downsamplers[0].conv
    _weaken(last)
    norm = encoder.conv_norm_out
    group = norm.num_channels // norm.num_groups
    _weaken(encoder.conv_out)
    _weaken(autoencoder.quant_conv)
    autoencoder.quant_conv.weight[:, :, 0, 0] += torch.eye(2 * latents)
    encoder.conv_out.bias[latents:] = START_LOGVAR
    spread = ANCHOR * (2 / group) ** 0.5
    for number in range(norm.num_groups):
        last.bias[number * group] = ANCHOR
        last.bias[number * group + 1] = -ANCHOR
    for latent in range(latents):
        place = latent % norm.num_groups * group + 2 + 2 * (latent // norm.num_groups)
        for channel, sign in ((place, 1.0), (place + 1, -1.0)):
            _add_taps(last, slice(channel, channel + 1), sign * components[latent, None])
            last.bias[channel] = -sign * float(components[latent] @ mean)
            encoder.conv_out.weight[latent, channel, 1, 1] += sign * spread


def _add_taps(convolution: nn.Conv2d, rows: slice, components: Tensor) -> None:
    """Add components of 2x2 neighbourhoods, shape (rows, 4 * channels), to a 3x3 kernel."""
    taps = components.reshape(len(components), 4, -1)
    for tap in range(4):
        convolution.weight[rows, : taps.shape[2], tap // 2, tap % 2] += taps[:, tap]


def _weaken(convolution: nn.Conv2d) -> None:
    convolution.weight *= RANDOM
    assert convolution.bias is not None
    convolution.bias.zero_()
