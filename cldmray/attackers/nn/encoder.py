"""The attackers' face encoder, and the settings of its three kinds.

A small residual network of our own, the public recognizer SFace that goes on learning, or a public
image network (:mod:`cldmray.attackers.nn.backbones`).
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from cldmray.arrays import Images, to_unit_range
from cldmray.attackers.nn import backbones
from cldmray.attackers.nn.backbones import Norm
from cldmray.attackers.nn.sface_student import SFaceStudent
from cldmray.detection import model_files
from cldmray.recognizers import sface_network
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import SFace
from cldmray.settings import Count, checked_dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

Normalisation = Literal["half", "imagenet"]
"""``half`` hands pixels over in -1..1; ``imagenet`` with ImageNet's mean and deviation of each
colour, with which most public weights were trained."""

Dimensions = Annotated[int, Field(ge=2)]
Side = Annotated[int, Field(ge=8)]


class Layers(NamedTuple):
    """The layers of an encoder.

    Attributes:
        features: maps images (N, 3, side, side) to features.
        pool: what follows, before the features are flattened.
        head: maps the flattened features to the embedding.
        side: in pixels, to which images are brought; None leaves them as they are.
    """

    features: nn.Module
    pool: nn.Module
    head: nn.Module
    side: int | None = None


@checked_dataclass
class EncoderConfig(ABC):
    """Shape of an attacker's encoder, and where its weights start.

    One of :class:`SmallEncoder`, :class:`SFaceEncoder` and :class:`BackboneEncoder`.
    """

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of the embedding."""

    @property
    def input_side(self) -> int | None:
        """Side in pixels to which images are brought; None leaves them as they are."""
        return None

    @property
    def normalisation(self) -> Normalisation:
        """In which range the network takes pixels."""
        return "half"

    @property
    def frozen_statistics(self) -> bool:
        """Whether batch normalisation keeps the statistics that it started with."""
        return False

    @property
    def shared_statistics(self) -> bool:
        """Whether training workers must share a batch's statistics, for which they need GPUs."""
        return False

    @property
    def has_unused_parameters(self) -> bool:
        """Whether there may be parameters that no embedding depends on."""
        return False

    @property
    def starts_from(self) -> tuple[Recognizer, ...]:
        """Recognizers whose weights it starts from."""
        return ()

    @abstractmethod
    def layers(self, pretrained: bool) -> Layers:
        """Build the layers; draws random weights from torch's global generator.

        Args:
            pretrained: whether to read pretrained weights; not needed where others are loaded.

        Raises:
            ConfigError, MissingDependencyError: they cannot be built; the message names the key.
        """

    def share_statistics(self, features: nn.Module) -> nn.Module:
        """The features with statistics over the batches of all workers."""
        return features

    def version(self) -> str:
        """Hash of the local files that it names; empty if it names none."""
        return ""

    def check(self) -> None:  # noqa: B027
        """Build a public network once, so that whatever is missing is found out at once.

        Raises:
            ConfigError, MissingDependencyError: as :meth:`layers` says.
        """


@checked_dataclass
class SmallEncoder(EncoderConfig):
    """A small residual network with a spatial head, from random weights.

    Attributes:
        width: channels of the first of four stages, a multiple of 8; each stage doubles them.
        blocks: residual blocks of the four stages.
        dimensions: length of the embedding.
        pool: side of the last feature map, which keeps where things are in an aligned face.
        input_side: side in pixels to which images are brought; None leaves them as they are.
        normalisation: ``half`` or ``imagenet``, see :data:`Normalisation`.

    >>> encoder = FaceEncoder(SmallEncoder(width=8, dimensions=16))
    >>> encoder(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 16])
    """

    width: Annotated[int, Field(gt=0, multiple_of=8)] = 24
    blocks: tuple[Count, Count, Count, Count] = (1, 1, 2, 1)
    dimensions: Dimensions = 128
    pool: Count = 4
    input_side: Side | None = None
    normalisation: Normalisation = "half"

    def layers(self, pretrained: bool) -> Layers:
        width = self.width
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 3, 2, 1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
        ]
        channels = width
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(ResidualBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        head = nn.Linear(channels * self.pool**2, self.dimensions)
        pool = nn.AdaptiveAvgPool2d(self.pool)
        return Layers(nn.Sequential(*layers), pool, head, self.input_side)


@checked_dataclass
class SFaceEncoder(EncoderConfig):
    """The public recognizer SFace, which goes on learning; its embedding has 128 dimensions.

    Needs the extra ``recognizer``; see :mod:`cldmray.attackers.nn.sface_student`.

    Attributes:
        n_frozen_layers: convolutions from the input that keep their weights, 0 to 27.
    """

    n_frozen_layers: NonNegativeInt = 0

    @property
    def dimensions(self) -> int:
        return sface_network.DIMENSION

    @property
    def input_side(self) -> int:
        return sface_network.SIDE

    @property
    def has_unused_parameters(self) -> bool:
        return True

    @property
    def starts_from(self) -> tuple[Recognizer, ...]:
        return (SFace(),)

    def layers(self, pretrained: bool) -> Layers:
        student = SFaceStudent(self.n_frozen_layers)
        return Layers(student, nn.Identity(), nn.Identity(), self.input_side)

    def version(self) -> str:
        return model_files.file_version(model_files.model_file(model_files.SFACE))

    def check(self) -> None:
        FaceEncoder(self)


@checked_dataclass
class BackboneEncoder(EncoderConfig):
    """A public image network whose pooled features go through one linear layer.

    Attributes:
        backbone: ``NAME``, a classification model of torchvision, for example ``resnet50``;
            ``timm:NAME``; or ``transformers:NAME``, where NAME is a local folder or hub id with a
            ``config.json``, or one of ``resnet-18``, ``resnet-34``, ``resnet-50``, ``resnet-101``,
            ``vit-tiny``, ``vit-small``, ``vit-base``.
        pretrained: safetensors of the backbone: a folder or hub id, for torchvision and timm also a
            file. Every worker must be able to read it. None starts with random weights, and so
            does the linear layer in any case.
        norm: what becomes of batch normalisation. ``group`` replaces it by group normalisation (Wu
            and He 2018), so that every image is treated by itself. ``frozen`` keeps the statistics
            of ``pretrained``, which suits its weights best. ``batch`` keeps it; several training
            workers then share statistics, for which they need GPUs. With
            ``training.micro_batch_size`` the statistics are those of a chunk, not of the batch.
        dimensions: length of the embedding.
        input_side: side in pixels to which images are brought; None takes what the backbone asks
            for, or leaves them as they are.
        normalisation: ``half`` or ``imagenet``, see :data:`Normalisation`.
    """

    backbone: str = "transformers:resnet-50"
    pretrained: str | None = None
    norm: Norm = "group"
    dimensions: Dimensions = 128
    input_side: Side | None = None
    normalisation: Normalisation = "half"

    def __post_init__(self) -> None:
        backbones.split_name(self.backbone)
        if self.norm == "frozen" and self.pretrained is None:
            raise ValueError("norm: frozen keeps pretrained statistics, but pretrained is null")

    @property
    def frozen_statistics(self) -> bool:
        return self.norm == "frozen"

    @property
    def shared_statistics(self) -> bool:
        return self.norm == "batch"

    @property
    def has_unused_parameters(self) -> bool:
        return True

    def layers(self, pretrained: bool) -> Layers:
        weights = self.pretrained if pretrained else None
        network, features, side = backbones.load_backbone(
            self.backbone, weights, self.input_side, self.norm
        )
        head = nn.Linear(features, self.dimensions)
        return Layers(network, nn.Identity(), head, self.input_side or side)

    def share_statistics(self, features: nn.Module) -> nn.Module:
        return backbones.synchronised(features, self.backbone)

    def version(self) -> str:
        return backbones.version(self.backbone, self.pretrained)

    def check(self) -> None:
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
        pretrained: whether to read pretrained weights; not needed where others are loaded anyway.

    Raises:
        ConfigError, MissingDependencyError: as :meth:`EncoderConfig.layers` says.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: EncoderConfig, pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.features, self.pool, self.head, self.side = config.layers(pretrained)
        if config.normalisation == "imagenet":
            self.mean = nn.Buffer(_colours(IMAGENET_MEAN), persistent=False)
            self.deviation = nn.Buffer(_colours(IMAGENET_DEVIATION), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen statistics stay frozen."""
        super().train(mode)
        if self.config.frozen_statistics:
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
