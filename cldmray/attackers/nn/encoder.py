"""The attackers' face encoder: a small residual network with a spatial head, or a public network.

The public ones are in :mod:`cldmray.attackers.nn.backbones`.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from cldmray.arrays import Images, to_unit_range
from cldmray.attackers.nn import backbones
from cldmray.attackers.nn.backbones import Norm
from cldmray.attackers.nn.sface_student import SFaceStudent
from cldmray.detection import model_files
from cldmray.recognizers import sface_network

SMALL = "small"
SFACE = "sface"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder, and where its weights start.

    Attributes:
        width: channels of the first of four stages, a multiple of 8; each stage doubles them.
            Only of the backbone ``small``, as are ``blocks`` and ``pool``.
        blocks: residual blocks of the four stages.
        dimensions: length of the embedding.
        pool: side of the last feature map, which keeps where things are in an aligned face.
        backbone: ``small``, a residual network of our own; ``sface``, the public recognizer that
            goes on learning (:mod:`cldmray.attackers.nn.sface_student`); ``NAME``, a classification
            model of torchvision, for example ``resnet50``; ``timm:NAME``; or ``transformers:NAME``,
            where NAME is a local folder or hub id with a ``config.json``, or one of ``resnet-18``,
            ``resnet-34``, ``resnet-50``, ``resnet-101``, ``vit-tiny``, ``vit-small``, ``vit-base``.
            Its pooled features go through one linear layer.
        pretrained: safetensors of the backbone: a folder or hub id, for torchvision and timm also a
            file. Every worker must be able to read it. None starts with random weights, and so
            does the linear layer in any case.
        input_side: side in pixels to which images are brought; None takes what the backbone
            asks for, or leaves them as they are.
        normalisation: ``half`` hands pixels over in -1..1; ``imagenet`` with ImageNet's mean and
            deviation of each colour, with which most public weights were trained.
        norm: what becomes of a backbone's batch normalisation. ``group`` replaces it by group
            normalisation (Wu and He 2018), so that every image is treated by itself. ``frozen``
            keeps the statistics of ``pretrained``, which suits its weights best. ``batch`` keeps
            it; several training workers then share statistics, for which they need GPUs. With
            ``training.micro_batch_size`` the statistics are those of a chunk, not of the batch.
        frozen: convolutions from the input that keep their weights; only of ``sface``.
    """

    width: int = 24
    blocks: tuple[int, ...] = (1, 1, 2, 1)
    dimensions: int = 128
    pool: int = 4
    backbone: str = SMALL
    pretrained: str | None = None
    input_side: int | None = None
    normalisation: Literal["half", "imagenet"] = "half"
    norm: Norm = "group"
    n_frozen_layers: int = 0

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width: must be a multiple of 8, got {self.width}")
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            raise ValueError(f"blocks: must be four numbers >= 1, got {self.blocks}")
        if self.dimensions < 2 or self.pool < 1:
            raise ValueError("dimensions: must be at least 2, and pool at least 1")
        if self.input_side is not None and self.input_side < 8:
            raise ValueError(f"input_side: must be at least 8 pixels, got {self.input_side}")
        own = self.backbone in (SMALL, SFACE)
        if not own:
            backbones.split_name(self.backbone)
        elif self.pretrained is not None:
            raise ValueError(f"pretrained: not of the backbone {self.backbone}; set it to null")
        elif self.norm != "group":
            raise ValueError(f"norm: not of the backbone {self.backbone}; set it to group")
        if self.backbone == SFACE and self.dimensions != sface_network.DIMENSION:
            raise ValueError(
                f"dimensions: SFace has {sface_network.DIMENSION}, got {self.dimensions}"
            )
        if self.n_frozen_layers < 0 or (self.n_frozen_layers and self.backbone != SFACE):
            raise ValueError(
                f"n_frozen_layers: at least 0, and only of sface, got {self.n_frozen_layers}"
            )
        if self.norm == "frozen" and self.pretrained is None:
            raise ValueError("norm: frozen keeps pretrained statistics, but pretrained is null")

    def version(self) -> str:
        """Hash of the local files that it names; empty if it names none."""
        if self.backbone == SFACE:
            return model_files.file_version(model_files.model_file(model_files.SFACE))
        return "" if self.backbone == SMALL else backbones.version(self.backbone, self.pretrained)

    def check(self) -> None:
        """Build a public network once, so that whatever is missing is found out at once.

        Raises:
            ConfigError, MissingDependencyError: as :func:`backbones.load_backbone` says.
        """
        if self.backbone != SMALL:
            FaceEncoder(self)


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
    """Maps images to the unit sphere.

    Group normalisation makes every image's embedding independent of its batch, so that training
    on several workers has the gradients of training on one. Batch normalisation, where it is kept,
    does so after training only.

    Args:
        config: its shape.
        pretrained: whether to read the weights that ``config.pretrained`` names; not needed where
            others are loaded anyway.

    Raises:
        ConfigError, MissingDependencyError: as :func:`backbones.load_backbone` says.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: EncoderConfig, pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.side = config.input_side
        self.pool: nn.Module = nn.Identity()
        if config.backbone == SFACE:
            self.features: nn.Module = SFaceStudent(config.n_frozen_layers)
        elif config.backbone == SMALL:
            self.features, channels = _small(config)
            self.pool = nn.AdaptiveAvgPool2d(config.pool)
            inputs = channels * config.pool**2
        else:
            weights = config.pretrained if pretrained else None
            self.features, inputs, side = backbones.load_backbone(
                config.backbone, weights, config.input_side, config.norm
            )
            self.side = config.input_side or side
        self.head: nn.Module = nn.Identity()
        if config.backbone != SFACE:
            self.head = nn.Linear(inputs, config.dimensions)
        if config.normalisation == "imagenet":
            self.mean = nn.Buffer(_colours(IMAGENET_MEAN), persistent=False)
            self.deviation = nn.Buffer(_colours(IMAGENET_DEVIATION), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen statistics stay frozen."""
        super().train(mode)
        if self.config.norm == "frozen":
            backbones.freeze_batch_norms(self)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of unit norm, float32, shape (N, dimensions).

        Args:
            images: in -1..1, shape (N, 3, height, width).
        """
        if self.side is not None and images.shape[-2:] != (self.side, self.side):
            images = nn.functional.interpolate(
                images, (self.side, self.side), mode="bilinear", antialias=True
            )
        if self.config.normalisation == "imagenet":
            images = ((images + 1) / 2 - self.mean) / self.deviation
        hidden = self.pool(self.features(images)).flatten(1)
        return nn.functional.normalize(self.head(hidden).float(), dim=-1)


def _small(config: EncoderConfig) -> tuple[nn.Module, int]:
    """Layers of the backbone ``small``, and the channels of their output."""
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
    return nn.Sequential(*layers), channels


def _colours(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


@torch.no_grad()
def embed(
    encoder: nn.Module, images: Images, batch_size: int = 256, device: str = "cpu"
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Embeddings of N >= 1 images and their mirror images summed, shape (N, d).

    Returns:
        Unit norm, float32; an image's embedding does not depend on the batch it is in.
    """
    parts = []
    for start in range(0, len(images), batch_size):
        batch = to_unit_range(images[start : start + batch_size]).to(device)
        both = encoder(batch) + encoder(batch.flip(-1))
        parts.append(nn.functional.normalize(both, dim=-1).cpu())
    return torch.cat(parts).numpy()
