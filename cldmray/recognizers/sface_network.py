"""SFace as a torch network, rebuilt from its ONNX file: differentiable, and fast on one thread."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from cldmray.arrays import channels_last
from cldmray.detection.model_files import load_module
from cldmray.errors import BadInputError

Array = npt.NDArray[Any]
SIDE = 112
DIMENSION = 128


class SFaceNet(nn.Module):
    """The recognizer of Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face
    Recognition", TIP 2021: a MobileFaceNet with 128 outputs.

    Attributes:
        layers: of the network, batch normalisation folded in where it follows a weighted layer.
        mean, factor: a pixel v in 0..255 enters the layers as (v - mean) * factor.
    """

    def __init__(self, layers: list[nn.Module], mean: float, factor: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.mean = mean
        self.factor = factor

    def forward(self, faces: Tensor) -> Tensor:
        """Embeddings of unit norm, float32, shape (N, 128), differentiable in the faces.

        Args:
            faces: aligned faces, RGB in 0..255, shape (N, 3, 112, 112).
        """
        raw = self.layers((faces - self.mean) * self.factor)
        return nn.functional.normalize(raw.float(), dim=-1)


def load_sface(path: Path) -> SFaceNet:
    """The network in an SFace ONNX file, in evaluation mode, its weights frozen.

    Args:
        path: OpenCV zoo's file; float32 or int8 block-quantised.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        BadInputError: the file is no chain of the layers that SFace has.
    """
    graph = load_module("onnx").load(str(path)).graph
    return read_graph(graph, path.name)


def read_graph(graph: Any, name: str) -> SFaceNet:
    """:func:`load_sface` of an opened ``onnx.GraphProto``; ``name`` stands in messages."""
    read = load_module("onnx").numpy_helper.to_array
    constants: dict[str, Array] = {value.name: read(value) for value in graph.initializer}
    scalars: dict[str, float] = {}
    layers: list[nn.Module] = []
    current = next(value.name for value in graph.input if value.name not in constants)
    for node in graph.node:
        kind, inputs, output = node.op_type, list(node.input), node.output[0]
        if kind == "Constant":
            continue
        if inputs[0] != current:
            values = [constants.get(key) for key in inputs]
            constants[output] = _folded(node, values, name)
            continue
        weights = [constants[key] for key in inputs[1:] if key in constants]
        if kind in ("Sub", "Mul") and not layers and kind not in scalars:
            scalars[kind] = weights[0].item()
        else:
            _append(layers, node, [torch.tensor(np.array(value)) for value in weights], name)
        current = output
    if current != graph.output[0].name:
        raise BadInputError(f"{name}: the layers do not lead to the output {graph.output[0].name}")
    network = SFaceNet(layers, scalars.get("Sub", 0.0), scalars.get("Mul", 1.0))
    return channels_last(network.eval().requires_grad_(False))


def _folded(node: Any, inputs: list[Array | None], name: str) -> Array:
    """Value of a node that depends on weights only."""
    values = [value for value in inputs if value is not None]
    if len(values) == len(inputs):
        if node.op_type == "DequantizeLinear":
            return _dequantized(node, *values)
        if node.op_type == "Reshape":
            return values[0].reshape(values[1])
    raise BadInputError(
        f"{name}: the node {node.op_type} {node.name!r} is outside of SFace's chain"
    )


def _dequantized(node: Any, quantised: Array, scales: Array, zeros: Array) -> Array:
    """Weights (q - zero) * scale, with one scale and zero for each block along an axis."""
    options = _options(node)
    axis, block = options.get("axis", 1), options.get("block_size", 0)
    if block:
        length = range(quantised.shape[axis])
        scales, zeros = (
            np.repeat(part, block, axis).take(length, axis) for part in (scales, zeros)
        )
    return (quantised.astype(np.float32) - zeros.astype(np.float32)) * scales


def _append(layers: list[nn.Module], node: Any, weights: list[Tensor], name: str) -> None:
    """Add the layer of one node; a batch normalisation joins the weighted layer before it."""
    options = _options(node)
    if node.op_type == "Conv":
        layers.append(_convolution(options, weights))
    elif node.op_type == "BatchNormalization":
        norm = _normalisation(options, weights)
        last = layers[-1] if layers else None
        if isinstance(last, nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(last, norm)
        elif isinstance(last, nn.Linear):
            layers[-1] = fuse_linear_bn_eval(last, norm)
        else:
            layers.append(norm)
    elif node.op_type == "PRelu":
        slope = nn.PReLU(weights[0].numel())
        slope.weight = nn.Parameter(weights[0].flatten())
        layers.append(slope)
    elif node.op_type == "Gemm" and options.get("transB"):
        linear = nn.Linear(weights[0].shape[1], weights[0].shape[0]).eval()
        linear.weight, linear.bias = (nn.Parameter(value) for value in weights)
        layers.append(linear)
    elif node.op_type == "Flatten":
        layers.append(nn.Flatten())
    elif node.op_type != "Dropout":
        raise BadInputError(f"{name}: SFace has no layer {node.op_type}")


def _convolution(options: dict[str, Any], weights: list[Tensor]) -> nn.Conv2d:
    kernel = weights[0]
    groups, pads = options.get("group", 1), options.get("pads", [0, 0, 0, 0])
    layer = nn.Conv2d(
        kernel.shape[1] * groups,
        kernel.shape[0],
        (kernel.shape[2], kernel.shape[3]),
        tuple(options.get("strides", [1, 1])),
        (pads[0], pads[1]),
        groups=groups,
        bias=len(weights) > 1,
    ).eval()
    layer.weight = nn.Parameter(kernel)
    if len(weights) > 1:
        layer.bias = nn.Parameter(weights[1])
    return layer


def _normalisation(options: dict[str, Any], weights: list[Tensor]) -> nn.BatchNorm2d:
    gamma, beta, mean, variance = weights
    norm = nn.BatchNorm2d(gamma.numel(), eps=options.get("epsilon", 1e-5)).eval()
    norm.weight, norm.bias = nn.Parameter(gamma), nn.Parameter(beta)
    norm.running_mean, norm.running_var = mean, variance
    return norm


def _options(node: Any) -> dict[str, Any]:
    value = load_module("onnx").helper.get_attribute_value
    return {option.name: value(option) for option in node.attribute}
