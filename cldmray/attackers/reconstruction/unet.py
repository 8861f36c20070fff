"""Reconstruction by regression: a U-Net gives the most likely original."""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from cldmray.arrays import Images, channels_last, to_unit_range
from cldmray.attackers.nn.encoder import ResidualBlock
from cldmray.attackers.nn.training import Call, on_cpu
from cldmray.attackers.reconstruction.base import (
    ReconstructionBatch,
    Reconstructor,
    Seeds,
    TrainedReconstructionModel,
    to_pixels,
)
from cldmray.conditions.base import Condition
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import SFace
from cldmray.settings import Count, checked_dataclass

IMAGES_AT_ONCE = 64


@checked_dataclass
class UNetReconstruction(TrainedReconstructionModel):
    """A small U-Net (Ronneberger, Fischer and Brox 2015) from anonymized images to originals.

    It minimizes the absolute difference of the pixels, in -1..1, plus SFace's identity and
    perceptual losses (:class:`~cldmray.attackers.reconstruction.guidance.FaceGuide`), so that it
    prefers a sharp face of the right person to the mean of all that are possible. The held-out
    recognizer must be another.

    Attributes:
        widths: channels of its levels, multiples of 8; each halves the one before.
        blocks: residual blocks of each level, down and up.
        patch_size: squares of so many pixels a side are one place of the first level.
        condition: extractor whose maps of the images it reads beside them; None: the images
            alone.
        identity: weight of the identity loss; 0 leaves it out.
        perceptual: weight of the perceptual loss; 0 leaves it out. Where both are 0, the extra
            ``recognizer`` is not needed.
        looked_at: share of each batch, in 0..1, on which the recognizer's losses are computed;
            they take most of the time.
        guide: the recognizer of both; its ``crop`` says where the images' faces are.
    """

    widths: Annotated[
        tuple[Annotated[int, Field(gt=0, multiple_of=8)], ...], Field(min_length=1)
    ] = (48, 96, 128, 160)
    blocks: Count = 1
    patch_size: Count = 2
    condition: Condition | None = None
    identity: NonNegativeFloat = 0.5
    perceptual: NonNegativeFloat = 0.5
    looked_at: Annotated[float, Field(gt=0, le=1)] = 0.5
    guide: SFace = field(default_factory=SFace)

    @property
    def kind(self) -> str:
        return "unet"

    @property
    def guided(self) -> bool:
        """Whether the recognizer has a say."""
        return self.identity > 0 or self.perceptual > 0

    @property
    def learns_with(self) -> tuple[Recognizer, ...]:
        return (self.guide,) if self.guided else ()

    def check(self) -> None:
        if self.guided:
            self.guide.check()

    def build(self, device: str = "cpu") -> "UNetReconstructor":
        return UNetReconstructor(self, device)


class UNetReconstructor(Reconstructor):
    """See :class:`UNetReconstruction`."""

    def __init__(self, config: UNetReconstruction, device: str) -> None:
        torch.manual_seed(config.training.seed)
        self.config = config
        self.device = device
        inputs = 3 if config.condition is None else 6
        self.unet = FaceUNet(inputs, config.widths, config.blocks, config.patch_size)
        self.network = channels_last(self.unet).to(device)
        self.guide = None
        if config.guided:
            from cldmray.attackers.reconstruction.guidance import FaceGuide

            self.guide = FaceGuide(config.guide, device, config.training.precision)

    def maps(self, anonymized: Images) -> Images | None:
        condition = self.config.condition
        return None if condition is None else condition(anonymized)

    def loss(self, network: Call, batch: ReconstructionBatch) -> Tensor:
        seen = batch.anonymized
        if batch.maps is not None:
            seen = torch.cat([seen, batch.maps], dim=1)
        drawn: Tensor = network(seen).float()
        loss: Tensor = (drawn - batch.originals).abs().mean()
        if self.guide is not None:
            some = math.ceil(self.config.looked_at * len(drawn))
            far = self.guide(drawn[:some], batch.originals[:some])
            loss = loss + self.config.identity * far.identity.mean()
            loss = loss + self.config.perceptual * far.perceptual.mean()
        return loss

    @torch.no_grad()
    def _reconstruct(self, images: Images, seeds: Seeds) -> Images:
        drawn = np.empty((len(images), 1, *images.shape[1:]), np.uint8)
        for start in range(0, len(images), IMAGES_AT_ONCE):
            part = images[start : start + IMAGES_AT_ONCE]
            seen = to_unit_range(part)
            maps = self.maps(part)
            if maps is not None:
                seen = torch.cat([seen, to_unit_range(maps)], dim=1)
            drawn[start : start + len(part), 0] = to_pixels(self.unet(seen.to(self.device)))
        return drawn

    def state(self) -> dict[str, Tensor]:
        return on_cpu(self.unet.state_dict())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.unet.load_state_dict(state)


class FaceUNet(nn.Module):
    """Draws an image out of an image: a share of it, which is learnt, plus what the levels add.

    Before its first step it hands the image on as it is.

    Args:
        inputs: channels; the first three are the image.
        widths, blocks, patch_size: see :class:`UNetReconstruction`.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], blocks: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.factor = patch_size * 2 ** (len(widths) - 1)
        self.first = nn.Conv2d(inputs * patch_size**2, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            max_steps = [ResidualBlock(before, width, 2 if level else 1)]
            max_steps += [ResidualBlock(width, width, 1) for _ in range(blocks - 1)]
            self.down.append(nn.Sequential(*max_steps))
            before = width
        for width in reversed(widths[:-1]):
            max_steps = [ResidualBlock(before + width, width, 1)]
            max_steps += [ResidualBlock(width, width, 1) for _ in range(blocks - 1)]
            self.up.append(nn.Sequential(*max_steps))
            before = width
        self.last = nn.Conv2d(widths[0], 3 * patch_size**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.share = nn.Parameter(torch.ones(()))

    def forward(self, seen: Tensor) -> Tensor:
        """Images, shape (N, 3, h, w), about -1..1.

        Args:
            seen: in -1..1, shape (N, inputs, h, w).

        Raises:
            BadInputError: the images are smaller than one place of the last level.
        """
        height, width = seen.shape[-2:]
        if min(height, width) < self.factor:
            raise BadInputError(f"images of {width}x{height} pixels are too small for the U-Net")
        padding = (0, -width % self.factor, 0, -height % self.factor)
        padded = functional.pad(seen, padding, mode="replicate")
        x = self.first(functional.pixel_unshuffle(padded, self.patch_size))
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
        kept.pop()
        for level in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = level(torch.cat([x, kept.pop()], dim=1))
        added = functional.pixel_shuffle(self.last(torch.relu(x)), self.patch_size)
        return self.share * seen[:, :3] + added[..., :height, :width]
