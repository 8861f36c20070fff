"""Depth network, a small U-Net that estimates a face's depth from one image."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from cldmray.settings import checked_dataclass

GROUPS = 8


@checked_dataclass
class DepthArchitecture:
    """Widths of the network.

    Attributes:
        size: side in pixels at which it looks, a multiple of ``2 ** (len(channels) - 1)``.
        channels: of each level, from full resolution down; multiples of 8.
    """

    size: Annotated[int, Field(ge=1)] = 64
    channels: Annotated[
        tuple[Annotated[int, Field(ge=GROUPS, multiple_of=GROUPS)], ...], Field(min_length=2)
    ] = (16, 32, 64, 96)

    def __post_init__(self) -> None:
        if self.size % 2 ** (len(self.channels) - 1):
            raise ValueError(f"size: {self.size} cannot be halved {len(self.channels) - 1} times")


class DepthNetwork(nn.Module):
    """A U-Net (Ronneberger, Fischer and Brox 2015) with one output channel."""

    def __init__(self, architecture: DepthArchitecture) -> None:
        super().__init__()
        widths = architecture.channels
        self.down = nn.ModuleList(
            _block(before, width) for before, width in zip((3, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            _block(below + width, width)
            for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Relative depth, shape (N, 1, h, w): near 1, background 0, not clipped.

        Args:
            images: in -1..1, shape (N, 3, h, w), sides as ``DepthArchitecture.size`` demands.
        """
        kept: list[Tensor] = []
        hidden = images
        for level, block in enumerate(self.down):
            hidden = block(nn.functional.avg_pool2d(hidden, 2) if level else hidden)
            kept.append(hidden)
        kept.pop()
        for block in self.up:
            hidden = nn.functional.interpolate(hidden, scale_factor=2.0, mode="nearest")
            hidden = block(torch.cat([hidden, kept.pop()], 1))
        depth: Tensor = self.head(hidden)
        return depth


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.GroupNorm(GROUPS, after),
        nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1),
        nn.GroupNorm(GROUPS, after),
        nn.SiLU(),
    )


def depth_loss(guess: Tensor, truth: Tensor) -> Tensor:
    """L1 of depth plus L1 of its slopes; both arguments of shape (N, 1, h, w)."""
    loss = (guess - truth).abs().mean()
    for axis in (-1, -2):
        loss = loss + (torch.diff(guess, dim=axis) - torch.diff(truth, dim=axis)).abs().mean()
    return loss
