"""The composed configuration becomes an audit, or an error that names the key."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.anonymizers.base import Anonymizer, GroupAnonymizer
from cldmray.anonymizers.blur import Blur
from cldmray.anonymizers.pictures import Pictures
from cldmray.attackers.encoder import EncoderConfig
from cldmray.attackers.inversion.base import Inversion
from cldmray.attackers.ladder import Rung, TrainingConfig
from cldmray.attackers.recognizer import Recognizer
from cldmray.building import plain
from cldmray.conditions import SoftEdge
from cldmray.conditions.base import Condition
from cldmray.config import AuditConfig, AuditSettings, build_audit
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import ConfigError
from cldmray.faces import FaceSource
from cldmray.faces.splits import SplitConfig
from cldmray.gate import ClaimRejected, Found
from cldmray.tracking import TrackingConfig
from cldmray.verdict import Terms

CONF = Path(__file__).resolve().parents[1] / "conf"
YAMLS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
MEMBERS = [path for path in YAMLS if path.parent.name]
PLACES: dict[str, Callable[[str], tuple[list[str], str, Any]]] = {
    "faces": lambda name: ([f"faces={name}"], "faces", FaceSource),
    "engine": lambda name: ([f"engine={name}"], "engine", EngineConfig),
    "tracking": lambda name: ([f"tracking={name}"], "tracking", TrackingConfig),
    "anonymizer": lambda name: (
        [f"anonymizer=[{name}]"],
        f"anonymizer.{name}",
        Anonymizer | GroupAnonymizer,
    ),
    "attack": lambda name: (
        [f"attack=[{','.join(dict.fromkeys(['clear_trained', 'edge_proxy_teacher', name]))}]"],
        f"attack.{name}",
        Rung,
    ),
    "attack_size": lambda name: ([f"attack_size={name}"], "attack.adaptive.encoder", EncoderConfig),
    "encoder": lambda name: (
        [f"encoder@attack.adaptive.encoder={name}", "attack.adaptive.start_from=null"],
        "attack.adaptive.encoder",
        EncoderConfig,
    ),
    "training": lambda name: (
        [f"training@attack.adaptive.training={name}"],
        "attack.adaptive.training",
        TrainingConfig,
    ),
    "recognizer": lambda name: (
        [
            "attack=[off_the_shelf]",
            f"recognizer@attack.off_the_shelf.recognizer={name}",
        ],
        "attack.off_the_shelf.recognizer",
        Recognizer,
    ),
    "inverter": lambda name: (
        ["attack=[inversion]", f"inverter@attack.inversion.inverter={name}"],
        "attack.inversion.inverter",
        Inversion,
    ),
    "condition": lambda name: (
        [f"condition@attack.edge_proxy.condition={name}"],
        "attack.edge_proxy.condition",
        Condition,
    ),
}
PRIMARY = {
    "audit": AuditConfig,
    "lfw": AuditConfig,
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


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        audit(*overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestShippedConfiguration:
    def test_the_default_audit(self) -> None:
        config = audit()
        assert list(config.anonymizer) == [
            "copy",
            "blur",
            "k_same",
            "cldm_none",
            "cldm_canny",
            "cldm_depth",
        ]
        assert list(config.attack) == [
            "off_the_shelf",
            "edge_match",
            "clear_trained",
            "edge_proxy",
            "adaptive",
            "fusion",
        ]
        assert config.splits == SplitConfig()
        assert config.audit == AuditSettings()
        assert config.output.startswith("runs/20")

    @pytest.mark.parametrize("path", MEMBERS, ids=str)
    def test_every_member_of_a_group_builds(self, path: Path) -> None:
        group, name = path.parent.as_posix(), path.stem
        overrides, key, expected = PLACES[group](name)
        whole = plain(composed(*overrides))
        given = [f"{gap}=somewhere" for gap in missing(whole, "root")]
        given = [override.removeprefix("root.") for override in given]
        assert isinstance(reach(audit(*overrides, *given), key), expected)

    def test_every_file_at_the_top_is_known(self) -> None:
        assert {path.stem for path in YAMLS if not path.parent.name} == set(PRIMARY)

    @pytest.mark.parametrize("name", [name for name, kind in PRIMARY.items() if kind])
    def test_every_audit_builds(self, name: str) -> None:
        assert build_audit(composed(name=name)).anonymizer

    def test_published_pictures_follow_the_faces(self) -> None:
        config = audit(
            "faces.name=mine",
            "faces.size=32",
            "anonymizer=[pictures]",
            "anonymizer.pictures.root=x",
        )
        assert config.anonymizer == {"pictures": Pictures("x", source="mine", size=32)}

    def test_nested_values_reach_their_objects(self) -> None:
        config = audit(
            "anonymizer.cldm_canny.controls.canny.scale=0.5",
            "condition@anonymizer.cldm_canny.controls.canny.condition=soft_edge",
            "attack.adaptive.encoder.blocks=[1,1,1,1]",
            "attack.adaptive.start_from=null",
        )
        drawn: Any = config.anonymizer["cldm_canny"]
        assert drawn.name == "cldm-canny-0.5"
        assert drawn.controls["canny"].condition == SoftEdge()
        assert config.attack["adaptive"].encoder.blocks == (1, 1, 1, 1)

    def test_the_terms_of_the_verdict(self) -> None:
        assert audit().audit.terms == Terms()
        terms = audit(
            "audit.target_k=5",
            'audit.fail_on=["k<4",leak]',
            "audit.release=[cldm-canny-1.0,copy]",
        ).audit.terms
        assert terms == Terms(5, (ClaimRejected(4), Found("leak")), ("cldm-canny-1.0", "copy"))
        assert audit("audit.fail_on='k<4, leak'").audit.terms.rules == terms.rules

    def test_two_settings_of_one_anonymizer(self) -> None:
        config = audit(
            "+anonymizer.wide={_target_:cldmray.anonymizers.blur.Blur,sigma:8,label:blur-8}"
        )
        assert config.anonymizer["wide"] == Blur(8.0, "blur-8")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("+faces.rot=x", "faces.rot: SyntheticFaces has no such setting", id="unknown"),
        pytest.param("+audit.titel=x", "audit.titel: .* it has: .*title", id="unknown-plain"),
        pytest.param("+extra=1", "extra: AuditConfig has no such setting", id="unknown-top"),
        pytest.param("~splits", "splits: must be given", id="absent"),
        pytest.param(
            "~faces.people", "faces.people: must be given, SyntheticFaces", id="absent-in"
        ),
        pytest.param("faces=folder", "faces.root: must be given, for example", id="missing"),
        pytest.param("faces.people=many", "faces.people: .*'many'", id="type"),
        pytest.param("faces.people=2.5", "faces.people: .*2.5", id="fraction"),
        pytest.param("faces.people=true", "faces.people: .*True", id="bool-for-number"),
        pytest.param("faces.people=null", "faces.people: .*None", id="null"),
        pytest.param("faces.name={a:1}", "faces.name: .*'a': 1", id="group-for-scalar"),
        pytest.param("faces.size=[1]", r"faces.size: .*\[1\]", id="list-for-scalar"),
        pytest.param("output=7", "output: .*7", id="number-for-text"),
        pytest.param("audit.protocols=[half]", "audit.protocols.0: .*'half'", id="literal"),
        pytest.param("faces.size=4", "faces.size: must be in 8..2048", id="range"),
        pytest.param("splits.min_photos=0", "splits.min_photos: must be at least 2", id="range-2"),
        pytest.param("anonymizer.blur.sigma=-1", "anonymizer.blur.sigma must be", id="range-3"),
        pytest.param("engine.actors=0", "engine.actors: must be", id="range-engine"),
        pytest.param("tracking.timeout=0", "tracking.timeout must be", id="range-tracking"),
        pytest.param(
            "anonymizer.cldm_canny.controls.canny.scale=-1",
            "anonymizer.cldm_canny.controls.canny.scale must be at least 0",
            id="range-nested",
        ),
        pytest.param(
            "attack.adaptive.encoder.width=7",
            "attack.adaptive.encoder.width: must be a multiple of 8",
            id="range-encoder",
        ),
        pytest.param(
            "attack.adaptive.encoder.blocks=[1,x,1,1]",
            "attack.adaptive.encoder.blocks.1: .*'x'",
            id="type-in-list",
        ),
        pytest.param("audit.level=1", "audit.level: ", id="level"),
        pytest.param("audit.level=.nan", "audit.level: ", id="level-nan"),
        pytest.param("audit.resamples=10", "audit.resamples: ", id="resamples"),
        pytest.param("audit.seed=-1", "audit.seed: must not be negative", id="seed"),
        pytest.param("audit.grid_pictures=-1", "audit.grid_pictures: must not be", id="grid"),
        pytest.param("audit.attacker_draws=0", "audit.attacker_draws: ", id="draws"),
        pytest.param("audit.protocols=[]", "audit.protocols: name at least one", id="none"),
        pytest.param("audit.galleries=[]", "audit.galleries: name at least one", id="none-2"),
        pytest.param(
            "audit.protocols=[full_ref,full_ref]", "audit.protocols: .*none twice", id="twice"
        ),
        pytest.param("audit.target_k=1", "audit.target_k: must be at least 2, got 1", id="k"),
        pytest.param(
            "audit.fail_on='k<=20'",
            "audit.fail_on: 'k<=20' is no rule; allowed are k<20 .* inconclusive",
            id="gate",
        ),
        pytest.param("audit.fail_on=[]", "audit.fail_on: an empty list", id="gate-empty"),
        pytest.param("audit.fail_on=7", "audit.fail_on: .*7", id="gate-number"),
        pytest.param(
            "audit.release=[blur,cldm_canny]",
            "audit.release: no setting is called 'cldm_canny'; there are .*cldm-canny-1.0",
            id="release",
        ),
        pytest.param("audit.release=[]", "audit.release: name at least one", id="release-none"),
        pytest.param(
            "audit.release=[blur,blur]", "audit.release: .*none twice", id="release-twice"
        ),
        pytest.param("audit.utility=[beauty]", "audit.utility.0: .*'beauty'", id="utility"),
        pytest.param("audit.utility=[pose,pose]", "audit.utility: name none twice", id="twice-2"),
        pytest.param("audit.utility_pictures=1", "audit.utility_pictures: must be", id="pictures"),
        pytest.param("audit.max_bad_share=1.5", "audit.max_bad_share: must be in 0..1", id="share"),
        pytest.param(
            "faces._target_=cldmray.faces.NoFaces",
            "faces._target_: cannot find 'cldmray.faces.NoFaces'",
            id="target-absent",
        ),
        pytest.param(
            "faces._target_=nowhere.at.all.Faces", "faces._target_: cannot find", id="target-module"
        ),
        pytest.param("faces._target_=Faces", "faces._target_: cannot find", id="target-word"),
        pytest.param("faces._target_=null", "faces._target_: cannot find", id="target-null"),
        pytest.param(
            "faces._target_=os.getcwd", "faces._target_: .* not a dataclass", id="target-function"
        ),
        pytest.param(
            "faces._target_=builtins.dict", "faces._target_: .* not a dataclass", id="target-dict"
        ),
        pytest.param(
            "attack.adaptive._target_=cldmray.attackers.ladder.Rung",
            "attack.adaptive._target_: .* abstract",
            id="target-abstract",
        ),
        pytest.param(
            "faces._target_=cldmray.anonymizers.blur.Blur",
            "faces._target_: Blur is no FaceSource",
            id="kind",
        ),
        pytest.param(
            "anonymizer.blur._target_=cldmray.conditions.canny.Canny",
            "anonymizer.blur._target_: Canny is no Anonymizer or GroupAnonymizer",
            id="kind-union",
        ),
        pytest.param(
            "engine._target_=cldmray.tracking.TrackingConfig",
            "engine._target_: TrackingConfig is no EngineConfig",
            id="kind-engine",
        ),
        pytest.param(
            "+splits._target_=cldmray.conditions.canny.Canny",
            "splits._target_: Canny is no SplitConfig",
            id="kind-plain",
        ),
        pytest.param(
            "+attack.adaptive.encoder._target_=cldmray.conditions.canny.Canny",
            "attack.adaptive.encoder._target_: Canny is no EncoderConfig",
            id="kind-nested",
        ),
        pytest.param(
            "faces.name={_target_:cldmray.conditions.canny.Canny}",
            "faces.name._target_: Canny is no str",
            id="kind-scalar",
        ),
        pytest.param(
            "+anonymizer.other=3",
            "anonymizer.other: .* GroupAnonymizer, got 3",
            id="scalar",
        ),
        pytest.param(
            "+anonymizer.other={sigma:3}", "anonymizer.other: expected .* _target_", id="no-target"
        ),
        pytest.param("+attack.other={}", "attack.other: expected .* Rung,", id="no-target-2"),
        pytest.param("splits=5", "splits: expected .* SplitConfig, got 5", id="no-group"),
        pytest.param("anonymizer=[]", "anonymizer: ", id="no-anonymizer"),
        pytest.param("attack=[]", "attack: ", id="no-attack"),
        pytest.param(
            "anonymizer.copy.label=blur",
            "anonymizer.blur: has the same name 'blur' as anonymizer.copy; set its label",
            id="duplicate",
        ),
        pytest.param(
            "anonymizer.copy.label=original",
            "anonymizer.copy: the name 'original' means",
            id="reserved",
        ),
        pytest.param(
            "+attack.again={_target_:cldmray.attackers.ladder.Adaptive}",
            "attack.again: has the same name 'adaptive' as attack.adaptive; set its label",
            id="duplicate-attack",
        ),
        pytest.param(
            "attack=[adaptive]", "attack.adaptive.start_from: 'clear_trained' is not", id="start"
        ),
        pytest.param(
            "attack.edge_proxy.start_from=adaptive",
            "attack.edge_proxy.start_from: 'adaptive' must itself start afresh",
            id="start-from-adaptive",
        ),
        pytest.param(
            "attack.clear_trained.start_from=clear_trained",
            "attack.clear_trained.start_from: .* not another",
            id="start-from-itself",
        ),
        pytest.param(
            "attack.clear_trained.encoder.width=32",
            "attack.edge_proxy.encoder: must be that of clear_trained",
            id="start-from-another-shape",
        ),
        pytest.param("faces.name=${nosuch}", "faces.name: .*'nosuch'", id="interpolation"),
        pytest.param(
            "faces.name=${oc.env:CLDMRAY_NO_SUCH}",
            "faces.name: .*CLDMRAY_NO_SUCH",
            id="interpolation-environment",
        ),
        pytest.param("faces.name=${nosuch:1}", "faces.name: .*nosuch", id="interpolation-resolver"),
    ],
)
def test_errors_name_the_key(override: str, message: str) -> None:
    found = refused(override)
    assert re.match(message, found), found
