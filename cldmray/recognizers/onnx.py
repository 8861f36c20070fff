"""Any face recognizer in an ONNX file."""

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cldmray.arrays import Images
from cldmray.detection.model_files import file_version, load_module
from cldmray.errors import BadInputError, ConfigError
from cldmray.hashing import digest
from cldmray.recognizers.base import Recognizer
from cldmray.results.names import Label, as_label
from cldmray.settings import NonEmpty, checked_dataclass

ERRORS_ONLY = 3


@checked_dataclass
class OnnxRecognizer(Recognizer):
    """Any recognizer in an ONNX file, for example InsightFace's ArcFace models (Deng et al. 2019).

    Its first output for faces (N, 3, side, side), or (N, side, side, 3), must be their embeddings
    (N, d); the batch axis may be open or fixed to 1. Faces are aligned to ArcFace's template. Needs
    the extra ``recognizer``; ``OMP_NUM_THREADS`` limits its threads.

    Attributes:
        path: of the file.
        input_side: side in pixels of the faces that it reads.
        mean, deviation: a pixel v in 0..255 enters it as (v - mean) / deviation.
            InsightFace's models take 127.5 and 127.5, some others 127.5 and 128.
        channels: order of the colours, ``rgb`` or ``bgr``.
        layout: ``nchw``, colours before rows and columns, as torch has them, or ``nhwc``, after
            them, as TensorFlow has.
        label: name in tables; None: the file's name.
    """

    path: NonEmpty
    input_side: Annotated[int, Field(ge=8)] = 112
    mean: float = 127.5
    deviation: Annotated[float, Field(gt=0)] = 127.5
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    label: Label | None = None

    @property
    def name(self) -> str:
        return self.label or as_label(Path(self.path).stem)

    @property
    def side(self) -> int:
        return self.input_side

    @property
    def dimension(self) -> int:
        return _dimension(replace(self, device="cpu"), self.version())

    def version(self) -> str:
        file = _onnx_file(self.path)
        own = file_version(file)
        weights = _weight_files(file, own)
        for path in weights:
            if not path.is_file():
                raise BadInputError(f"path: {file} has weights in {path.name}, which is not there")
        return digest(own, *map(file_version, weights))[:16] if weights else own

    def embed_aligned(self, faces: Images) -> npt.NDArray[np.floating[Any]]:
        session = _session(_onnx_file(self.path), self.version(), self.device)
        entry = session.get_inputs()[0]
        shape = list(entry.shape)
        wanted = [3, self.side, self.side] if self.layout == "nchw" else [self.side, self.side, 3]
        if len(shape) != 4 or any(
            isinstance(size, int) and size != side
            for size, side in zip(shape[1:], wanted, strict=True)
        ):
            expected = ", ".join(map(str, wanted))
            raise BadInputError(
                f"{self.path}: its input is {shape}, not (N, {expected}), as input_side and layout "
                "say"
            )
        ordered = faces if self.channels == "rgb" else faces[..., ::-1]
        placed = ordered.transpose(0, 3, 1, 2) if self.layout == "nchw" else ordered
        batch = (placed.astype(np.float32) - self.mean) / self.deviation
        step = shape[0] if isinstance(shape[0], int) else len(batch)
        if step not in (1, len(batch)):
            raise BadInputError(
                f"{self.path}: its batch axis is fixed to {step}; only 1 is supported"
            )
        parts = [
            session.run(None, {entry.name: np.ascontiguousarray(batch[start : start + step])})[0]
            for start in range(0, len(batch), step)
        ]
        return np.concatenate(parts)


@functools.cache
def _dimension(recognizer: OnnxRecognizer, version: str) -> int:
    """Numbers in an embedding; other weights, of which the version tells, may give more."""
    black = np.zeros((1, recognizer.side, recognizer.side, 3), np.uint8)
    return int(recognizer.embed_aligned(black).shape[-1])


@functools.lru_cache(maxsize=256)
def _weight_files(path: Path, version: str) -> list[Path]:
    """The files beside the model's own that hold weights.

    Args:
        version: of the model's own file; another one may name others.
    """
    onnx = load_module("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise BadInputError(f"{path} is no ONNX file: {error}") from error
    nodes = chain(model.graph.node, *(function.node for function in model.functions))
    locations = {
        entry.value
        for tensor in chain(model.graph.initializer, _constants(nodes))
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / location for location in sorted(locations)]


def _constants(nodes: Iterable[Any]) -> Iterator[Any]:
    """Tensors in the attributes of nodes, and in the graphs there."""
    for attribute in chain.from_iterable(node.attribute for node in nodes):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from graph.initializer
            yield from _constants(graph.node)


def _onnx_file(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadInputError(f"path: no ONNX file {file}")
    return file


@functools.cache
def _session(path: Path, version: str, device: str) -> Any:
    """The network in a file, loaded once a process for each version of the file."""
    runtime = load_module("onnxruntime")
    cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
    if device == "cuda" and not cuda:
        raise ConfigError("device is 'cuda', but onnxruntime is without CUDA: onnxruntime-gpu")
    providers = ["CUDAExecutionProvider"] if cuda and device != "cpu" else []
    runtime.disable_telemetry_events()
    options = runtime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    try:
        return runtime.InferenceSession(
            _with_true_inputs(path), options, [*providers, "CPUExecutionProvider"]
        )
    except Exception as error:
        raise BadInputError(f"{path} is no ONNX file that can be run: {error}") from error


def _with_true_inputs(path: Path) -> bytes:
    """The model with those graph inputs only that a caller must give.

    SFace's file lists its weights among them, and onnxruntime would ask for each.
    """
    model = load_module("onnx").load(str(path))
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    read -= {weights.name for weights in graph.initializer}
    for entry in list(graph.input):
        if entry.name not in read:
            graph.input.remove(entry)
    content: bytes = model.SerializeToString()
    return content
