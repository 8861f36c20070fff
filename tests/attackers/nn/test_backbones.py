"""Public networks as encoders: tiny ones of transformers, made here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cldmray.attackers.contrastive import AdaptiveContrastive
from cldmray.attackers.nn import backbones
from cldmray.attackers.nn.encoder import (
    BackboneEncoder,
    EncoderConfig,
    FaceEncoder,
    SmallEncoder,
    embed,
)
from cldmray.attackers.nn.objectives import objective
from cldmray.attackers.nn.pairs import PairSet
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.errors import ConfigError
from cldmray.hashing import canonicalize


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders resnet, deep and vit, as transformers saves them."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTModel

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "layer_type": "basic"}
    for name, depths in (("resnet", [1, 1]), ("deep", [1, 2])):
        model = ResNetForImageClassification(ResNetConfig(depths=depths, num_labels=3, **shape))
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)
                nn.init.uniform_(norm.weight, 0.5, 2.0)
        model.save_pretrained(root / name)
    vit = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        hidden_dropout_prob=0.5,
        attention_probs_dropout_prob=0.5,
    )
    ViTModel(vit).save_pretrained(root / "vit")
    return root


@pytest.fixture
def config(models: Path, request: pytest.FixtureRequest) -> EncoderConfig:
    name, norm = request.param
    folder = str(models / name)
    return BackboneEncoder(
        dimensions=12, backbone=f"transformers:{folder}", pretrained=folder, norm=norm
    )


def noise(count: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def two_steps(config: EncoderConfig) -> FaceEncoder:
    """An encoder after two steps on twelve images of six people."""
    training = TrainingConfig(
        max_steps=2, batch_size=4, precision="fp32", learning_rate=1e-2, warmup_steps=1
    )
    identities = np.arange(12) // 2
    pairs = PairSet(noise(12), identities, np.arange(12), noise(12), identities, True)
    torch.manual_seed(0)
    encoder = FaceEncoder(config)
    optimizer = torch.optim.AdamW(encoder.parameters(), training.learning_rate)
    goal = objective(pairs, training, 1)
    for step in range(2):
        optimizer.zero_grad()
        goal.loss(step, slice(0, goal.size), encoder, torch.device("cpu")).backward()
        optimizer.step()
    return encoder


ALL = [("resnet", "group"), ("resnet", "batch"), ("resnet", "frozen"), ("vit", "group")]


@pytest.mark.parametrize("config", ALL, indirect=True, ids="-".join)
class TestEveryBackbone:
    def test_two_steps_then_unit_norm_whatever_the_batch(self, config: EncoderConfig) -> None:
        encoder = two_steps(config)
        torch.manual_seed(0)
        fresh = FaceEncoder(config).state_dict()
        moved = {
            name: float((value.detach() - fresh[name]).abs().max())
            for name, value in encoder.named_parameters()
        }
        assert min(moved.values()) > 1e-4, moved
        encoder.eval()
        whole, cut = embed(encoder, noise(5)), embed(encoder, noise(5), batch_size=2)
        assert whole.shape == (5, 12)
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(cut, whole, atol=1e-5)
        assert np.ptp(whole, axis=0).max() > 1e-3

    def test_its_weights_come_back_without_the_pretrained_ones(
        self, config: EncoderConfig, tmp_path: Path
    ) -> None:
        trained = two_steps(config).eval()
        save_file(trained.state_dict(), tmp_path / "encoder.safetensors")
        again = FaceEncoder(replace(config, pretrained=config.pretrained), pretrained=False)
        again.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
        np.testing.assert_array_equal(embed(again.eval(), noise(3)), embed(trained, noise(3)))

    def test_training_depends_on_the_batch_only_where_batch_norm_is_kept(
        self, config: EncoderConfig
    ) -> None:
        encoder = FaceEncoder(config)
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        alone = torch.cat([encoder(images[:2]), encoder(images[2:])])
        difference = (alone - encoder(images)).abs().max().item()
        assert (difference > 1e-3) if config.norm == "batch" else (difference < 1e-5)


class TestTransformers:
    def test_pretrained_weights_are_those_of_the_file(self, models: Path) -> None:
        from transformers import AutoModel

        folder = str(models / "resnet")
        config = BackboneEncoder(
            dimensions=4, backbone=f"transformers:{folder}", pretrained=folder, norm="batch"
        )
        encoder = FaceEncoder(config).eval()
        model = AutoModel.from_pretrained(folder).eval()
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            pooled = model(images).pooler_output.flatten(1)
            expected = nn.functional.normalize(encoder.head(pooled), dim=1)
            torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-6)
            fresh = FaceEncoder(replace(config, pretrained=None)).eval()
            assert (encoder.features(images) - fresh.features(images)).abs().max() > 1e-3

    def test_the_class_token_stands_for_a_vision_transformer(self, models: Path) -> None:
        from transformers import AutoModel

        folder = str(models / "vit")
        config = BackboneEncoder(backbone=f"transformers:{folder}", pretrained=folder)
        encoder, model = FaceEncoder(config).eval(), AutoModel.from_pretrained(folder).eval()
        assert encoder.side == 32
        assert not [name for name in encoder.state_dict() if "pooler" in name]
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            expected = model(images).last_hidden_state[:, 0]
            torch.testing.assert_close(encoder.features(images), expected, rtol=0, atol=1e-6)

    def test_a_mask_token_is_no_other_network(self, models: Path, tmp_path: Path) -> None:
        from transformers import ViTConfig, ViTModel

        config = ViTConfig.from_pretrained(models / "vit")
        ViTModel(config, use_mask_token=True).save_pretrained(tmp_path)
        BackboneEncoder(backbone=f"transformers:{models / 'vit'}", pretrained=str(tmp_path)).check()

    def test_there_is_no_dropout(self, models: Path) -> None:
        encoder = FaceEncoder(BackboneEncoder(backbone=f"transformers:{models / 'vit'}")).train()
        images = torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(encoder(images), encoder(images), rtol=0, atol=0)

    @pytest.mark.parametrize("side", [20, 64])
    def test_images_are_brought_to_the_side_it_needs(self, models: Path, side: int) -> None:
        encoder = FaceEncoder(BackboneEncoder(backbone=f"transformers:{models / 'vit'}")).eval()
        images = torch.randn(2, 3, side, side)
        resized = nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
        torch.testing.assert_close(encoder(images), encoder(resized), rtol=0, atol=1e-6)

    def test_networks_known_by_name(self) -> None:
        def facts(name: str, side: int | None = None) -> tuple[int, int, int | None]:
            with torch.device("meta"):
                torch.manual_seed(0)
            actual = backbones.load_backbone(f"transformers:{name}", None, side, "batch")
            return sum(p.numel() for p in actual.network.parameters()), actual.features, actual.side

        # The papers' sizes without the classifier: 11.2, 23.5 and 5.5 million.
        assert facts("resnet-18") == (11_176_512, 512, None)
        assert facts("resnet-50") == (23_508_032, 2048, None)
        count, features, side = facts("vit-tiny")
        assert (count, features, side) == (5_524_416, 192, 224)
        assert facts("vit-tiny", 64)[1:] == (192, 64)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"backbone": "transformers:no_such_net"},
                "encoder.backbone: transformers:no_such_net",
            ),
            ({"pretrained": "{root}/absent"}, "encoder.pretrained: .*absent is neither a folder"),
            ({"pretrained": "{root}/vit"}, "encoder.pretrained: .*vit belongs to another network"),
            ({"pretrained": "{root}/deep"}, "encoder.pretrained: .*has besides .*layers.1"),
            (
                {"backbone": "transformers:{root}/deep", "pretrained": "{root}/resnet"},
                "encoder.pretrained: .*belongs to another network .*it lacks .*layers.1",
            ),
            (
                {"backbone": "transformers:{root}/vit", "input_side": 64},
                "encoder.backbone: .* not take images of 64 .*encoder.input_side",
            ),
        ],
    )
    def test_errors_name_the_key(
        self, models: Path, settings: dict[str, Any], message: str
    ) -> None:
        given = {
            key: value.format(root=models) if isinstance(value, str) else value
            for key, value in ({"backbone": "transformers:{root}/resnet"} | settings).items()
        }
        with pytest.raises(ConfigError, match=f"^{message}"):
            AdaptiveContrastive(BackboneEncoder(**given)).check()

    def test_pickled_weights_are_refused(self, models: Path, tmp_path: Path) -> None:
        folder = models / "resnet"
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
        config = BackboneEncoder(backbone=f"transformers:{folder}", pretrained=str(tmp_path))
        with pytest.raises(ConfigError, match="^encoder.pretrained: .* must be safetensors"):
            config.check()


class TestNorms:
    def test_group_norm_by_hand(self) -> None:
        network = nn.Sequential(nn.BatchNorm2d(2, affine=True))
        with torch.no_grad():
            network[0].weight.copy_(torch.tensor([1.0, 10.0]))
            network[0].bias.copy_(torch.tensor([0.0, 5.0]))
        backbones.group_norms(network)
        assert isinstance(network[0], nn.GroupNorm)
        assert network[0].num_groups == 2
        # Each channel of two pixels, by itself: 1 and 3 become -1 and 1.
        actual = network(torch.tensor([1.0, 3.0, 1.0, 3.0]).view(1, 2, 1, 2)).flatten()
        torch.testing.assert_close(actual, torch.tensor([-1.0, 1, -5, 15]), rtol=0, atol=1e-3)

    def test_the_activation_of_a_batch_norm_stays(self) -> None:
        class WithActivation(nn.BatchNorm2d):
            """As timm has it."""

            def __init__(self, channels: int) -> None:
                super().__init__(channels)
                self.act = nn.ReLU()

        network = nn.Sequential(WithActivation(64))
        backbones.group_norms(network)
        assert network[0][0].num_groups == 32
        assert network(torch.randn(2, 64, 4, 4)).min().item() == 0

    @pytest.mark.parametrize("config", [("resnet", "frozen")], indirect=True)
    def test_frozen_statistics_stay(self, config: EncoderConfig) -> None:
        trained = two_steps(config).train()
        fresh = FaceEncoder(config)
        for (name, after), before in zip(trained.named_buffers(), fresh.buffers(), strict=True):
            torch.testing.assert_close(after, before, rtol=0, atol=0, msg=name)

    @pytest.mark.parametrize("config", [("resnet", "batch")], indirect=True)
    def test_shared_statistics_have_the_same_weights(self, config: EncoderConfig) -> None:
        encoder = FaceEncoder(config)
        names = list(encoder.state_dict())
        encoder.features = backbones.synchronised(encoder.features, config.backbone)
        assert list(encoder.state_dict()) == names
        kinds = {type(m) for m in encoder.modules() if "BatchNorm" in type(m).__name__}
        assert kinds == {nn.SyncBatchNorm}

    def test_frozen_needs_pretrained(self) -> None:
        with pytest.raises(ValueError, match="^norm: frozen"):
            BackboneEncoder(backbone="resnet50", norm="frozen")


def test_content_enters_the_fingerprint(models: Path, tmp_path: Path) -> None:
    assert canonicalize(SmallEncoder())["_version_"] == ""
    assert BackboneEncoder(backbone="transformers:resnet-50").version() == ""
    folder = str(models / "resnet")
    shape = BackboneEncoder(backbone=f"transformers:{folder}")
    weights = replace(shape, pretrained=folder)
    other = replace(shape, pretrained=str(models / "deep"))
    versions = {shape.version(), weights.version(), other.version()}
    assert len(versions) == 3
    assert {len(version) for version in versions} == {16}
