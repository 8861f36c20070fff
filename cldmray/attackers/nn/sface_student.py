"""SFace as an encoder that is trained further, from its public weights."""

from typing import Any

import torch
from torch import Tensor, nn

from cldmray.detection.model_files import SFACE, model_file
from cldmray.errors import ConfigError
from cldmray.recognizers.sface_network import load_sface


class SlopedUnit(nn.Module):
    """A parametric ReLU whose slopes stay as they are.

    Its own backward pass: torch's, which also sums the slopes' gradients, takes as long as all
    convolutions together on a CPU.
    """

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = nn.Buffer(slopes.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _FixedSlopes.apply(x, self.slopes.to(x.dtype))  # type: ignore[no-untyped-call]
        return output


class _FixedSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x, slopes)
        return torch.prelu(x, slopes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, slopes = ctx.saved_tensors
        return torch.where(x > 0, gradient, gradient * slopes[:, None, None]), None


class SFaceStudent(nn.Module):
    """SFace's layers over whole images, not aligned or cropped: hair helps to identify, too.

    Args:
        n_frozen_layers: convolutions from the input that keep their weights, 0 to 27.

    Raises:
        MissingDependencyError: the extra ``recognizer`` is not installed.
        ConfigError: ``n_frozen_layers`` is out of range.
    """

    def __init__(self, n_frozen_layers: int) -> None:
        super().__init__()
        network = load_sface(model_file(SFACE)).requires_grad_(True)
        convolutions = 0
        for place, layer in enumerate(network.layers):
            convolutions += isinstance(layer, nn.Conv2d)
            if convolutions <= n_frozen_layers:
                layer.requires_grad_(False)
            if isinstance(layer, nn.PReLU):
                network.layers[place] = SlopedUnit(layer.weight)
        if not 0 <= n_frozen_layers <= convolutions:
            raise ConfigError(
                f"encoder.n_frozen_layers: must be in 0..{convolutions}, got {n_frozen_layers}"
            )
        self.network = network

    def train(self, mode: bool = True) -> "SFaceStudent":
        """Its one batch normalisation keeps its statistics, so that training is evaluation, too."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of unit norm, float32, shape (N, 128).

        Args:
            images: in -1..1, shape (N, 3, SIDE, SIDE) with :data:`sface_network.SIDE`.
        """
        embeddings: Tensor = self.network((images + 1) * 127.5)
        return embeddings
