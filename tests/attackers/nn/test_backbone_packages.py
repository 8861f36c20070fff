"""Networks of torchvision and timm as encoders where they are installed, and said where not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cldmray.attackers.contrastive import CleanTrained
from cldmray.attackers.nn import backbones
from cldmray.attackers.nn.encoder import BackboneEncoder, FaceEncoder
from cldmray.errors import ConfigError, MissingDependencyError


class TestMissingPackages:
    @pytest.fixture(autouse=True)
    def absent(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        def refuse(name: str) -> Any:
            raise self.error

        monkeypatch.setattr(backbones.importlib, "import_module", refuse)
        yield

    error: Exception = ImportError("No module named it")

    @pytest.mark.parametrize(
        ("backbone", "package"),
        [
            ("resnet50", "torchvision"),
            ("torchvision:resnet50", "torchvision"),
            ("timm:resnet18", "timm"),
        ],
    )
    @pytest.mark.parametrize(
        "error",
        [ImportError("No module"), RuntimeError("operator torchvision::nms does not exist")],
    )
    def test_are_found_by_the_check(self, backbone: str, package: str, error: Exception) -> None:
        self.error = error
        attacker = CleanTrained(BackboneEncoder(backbone=backbone))
        with pytest.raises(MissingDependencyError) as caught:
            attacker.check()
        said = str(caught.value)
        assert said.startswith(f"encoder.backbone: {backbone.removeprefix('torchvision:')} needs")
        assert f"needs {package}, which cannot be imported ({error})" in said
        assert "pip install 'cldmray[backbones]'" in said


class TestTorchvision:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("torchvision", reason="needs the extra backbones")

    def test_any_classification_model(self) -> None:
        sizes = {
            name: backbones.load_backbone(name, None, None, "group")[1:]
            for name in ("resnet18", "mobilenet_v3_small", "vit_b_16")
        }
        assert sizes == {
            "resnet18": (512, None), "mobilenet_v3_small": (1024, None), "vit_b_16": (768, 224),
        }  # fmt: skip

    def test_weights_of_a_file(self, tmp_path: Path) -> None:
        import torchvision

        torch.manual_seed(1)
        model = torchvision.models.resnet18().eval()
        file = tmp_path / "resnet18.safetensors"
        save_file(model.state_dict(), file)
        config = BackboneEncoder(backbone="resnet18", pretrained=str(file), norm="frozen")
        encoder, images = FaceEncoder(config).eval(), torch.randn(1, 3, 64, 64)
        model.fc = nn.Identity()
        torch.testing.assert_close(encoder.features(images), model(images))
        with pytest.raises(ConfigError, match="belongs to another network .* it lacks layer1.2"):
            replace(config, backbone="resnet34").check()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"backbone": "resnet_50"}, "encoder.backbone: torchvision has no .*resnet50"),
            ({"backbone": "googlenet"}, "encoder.backbone: googlenet does not end"),
            ({"backbone": "squeezenet1_0"}, "encoder.backbone: squeezenet1_0 does not end"),
            ({"backbone": "resnet18", "pretrained": "/no/file"}, "encoder.pretrained: no file"),
        ],
    )
    def test_errors_name_the_key(self, settings: dict[str, str], message: str) -> None:
        with pytest.raises(ConfigError, match=f"^{message}"):
            BackboneEncoder(**settings).check()  # type: ignore[arg-type]


class TestTimm:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("timm", reason="needs the extra backbones")

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("resnet10t", (512, None)),
            ("vit_tiny_patch16_224", (192, 224)),
            ("efficientnet_b0", (1280, None)),
        ],
    )
    def test_models_by_name(self, name: str, expected: tuple[int, int | None]) -> None:
        actual = backbones.load_backbone(f"timm:{name}", None, None, "group")
        assert actual[1:] == expected
        assert not [m for m in actual.network.modules() if "BatchNorm" in type(m).__name__]

    def test_weights_of_a_file(self, tmp_path: Path) -> None:
        import timm

        torch.manual_seed(1)
        model = timm.create_model("resnet10t").eval()
        file = tmp_path / "model.safetensors"
        save_file(model.state_dict(), file)
        config = BackboneEncoder(backbone="timm:resnet10t", pretrained=str(tmp_path), norm="batch")
        encoder, images = FaceEncoder(config).eval(), torch.randn(1, 3, 64, 64)
        model.reset_classifier(0)
        torch.testing.assert_close(encoder.features(images), model(images))
        with pytest.raises(ConfigError, match="^encoder.pretrained: .*another network"):
            replace(config, backbone="timm:resnet14t").check()
        with pytest.raises(ConfigError, match="^encoder.backbone: timm has no .*resnet10t"):
            replace(config, backbone="timm:resnet10").check()
