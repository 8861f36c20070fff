"""How attackers are put together: their size, encoder, recognizer and name."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.anonymizers.diffusion import Diffusion
from cldmray.attackers.contrastive import AdaptiveContrastive
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.encoder import BackboneEncoder, SFaceEncoder, SmallEncoder
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.pretrained import Pretrained
from cldmray.config.attribution import build_attribution
from cldmray.config.audit import build_audit
from cldmray.config.instantiate import to_container
from cldmray.errors import ConfigError
from cldmray.recognizers.onnx import OnnxRecognizer
from cldmray.recognizers.sface import SFace

CONF = Path(__file__).resolve().parents[2] / "conf"
TRAINED = [
    "clean_trained",
    "condition_only",
    "adaptive_contrastive",
    "condition_only_distilled",
    "adaptive_distilled",
]


def composed(*overrides: str, name: str = "audit") -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def composed_attackers(*overrides: str, name: str = "audit") -> dict[str, Any]:
    return dict(build_audit(composed(*overrides, name=name)).attackers)


class TestSize:
    @pytest.mark.parametrize(
        "attacker", [*TRAINED, "pretrained", "condition_match", "adaptive_contrastive_resnet50"]
    )
    def test_one_attacker_of_the_larger_audit_is_enough(self, attacker: str) -> None:
        whole = composed(f"attackers=[{attacker}]", "anonymizers=[blur]", name="lfw")
        assert list(whole.attackers) == [attacker]
        assert list(whole.anonymizers) == ["blur"]
        assert list(build_audit(whole).attackers) == [attacker]

    def test_the_larger_audit_has_larger_attackers(self) -> None:
        small = composed_attackers(f"attackers=[{','.join(TRAINED)}]")
        large = composed_attackers(name="lfw")
        enlarged = composed_attackers(
            "preset=large", f"attackers=[{','.join(TRAINED)}]", "faces=lfw", "faces.root=DIR"
        )
        for key in TRAINED:
            distilled = key.endswith("_distilled")
            for attacker, width, steps, batch in (
                (
                    small[key],
                    16,
                    60 if distilled else 100,
                    32 if distilled else 64,
                ),
                (
                    large[key],
                    24,
                    150 if distilled else 250,
                    64 if distilled else 128,
                ),
            ):
                assert isinstance(attacker, EncoderAttacker)
                learning = SFaceEncoder(n_frozen_layers=7)
                assert attacker.encoder == (
                    learning if distilled else SmallEncoder(width=width, input_side=64)
                )
                assert (attacker.training.max_steps, attacker.training.batch_size) == (steps, batch)
            assert enlarged[key] == large[key]

    def test_single_settings_still_change_one_attacker(self) -> None:
        attackers = composed_attackers(
            "attackers.adaptive_contrastive.training.max_steps=5", name="lfw"
        )
        assert attackers["adaptive_contrastive"].training == TrainingConfig(
            max_steps=5, batch_size=128, warmup_steps=40, validate_every=125
        )
        assert attackers["condition_only"].training.max_steps == 250


class TestEncoders:
    def test_the_network_of_the_paper(self) -> None:
        attackers = composed_attackers(
            "attackers=[clean_trained,adaptive_contrastive,adaptive_contrastive_resnet50]"
        )
        attacker = attackers["adaptive_contrastive_resnet50"]
        assert attacker.encoder == BackboneEncoder(backbone="transformers:resnet-50")
        assert (attacker.training.batch_size, attacker.init_from) == (128, None)
        assert [item.name for item in attackers.values()] == list(attackers)

    def test_the_documented_experiment_of_the_paper(self, tmp_path: Path) -> None:
        page = (CONF.parent / "docs" / "attackers.md").read_text("utf-8")
        (command,) = [
            part for part in page.split("```") if "cldmray attribute faces=celeba" in part
        ]
        typed = command.partition("\n# needs:")[2].partition("\n")[2].replace("\\\n", " ")
        program, job, *overrides = shlex.split(typed.replace("DIR", str(tmp_path)))
        assert (program, job) == ("cldmray", "attribute")
        config = build_attribution(composed(*overrides, name=job)).audit
        assert config.audit.regions == ["face", "surroundings"]
        assert config.splits.celeba_partition == f"{tmp_path}/list_eval_partition.txt"
        attacker = config.attackers["adaptive_contrastive_resnet50"]
        assert isinstance(attacker, AdaptiveContrastive)
        assert attacker.encoder == BackboneEncoder(backbone="transformers:resnet-50")
        assert (attacker.training.batch_size, attacker.init_from) == (128, None)
        anonymizer = config.anonymizers["sd15_canny"]
        assert isinstance(anonymizer, Diffusion)
        assert (anonymizer.mode, "inpainting" in anonymizer.model) == ("inpaint", True)

    def test_which_run_by_default(self) -> None:
        for name, expected in (
            ("audit", {SmallEncoder}),
            ("lfw", {SmallEncoder, SFaceEncoder}),
        ):
            attackers = [
                r for r in composed_attackers(name=name).values() if isinstance(r, EncoderAttacker)
            ]
            assert {type(attacker.encoder) for attacker in attackers} == expected

    def test_any_attacker_takes_any_encoder(self) -> None:
        attackers = composed_attackers(
            "attackers=[clean_trained,condition_only_distilled]",
            "encoder@attackers.condition_only_distilled.encoder=resnet50",
            "encoder@attackers.clean_trained.encoder=resnet50",
            "attackers.clean_trained.encoder.backbone=timm:resnet18.a1_in1k",
            "attackers.clean_trained.encoder.pretrained=/models/resnet18.safetensors",
            "attackers.clean_trained.encoder.norm=frozen",
            "attackers.clean_trained.encoder.normalisation=imagenet",
            "attackers.clean_trained.encoder.input_side=112",
        )
        assert attackers["condition_only_distilled"].encoder.backbone == "transformers:resnet-50"
        assert attackers["clean_trained"].encoder == BackboneEncoder(
            backbone="timm:resnet18.a1_in1k",
            pretrained="/models/resnet18.safetensors",
            norm="frozen",
            normalisation="imagenet",
            input_side=112,
        )

    @pytest.mark.parametrize(
        ("kind", "override", "message"),
        [
            ("resnet50", "backbone=keras:resnet50", "backbone: must be .* got 'keras:resnet50'"),
            ("resnet50", "backbone='timm:'", "backbone: must be a model of torchvision"),
            ("resnet50", "backbone=null", "backbone: "),
            ("small", "+pretrained=a.safetensors", "pretrained: SmallEncoder has no such setting"),
            ("small", "+norm=batch", "norm: SmallEncoder has no such setting"),
            ("resnet50", "norm=layer", "norm: .*'layer'"),
            ("small", "normalisation=minus", "normalisation: .*'minus'"),
            ("small", "input_side=4", "input_side: must be at least 8"),
            ("small", "+n_frozen_layers=3", "n_frozen_layers: SmallEncoder has no such setting"),
            ("sface", "n_frozen_layers=-1", "n_frozen_layers: must not be negative"),
        ],
    )
    def test_errors_name_the_key(self, kind: str, override: str, message: str) -> None:
        key = "attackers.adaptive_contrastive.encoder"
        added = "+" if override.startswith("+") else ""
        with pytest.raises(ConfigError, match=f"^{key}.{message}"):
            composed_attackers(f"encoder@{key}={kind}", f"{added}{key}.{override.lstrip('+')}")


class TestRecognizers:
    def test_two_of_them_side_by_side(self) -> None:
        attackers = composed_attackers(
            "attackers=[pretrained,pretrained_onnx]",
            "attackers.pretrained_onnx.recognizer.path=r50.onnx",
        )
        sface, arcface = attackers["pretrained"], attackers["pretrained_onnx"]
        assert sface == Pretrained(SFace(align="landmarks"))
        assert arcface == Pretrained(
            OnnxRecognizer("r50.onnx", align="landmarks", label="arcface"),
            label="pretrained_onnx",
        )
        assert [sface.name, arcface.name] == ["pretrained", "pretrained_onnx"]

    def test_a_teacher_of_another_make(self) -> None:
        key = "attackers.adaptive_distilled"
        attackers = composed_attackers(
            "attackers=[adaptive_distilled]",
            f"recognizer@{key}.teacher=onnx",
            f"encoder@{key}.encoder=large",
            f"{key}.teacher.path=face.onnx",
            f"{key}.teacher.layout=nhwc",
            f"{key}.encoder.dimensions=512",
        )["adaptive_distilled"]
        assert attackers.teacher == OnnxRecognizer("face.onnx", layout="nhwc", align="landmarks")
        assert attackers.dimensions == 512

    def test_the_file_must_be_given(self) -> None:
        with pytest.raises(ConfigError, match=r"^attackers.pretrained_onnx.recognizer.path: must"):
            composed_attackers("attackers=[pretrained_onnx]")

    def test_every_setting_is_in_the_file(self) -> None:
        for name in ("onnx", "arcface"):
            node = to_container(
                composed(
                    "attackers=[pretrained]", f"recognizer@attackers.pretrained.recognizer={name}"
                )
            )["attackers"]["pretrained"]["recognizer"]
            assert set(node) - {"_target_"} == set(OnnxRecognizer.__dataclass_fields__)


class TestLabels:
    def test_a_second_attacker_of_one_kind_needs_a_name(self) -> None:
        second = (
            "+attackers.again={_target_:cldmray.attackers.contrastive.AdaptiveContrastive,"
            "label:LABEL}"
        )
        assert composed_attackers(second.replace("LABEL", "again"))["again"].name == "again"
        with pytest.raises(
            ConfigError, match=r"^attackers.again: has the same name .* set its label"
        ):
            composed_attackers(second.replace("LABEL", "null"))
        with pytest.raises(ConfigError, match=r"^attackers.again.label: may hold letters"):
            composed_attackers(second.replace("LABEL", "a/b"))
