"""Identity and perceptual losses of reconstructions: differentiable distances in SFace."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cldmray.attackers.nn.sface_student import SlopedUnit
from cldmray.attackers.nn.training import autocast
from cldmray.recognizers.base import Device
from cldmray.recognizers.sface import SFace
from cldmray.recognizers.sface_network import SFaceNet

EPSILON = 1e-6


class Distances(NamedTuple):
    """Distances of each pair of images, shape (n,).

    Attributes:
        identity: 1 - cosine of the embeddings, in 0..2.
        perceptual: mean squared difference of intermediate features, in 0..4.
    """

    identity: Tensor
    perceptual: Tensor


class FaceGuide:
    """A frozen SFace that gives its embeddings and its intermediate features.

    The features are those that its layers of stride 2, but for the first, read, at 56, 28 and 14
    pixels; each place's features are brought to unit norm over the channels before they are
    compared, as in Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", 2018, without that paper's learnt weights.

    Args:
        recognizer: its ``crop`` says where the faces are; they must be aligned, whatever its
            ``align``.
        device: of torch.
        precision: ``bf16`` or ``fp32``.

    Raises:
        MissingDependencyError: the extra ``recognizer`` is not installed.
    """

    def __init__(self, recognizer: SFace, device: str, precision: str) -> None:
        kind: Device = "cuda" if device.startswith("cuda") else "cpu"
        network: SFaceNet = replace(recognizer, device=kind).network()
        self.mean, self.factor, self.side = network.mean, network.factor, recognizer.side
        self.layers = [
            SlopedUnit(layer.weight) if isinstance(layer, nn.PReLU) else layer
            for layer in network.layers
        ]
        halving = [n for n, layer in enumerate(self.layers) if _stride(layer) == 2]
        self.taps = frozenset(halving[1:])
        self.crop = recognizer.square
        self.precision = precision

    def __call__(self, reconstructions: Tensor, originals: Tensor) -> Distances:
        """Distances of images in -1..1, shape (n, 3, h, w), h = w; no gradient to the images."""
        with torch.no_grad():
            target, target_features = self._look(originals)
        embedding, features = self._look(reconstructions)
        differences = [
            (feature - target_feature).square().sum(1).mean((1, 2))
            for feature, target_feature in zip(features, target_features, strict=True)
        ]
        return Distances(1 - (embedding * target).sum(1), torch.stack(differences).mean(0))

    def _look(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embeddings (n, 128) of unit norm, and features of unit norm over the channels."""
        with autocast(self.precision, images.device.type):
            x = ((cropped(images, self.crop, self.side) + 1) * 127.5 - self.mean) * self.factor
            x = x.contiguous(memory_format=torch.channels_last)
            features = []
            for number, layer in enumerate(self.layers):
                if number in self.taps:
                    norm = x.float().square().sum(1, keepdim=True).add(EPSILON).sqrt()
                    features.append(x.float() / norm)
                x = layer(x)
        return functional.normalize(x.float(), dim=1), features


def _stride(layer: nn.Module) -> int:
    return int(layer.stride[0]) if isinstance(layer, nn.Conv2d) else 1


def cropped(images: Tensor, crop: tuple[float, float, float, float], side: int) -> Tensor:
    """The square of a recognizer's ``crop``, shape (n, 3, side, side); reflected beyond the edge.

    Args:
        images: square, shape (n, 3, h, h).
        crop: left, top, right, bottom as shares of the image's side.
        side: of the result, pixels; images that the crop shrinks are averaged first.
    """
    left, top, right, bottom = crop
    width = right - left
    if images.shape[-1] * width > side:
        smaller = round(side / width)
        images = functional.interpolate(images, (smaller, smaller), mode="bilinear", antialias=True)
    theta = images.new_tensor([[width, 0.0, left + right - 1], [0.0, width, top + bottom - 1]])
    grid = functional.affine_grid(
        theta.expand(len(images), 2, 3), [len(images), 3, side, side], align_corners=False
    )
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
