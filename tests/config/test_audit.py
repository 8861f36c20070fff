"""The composed configuration becomes an audit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.anonymizers.base import Anonymizer
from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.diffusion import Control
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.attackers.base import Attacker
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.reconstruction.base import ReconstructionModel
from cldmray.conditions import SoftEdge
from cldmray.conditions.base import Condition
from cldmray.config.audit import AuditConfig, AuditSettings, build_audit
from cldmray.config.instantiate import to_container
from cldmray.engine.cluster import EngineConfig
from cldmray.evaluation.decision import DecisionPolicy
from cldmray.evaluation.gate import ClaimRejected, FindingRule
from cldmray.faces import FaceSource
from cldmray.faces.splits import SplitConfig
from cldmray.recognizers.base import Recognizer
from cldmray.tracking import TrackingConfig

CONF = Path(__file__).resolve().parents[2] / "conf"
YAMLS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
ANONYMIZERS = [path for path in YAMLS if path.parent.name]
PLACES: dict[str, Callable[[str], tuple[list[str], str, Any]]] = {
    "faces": lambda name: ([f"faces={name}"], "faces", FaceSource),
    "engine": lambda name: ([f"engine={name}"], "engine", EngineConfig),
    "tracking": lambda name: ([f"tracking={name}"], "tracking", TrackingConfig),
    "anonymizers": lambda name: (
        [f"anonymizers=[{name}]"],
        f"anonymizers.{name}",
        Anonymizer,
    ),
    "attackers": lambda name: (
        [
            "attackers=["
            + ",".join(dict.fromkeys(["clean_trained", "condition_only_distilled", name]))
            + "]"
        ],
        f"attackers.{name}",
        Attacker,
    ),
    "preset": lambda name: (
        [f"preset={name}"],
        "attackers.adaptive_contrastive.encoder",
        EncoderConfig,
    ),
    "encoder": lambda name: (
        [
            f"encoder@attackers.adaptive_contrastive.encoder={name}",
            "attackers.adaptive_contrastive.init_from=null",
        ],
        "attackers.adaptive_contrastive.encoder",
        EncoderConfig,
    ),
    "training": lambda name: (
        [f"training@attackers.adaptive_contrastive.training={name}"],
        "attackers.adaptive_contrastive.training",
        TrainingConfig,
    ),
    "recognizer": lambda name: (
        [
            "attackers=[pretrained]",
            f"recognizer@attackers.pretrained.recognizer={name}",
        ],
        "attackers.pretrained.recognizer",
        Recognizer,
    ),
    "reconstruction_model": lambda name: (
        [
            "attackers=[reconstruction]",
            f"reconstruction_model@attackers.reconstruction.model={name}",
        ],
        "attackers.reconstruction.model",
        ReconstructionModel,
    ),
    "alignment": lambda name: (
        ["attackers=[pretrained]", f"alignment@attackers.pretrained.recognizer={name}"],
        "attackers.pretrained.recognizer",
        Recognizer,
    ),
    "control": lambda name: (
        [f"control@anonymizers.cldm_canny.controls.canny={name}"],
        "anonymizers.cldm_canny.controls.canny",
        Control,
    ),
    "diffusion": lambda name: (
        [f"diffusion@anonymizers.cldm_none={name}"],
        "anonymizers.cldm_none",
        Anonymizer,
    ),
    "condition": lambda name: (
        [f"condition@attackers.condition_only.condition={name}"],
        "attackers.condition_only.condition",
        Condition,
    ),
}
PRIMARY = {
    "audit": AuditConfig,
    "lfw": AuditConfig,
    "real": AuditConfig,
    "demo": AuditConfig,
    "cldm": None,
    "depth": None,
    "attribute": None,
    "invert": None,
}


def composed(*overrides: str, name: str = "audit") -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def missing(node: Any, path: str) -> list[str]:
    """Dotted keys of the values that only the user can give."""
    if isinstance(node, dict):
        return [key for name, item in node.items() for key in missing(item, f"{path}.{name}")]
    return [path] if node == "???" else []


def audit(*overrides: str) -> AuditConfig:
    return build_audit(composed(*overrides))


def reach(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


class TestShippedConfiguration:
    def test_the_default_audit(self) -> None:
        config = audit()
        assert list(config.anonymizers) == [
            "no_op",
            "blur",
            "k_same",
            "cldm_none",
            "cldm_canny",
            "cldm_depth",
        ]
        assert list(config.attackers) == [
            "pretrained",
            "condition_match",
            "clean_trained",
            "condition_only",
            "adaptive_contrastive",
            "score_fusion",
        ]
        assert config.splits == SplitConfig()
        assert config.audit == AuditSettings()
        assert config.output.startswith("runs/20")
        assert config.output != audit().output, "two audits that start in the same second"

    @pytest.mark.parametrize("path", ANONYMIZERS, ids=str)
    def test_every_member_of_a_group_builds(self, path: Path) -> None:
        group, name = path.parent.as_posix(), path.stem
        overrides, key, expected = PLACES[group](name)
        whole = to_container(composed(*overrides))
        given = [f"{gap}=somewhere" for gap in missing(whole, "root")]
        given = [override.removeprefix("root.") for override in given]
        assert isinstance(reach(audit(*overrides, *given), key), expected)

    def test_every_file_at_the_top_is_known(self) -> None:
        assert {path.stem for path in YAMLS if not path.parent.name} == set(PRIMARY)

    @pytest.mark.parametrize("name", [name for name, kind in PRIMARY.items() if kind])
    def test_every_audit_builds(self, name: str) -> None:
        assert build_audit(composed(name=name)).anonymizers

    def test_published_images_follow_the_faces(self) -> None:
        config = audit(
            "faces.name=mine",
            "faces.size=32",
            "anonymizers=[precomputed]",
            "anonymizers.precomputed.root=x",
        )
        assert config.anonymizers == {"precomputed": Precomputed("x", config.faces)}
        assert (config.faces.name, config.faces.size) == ("mine", 32)

    def test_nested_values_reach_their_objects(self) -> None:
        config = audit(
            "anonymizers.cldm_canny.controls.canny.controlnet_conditioning_scale=0.5",
            "condition@anonymizers.cldm_canny.controls.canny.condition=soft_edge",
            "attackers.adaptive_contrastive.encoder.blocks=[1,1,1,1]",
            "attackers.adaptive_contrastive.init_from=null",
        )
        drawn: Any = config.anonymizers["cldm_canny"]
        assert drawn.name == "cldm-canny-0.5"
        assert drawn.controls["canny"].condition == SoftEdge()
        assert config.attackers["adaptive_contrastive"].encoder.blocks == (1, 1, 1, 1)

    def test_the_terms_of_the_verdict(self) -> None:
        assert audit().audit.policy == DecisionPolicy()
        policy = audit(
            "audit.target_k=5",
            'audit.fail_on=["k<4",leak]',
            "audit.release=[cldm-canny-1.0,no_op]",
        ).audit.policy
        assert policy == DecisionPolicy(
            5, (ClaimRejected(4), FindingRule("leak")), ("cldm-canny-1.0", "no_op")
        )
        assert audit("audit.fail_on='k<4, leak'").audit.policy.rules == policy.rules

    def test_two_settings_of_one_anonymizer(self) -> None:
        config = audit(
            "+anonymizers.wide={_target_:cldmray.anonymizers.baselines.Blur,sigma:8,label:blur-8}"
        )
        assert config.anonymizers["wide"] == Blur(8.0, "blur-8")
