"""How attackers are put together: their size, encoder, recognizer and name."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.attackers.base import TrainedRung
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.pretrained import OffTheShelf
from cldmray.config.audit import build_audit
from cldmray.config.instantiate import plain
from cldmray.errors import ConfigError
from cldmray.recognizers.onnx import OnnxRecognizer
from cldmray.recognizers.sface import SFace

CONF = Path(__file__).resolve().parents[2] / "conf"
TRAINED = ["clear_trained", "edge_proxy", "adaptive", "edge_proxy_teacher", "adaptive_teacher"]


def composed(*overrides: str, name: str = "audit") -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def attackers(*overrides: str, name: str = "audit") -> dict[str, Any]:
    return dict(build_audit(composed(*overrides, name=name)).attack)


class TestSize:
    @pytest.mark.parametrize("rung", [*TRAINED, "off_the_shelf", "edge_match", "adaptive_resnet50"])
    def test_one_attacker_of_the_larger_audit_is_enough(self, rung: str) -> None:
        whole = composed(f"attack=[{rung}]", "anonymizer=[blur]", name="lfw")
        assert list(whole.attack) == [rung]
        assert list(whole.anonymizer) == ["blur"]
        if rung in TRAINED:
            whole.attack[rung].start_from = None
        assert list(build_audit(whole).attack) == [rung]

    def test_the_larger_audit_has_larger_attackers(self) -> None:
        small = attackers(f"attack=[{','.join(TRAINED)}]")
        large = attackers(name="lfw")
        chosen = attackers("attack_size=large", f"attack=[{','.join(TRAINED)}]")
        for key in TRAINED:
            taught = key.endswith("_teacher")
            for rung, width, steps, batch in (
                (small[key], 16, 60 if taught else 100, 32 if taught else 64),
                (large[key], 24, 150 if taught else 250, 64 if taught else 128),
            ):
                assert isinstance(rung, TrainedRung)
                learning = EncoderConfig(backbone="sface", frozen=7)
                assert rung.encoder == (learning if taught else EncoderConfig(width=width))
                assert (rung.training.steps, rung.training.batch) == (steps, batch)
            assert chosen[key] == large[key]

    def test_single_settings_still_change_one_attacker(self) -> None:
        found = attackers("attack.adaptive.training.steps=5", name="lfw")
        assert found["adaptive"].training == TrainingConfig(
            steps=5, batch=128, warmup=40, validate_every=125
        )
        assert found["edge_proxy"].training.steps == 250


class TestEncoders:
    def test_the_network_of_the_paper(self) -> None:
        found = attackers("attack=[clear_trained,adaptive,adaptive_resnet50]")
        rung = found["adaptive_resnet50"]
        assert rung.encoder == EncoderConfig(backbone="transformers:resnet-50")
        assert (rung.training.batch, rung.start_from) == (128, None)
        assert [item.name for item in found.values()] == list(found)

    def test_which_run_by_default(self) -> None:
        for name, expected in (("audit", {"small"}), ("lfw", {"small", "sface"})):
            rungs = [r for r in attackers(name=name).values() if isinstance(r, TrainedRung)]
            assert {rung.encoder.backbone for rung in rungs} == expected

    def test_any_attacker_takes_any_encoder(self) -> None:
        found = attackers(
            "attack=[clear_trained,edge_proxy_teacher]",
            "encoder@attack.edge_proxy_teacher.encoder=resnet50",
            "attack.clear_trained.encoder.backbone=timm:resnet18.a1_in1k",
            "attack.clear_trained.encoder.pretrained=/models/resnet18.safetensors",
            "attack.clear_trained.encoder.norm=frozen",
            "attack.clear_trained.encoder.normalisation=imagenet",
            "attack.clear_trained.encoder.input_side=112",
        )
        assert found["edge_proxy_teacher"].encoder.backbone == "transformers:resnet-50"
        assert found["clear_trained"].encoder == EncoderConfig(
            width=16,
            backbone="timm:resnet18.a1_in1k",
            pretrained="/models/resnet18.safetensors",
            norm="frozen",
            normalisation="imagenet",
            input_side=112,
        )

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("backbone=keras:resnet50", "backbone: must be small, .* got 'keras:resnet50'"),
            ("backbone='timm:'", "backbone: must be small"),
            ("backbone=null", "backbone: "),
            ("pretrained=a.safetensors", "pretrained: not of the backbone small"),
            ("norm=batch", "norm: not of the backbone small"),
            ("norm=layer", "norm: .*'layer'"),
            ("normalisation=minus", "normalisation: .*'minus'"),
            ("input_side=4", "input_side: must be at least 8"),
            ("frozen=3", "frozen: at least 0, and only of sface, got 3"),
            ("frozen=-1", "frozen: at least 0"),
        ],
    )
    def test_errors_name_the_key(self, override: str, message: str) -> None:
        with pytest.raises(ConfigError, match=f"^attack.adaptive.encoder.{message}"):
            attackers(f"attack.adaptive.encoder.{override}")


class TestRecognizers:
    def test_two_of_them_side_by_side(self) -> None:
        found = attackers(
            "attack=[off_the_shelf,off_the_shelf_onnx]",
            "attack.off_the_shelf_onnx.recognizer.path=r50.onnx",
        )
        sface, arcface = found["off_the_shelf"], found["off_the_shelf_onnx"]
        assert sface == OffTheShelf(SFace(align="landmarks"))
        assert arcface == OffTheShelf(
            OnnxRecognizer("r50.onnx", align="landmarks", label="arcface"),
            label="off_the_shelf_onnx",
        )
        assert [sface.name, arcface.name] == ["off_the_shelf", "off_the_shelf_onnx"]

    def test_a_teacher_of_another_make(self) -> None:
        key = "attack.adaptive_teacher"
        found = attackers(
            "attack=[adaptive_teacher]",
            f"recognizer@{key}.teacher=onnx",
            f"encoder@{key}.encoder=large",
            f"{key}.teacher.path=face.onnx",
            f"{key}.teacher.layout=nhwc",
            f"{key}.encoder.dimensions=512",
        )["adaptive_teacher"]
        assert found.teacher == OnnxRecognizer("face.onnx", layout="nhwc", align="landmarks")
        assert found.dimensions == 512

    def test_the_file_must_be_given(self) -> None:
        with pytest.raises(ConfigError, match=r"^attack.off_the_shelf_onnx.recognizer.path: must"):
            attackers("attack=[off_the_shelf_onnx]")

    def test_every_setting_is_in_the_file(self) -> None:
        for name in ("onnx", "arcface"):
            node = plain(
                composed(
                    "attack=[off_the_shelf]", f"recognizer@attack.off_the_shelf.recognizer={name}"
                )
            )["attack"]["off_the_shelf"]["recognizer"]
            assert set(node) - {"_target_"} == set(OnnxRecognizer.__dataclass_fields__)


class TestLabels:
    def test_a_second_attacker_of_one_kind_needs_a_name(self) -> None:
        second = "+attack.again={_target_:cldmray.attackers.contrastive.Adaptive,label:LABEL}"
        assert attackers(second.replace("LABEL", "again"))["again"].name == "again"
        with pytest.raises(ConfigError, match=r"^attack.again: has the same name .* set its label"):
            attackers(second.replace("LABEL", "null"))
        with pytest.raises(ConfigError, match=r"^attack.again.label may hold letters"):
            attackers(second.replace("LABEL", "a/b"))
