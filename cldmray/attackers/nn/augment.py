"""Random views (augmentation) of aligned faces, sampled for the whole batch of all workers."""

import torch
from torch import Tensor


def augmentation(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """Parameters of ``count`` random views, shape (count, 10).

    Args:
        count: images.
        strength: 0 changes nothing but mirroring; 1 is usual.
        generator: source of randomness.

    Returns:
        An affine map (6 numbers, as ``affine_grid`` takes them), contrast and three colour shifts.
    """
    random = torch.rand(count, 9, generator=generator) - 0.5
    angle, scale = random[:, 0] * 0.18 * strength, 1 + random[:, 1] * 0.14 * strength
    mirror = torch.where(random[:, 2] < 0, -1.0, 1.0)
    shift = random[:, 3:5] * 0.14 * strength
    affine = torch.stack(
        [
            angle.cos() * scale * mirror, -angle.sin() * scale, shift[:, 0],
            angle.sin() * scale * mirror, angle.cos() * scale, shift[:, 1],
        ],
        dim=1,
    )  # fmt: skip
    contrast = 1 + random[:, 5:6] * 0.4 * strength
    return torch.cat([affine, contrast, random[:, 6:9] * 0.3 * strength], dim=1)


def augment(images: Tensor, parameters: Tensor) -> Tensor:
    """Apply :func:`augmentation` parameters to images in -1..1, shape (N, 3, height, width)."""
    grid = torch.nn.functional.affine_grid(
        parameters[:, :6].view(-1, 2, 3), list(images.shape), align_corners=False
    )
    moved = torch.nn.functional.grid_sample(
        images, grid, padding_mode="reflection", align_corners=False
    )
    coloured = moved * parameters[:, 6].view(-1, 1, 1, 1) + parameters[:, 7:10, None, None]
    return coloured.contiguous(memory_format=torch.channels_last)
