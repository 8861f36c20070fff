"""The attackers' face encoder: a small residual network with a spatial head."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cldmray.faces.records import Pictures
from cldmray.torch_layout import to_unit_range


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder.

    Attributes:
        width: channels of the first of four stages, a multiple of 8; each stage doubles them.
        blocks: residual blocks of the four stages.
        dimensions: length of the embedding.
        pool: side of the last feature map, which keeps where things are in an aligned face.
    """

    width: int = 24
    blocks: tuple[int, ...] = (1, 1, 2, 1)
    dimensions: int = 128
    pool: int = 4

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width: must be a multiple of 8, got {self.width}")
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            raise ValueError(f"blocks: must be four numbers >= 1, got {self.blocks}")
        if self.dimensions < 2 or self.pool < 1:
            raise ValueError("dimensions: must be at least 2, and pool at least 1")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation (He et al. 2016; Wu and He 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(8, outputs)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(8, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(hidden)) + self.skip(x))


class FaceEncoder(nn.Module):
    """Maps pictures to the unit sphere.

    Group normalisation makes every picture's embedding independent of its batch, so that training
    on several workers has the gradients of training on one.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 3, 2, 1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
        ]
        channels = width
        for stage, count in enumerate(config.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(ResidualBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(config.pool)
        self.head = nn.Linear(channels * config.pool**2, config.dimensions)

    def forward(self, pictures: Tensor) -> Tensor:
        """Embeddings of unit norm, float32, shape (N, dimensions).

        Args:
            pictures: in -1..1, shape (N, 3, height, width).
        """
        hidden = self.pool(self.features(pictures)).flatten(1)
        return nn.functional.normalize(self.head(hidden).float(), dim=-1)


@torch.no_grad()
def embed(
    encoder: nn.Module, pictures: Pictures, batch_size: int = 256, device: str = "cpu"
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Embeddings of N >= 1 pictures and their mirror images summed, shape (N, d).

    Returns:
        Unit norm, float32; a picture's embedding does not depend on the batch it is in.
    """
    parts = []
    for start in range(0, len(pictures), batch_size):
        batch = to_unit_range(pictures[start : start + batch_size]).to(device)
        both = encoder(batch) + encoder(batch.flip(-1))
        parts.append(nn.functional.normalize(both, dim=-1).cpu())
    return torch.cat(parts).numpy()
