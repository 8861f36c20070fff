import pytest
import torch
from torch import Tensor

from cldmray.attackers.nn.augment import augment, augmentation


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 16, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


def parameters(strength: float, seed: int = 1, count: int = 40) -> Tensor:
    return augmentation(count, strength, torch.Generator().manual_seed(seed))


class TestStrength:
    def test_zero_only_mirrors(self, images: Tensor) -> None:
        result = augment(images, parameters(0))
        kept = (result - images).abs().amax((1, 2, 3)) < 1e-5
        mirrored = (result - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
        assert (kept ^ mirrored).all()
        assert 10 < int(kept.sum()) < 30

    def test_more_strength_moves_and_colours_more(self, images: Tensor) -> None:
        usual, weak = parameters(1), parameters(0.1)
        still = parameters(0)
        assert ((usual - still).abs() >= (weak - still).abs() - 1e-6).all()
        assert ((usual - still)[:, 6:].abs().amax(0) > 0.1).all()
        changed = (augment(images, usual) - augment(images, still)).abs().mean()
        slightly = (augment(images, weak) - augment(images, still)).abs().mean()
        assert changed > 2 * slightly > 0

    def test_bounds(self) -> None:
        result = parameters(1, count=2000)
        assert result.shape == (2000, 10)
        scale = torch.linalg.det(result[:, :6].view(-1, 2, 3)[:, :, :2]).abs().sqrt()
        assert 0.93 <= float(scale.min()) < 0.94
        assert 1.06 < float(scale.max()) <= 1.07
        assert float(result[:, [2, 5]].abs().max()) <= 0.07
        assert float(result[:, 6].min()) >= 0.8
        assert float(result[:, 6].max()) <= 1.2
        assert float(result[:, 7:].abs().max()) <= 0.15


class TestRandomness:
    def test_the_generator_alone_decides(self, images: Tensor) -> None:
        torch.manual_seed(5)
        first = augment(images, parameters(1))
        torch.manual_seed(6)
        assert torch.equal(augment(images, parameters(1)), first)
        assert not torch.equal(augment(images, parameters(1, seed=2)), first)

    def test_workers_can_share_one_draw(self, images: Tensor) -> None:
        drawn = parameters(1)
        halves = torch.cat([augment(images[:20], drawn[:20]), augment(images[20:], drawn[20:])])
        torch.testing.assert_close(halves, augment(images, drawn))
