import numpy as np
import pytest
import torch

from cldmray.arrays import Images, to_unit_range
from cldmray.attackers.nn.encoder import FaceEncoder, SmallEncoder, embed

TINY = SmallEncoder(width=8, dimensions=16, pool=2)


@pytest.fixture
def encoder() -> FaceEncoder:
    torch.manual_seed(0)
    return FaceEncoder(TINY).eval()


@pytest.fixture
def noise() -> Images:
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "key"),
        [
            ({"width": 4}, "width"),
            ({"width": 12}, "width"),
            ({"blocks": (1, 1, 1)}, "blocks"),
            ({"blocks": (1, 1, 0, 1)}, "blocks"),
            ({"dimensions": 1}, "dimensions"),
            ({"pool": 0}, "pool"),
        ],
    )
    def test_errors_name_the_key(self, settings: dict[str, object], key: str) -> None:
        with pytest.raises(ValueError, match=key):
            SmallEncoder(**settings)  # type: ignore[arg-type]

    def test_blocks_make_layers(self) -> None:
        def size(*blocks: int) -> int:
            return sum(p.numel() for p in FaceEncoder(SmallEncoder(8, blocks)).parameters())

        assert size(1, 1, 1, 1) < size(1, 1, 1, 2) < size(2, 2, 2, 2)


class TestEncoder:
    @pytest.mark.parametrize("side", [16, 32, 64])
    def test_unit_norm_at_every_size(self, encoder: FaceEncoder, side: int) -> None:
        actual = encoder(torch.randn(3, 3, side, side))
        assert actual.shape == (3, 16)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)

    def test_unit_norm_under_autocast(self, encoder: FaceEncoder) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            actual = encoder(torch.randn(3, 3, 32, 32))
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("training", [True, False])
    def test_an_embedding_does_not_depend_on_its_neighbours(
        self, encoder: FaceEncoder, noise: Images, training: bool
    ) -> None:
        encoder.train(training)
        whole = encoder(to_unit_range(noise))
        alone = torch.cat([encoder(to_unit_range(noise[row : row + 1])) for row in range(7)])
        torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)

    def test_images_differ(self, encoder: FaceEncoder, noise: Images) -> None:
        actual = embed(encoder, noise)
        assert np.triu(actual @ actual.T, 1).max() < 1 - 1e-4


class TestToTensor:
    def test_range_and_order(self) -> None:
        images = np.zeros((1, 2, 3, 3), np.uint8)
        images[0, 1, 2] = (255, 0, 51)
        actual = to_unit_range(images)
        assert actual.shape == (1, 3, 2, 3)
        np.testing.assert_allclose(actual[0, :, 1, 2], [1, -1, -0.6], atol=1e-6)
        assert float(actual[0, 0, 0, 0]) == -1

    def test_takes_read_only_and_mirrored_images(self, noise: Images) -> None:
        noise.setflags(write=False)
        torch.testing.assert_close(to_unit_range(noise[:, :, ::-1]), to_unit_range(noise).flip(-1))


class TestEmbed:
    def test_batches_change_nothing(self, encoder: FaceEncoder, noise: Images) -> None:
        whole, cut = embed(encoder, noise), embed(encoder, noise, batch_size=3)
        np.testing.assert_allclose(cut, whole, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
        assert whole.dtype == np.float32

    def test_a_mirrored_image_is_the_same_person(self, encoder: FaceEncoder, noise: Images) -> None:
        actual, mirrored = embed(encoder, noise), embed(encoder, noise[:, :, ::-1])
        np.testing.assert_allclose(mirrored, actual, atol=1e-5)


class TestEntry:
    def test_pixels_as_imagenet_has_them(self) -> None:
        torch.manual_seed(0)
        half = FaceEncoder(SmallEncoder(width=8)).eval()
        torch.manual_seed(0)
        imagenet = FaceEncoder(SmallEncoder(width=8, normalisation="imagenet")).eval()
        assert imagenet.state_dict().keys() == half.state_dict().keys()
        grey = torch.full((1, 3, 16, 16), 0.2)
        # 0.2 in -1..1 is 0.6 in 0..1.
        by_hand = [(0.6 - 0.485) / 0.229, (0.6 - 0.456) / 0.224, (0.6 - 0.406) / 0.225]
        entered = torch.tensor(by_hand).view(1, 3, 1, 1).expand(1, 3, 16, 16)
        torch.testing.assert_close(imagenet(grey), half(entered), rtol=0, atol=1e-5)

    def test_the_small_network_resizes_when_told(self) -> None:
        torch.manual_seed(0)
        unnormalised = FaceEncoder(SmallEncoder(width=8)).eval()
        torch.manual_seed(0)
        resizing = FaceEncoder(SmallEncoder(width=8, input_side=16)).eval()
        images = torch.randn(2, 3, 32, 32)
        resized = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear", antialias=True)
        torch.testing.assert_close(resizing(images), unnormalised(resized), rtol=0, atol=1e-6)
