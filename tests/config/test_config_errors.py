"""A wrong configuration is an error of one line that names the key."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer
from cldmray.config.audit import build_audit
from cldmray.config.choices import refuse_wrong_options
from cldmray.config.compose import compose as compose_settings
from cldmray.config.compose import updated
from cldmray.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"


def refused(override: str) -> str:
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(ConfigError) as caught,
    ):
        build_audit(compose("audit", [override]))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("+faces.rot=x", "faces.rot: SyntheticFaces has no such setting", id="unknown"),
        pytest.param("+audit.titel=x", "audit.titel: .* it has: .*title", id="unknown-plain"),
        pytest.param("+extra=1", "extra: AuditConfig has no such setting", id="unknown-top"),
        pytest.param("~splits", "splits: must be given", id="absent"),
        pytest.param(
            "~faces.n_identities",
            "faces.n_identities: must be given, SyntheticFaces",
            id="absent-in",
        ),
        pytest.param("faces=folder", "faces.root: must be given, for example", id="missing"),
        pytest.param("faces.n_identities=many", "faces.n_identities: .*'many'", id="type"),
        pytest.param("faces.n_identities=2.5", "faces.n_identities: .*2.5", id="fraction"),
        pytest.param("faces.n_identities=true", "faces.n_identities: .*True", id="bool-for-number"),
        pytest.param("faces.n_identities=null", "faces.n_identities: .*None", id="null"),
        pytest.param("faces.name={a:1}", "faces.name: .*'a': 1", id="group-for-scalar"),
        pytest.param("faces.size=[1]", r"faces.size: .*\[1\]", id="list-for-scalar"),
        pytest.param("output=7", "output: .*7", id="number-for-text"),
        pytest.param("audit.protocols=[half]", "audit.protocols.0: .*'half'", id="literal"),
        pytest.param("faces.size=4", "faces.size: must be in 8..1024", id="range"),
        pytest.param("splits.min_images=0", "splits.min_images: must be at least 2", id="range-2"),
        pytest.param(
            "anonymizers.blur.sigma=-1", "anonymizers.blur.sigma: must be above 0", id="range-3"
        ),
        pytest.param("engine.cpus=0", "engine.cpus: must be at least 1, got 0", id="range-cpus"),
        pytest.param("engine.max_actors=0", "engine.max_actors: must be", id="range-actors"),
        pytest.param("engine.max_train_workers=0", "engine.max_train_workers: ", id="range-train"),
        pytest.param(
            "anonymizers=[]",
            "anonymizers: choose at least one, .* see cldmray list anonymizers",
            id="no-anonymizer",
        ),
        pytest.param("attackers=[]", "attackers: choose at least one", id="no-attacker"),
        pytest.param("engine.actors=0", "engine.actors: must be", id="range-engine"),
        pytest.param(
            "tracking.timeout=0", "tracking.timeout: must be above 0", id="range-tracking"
        ),
        pytest.param(
            "anonymizers.cldm_canny.controls.canny.controlnet_conditioning_scale=-1",
            "anonymizers.cldm_canny.controls.canny.controlnet_conditioning_scale: "
            "must not be negative",
            id="range-nested",
        ),
        pytest.param(
            "attackers.adaptive_contrastive.encoder.width=7",
            "attackers.adaptive_contrastive.encoder.width: must be a multiple of 8",
            id="range-encoder",
        ),
        pytest.param(
            "attackers.adaptive_contrastive.encoder.blocks=[1,x,1,1]",
            "attackers.adaptive_contrastive.encoder.blocks.1: .*'x'",
            id="type-in-list",
        ),
        pytest.param("audit.confidence_level=1", "audit.confidence_level: ", id="level"),
        pytest.param("audit.confidence_level=.nan", "audit.confidence_level: ", id="level-nan"),
        pytest.param("audit.n_bootstrap=10", "audit.n_bootstrap: ", id="n_bootstrap"),
        pytest.param("audit.seed=-1", "audit.seed: must not be negative", id="seed"),
        pytest.param("audit.n_example_images=-1", "audit.n_example_images: must not be", id="grid"),
        pytest.param("audit.samples_per_image=0", "audit.samples_per_image: ", id="draws"),
        pytest.param("audit.protocols=[]", "audit.protocols: must not be empty", id="none"),
        pytest.param("audit.galleries=[]", "audit.galleries: must not be empty", id="none-2"),
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
        pytest.param(
            "audit.utility=[pose_consistency,pose_consistency]",
            "audit.utility: name none twice",
            id="twice-2",
        ),
        pytest.param("audit.n_utility_images=1", "audit.n_utility_images: must be", id="images"),
        pytest.param(
            "audit.max_invalid_fraction=1.5",
            "audit.max_invalid_fraction: must be in 0..1",
            id="share",
        ),
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
            "attackers.adaptive_contrastive._target_=cldmray.attackers.base.Attacker",
            "attackers.adaptive_contrastive._target_: .* abstract",
            id="target-abstract",
        ),
        pytest.param(
            "faces._target_=cldmray.anonymizers.baselines.Blur",
            "faces._target_: Blur is no FaceSource",
            id="kind",
        ),
        pytest.param(
            "anonymizers.blur._target_=cldmray.conditions.canny.Canny",
            "anonymizers.blur._target_: Canny is no Anonymizer",
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
            "attackers.adaptive_contrastive.encoder._target_=cldmray.conditions.canny.Canny",
            "attackers.adaptive_contrastive.encoder._target_: Canny is no EncoderConfig",
            id="kind-nested",
        ),
        pytest.param(
            "faces.name={_target_:cldmray.conditions.canny.Canny}",
            "faces.name._target_: Canny is no str",
            id="kind-scalar",
        ),
        pytest.param(
            "+anonymizers.other=3",
            "anonymizers.other: .*Anonymizer, got 3",
            id="scalar",
        ),
        pytest.param(
            "+anonymizers.other={sigma:3}",
            "anonymizers.other: expected .* _target_",
            id="no-target",
        ),
        pytest.param(
            "+attackers.other={}", "attackers.other: expected .* Attacker,", id="no-target-2"
        ),
        pytest.param("splits=5", "splits: expected .* SplitConfig, got 5", id="no-group"),
        pytest.param("anonymizers=[]", "anonymizers: ", id="no-anonymizer"),
        pytest.param("attackers=[]", "attackers: ", id="no-attack"),
        pytest.param(
            "anonymizers.no_op.label=blur",
            "anonymizers.blur: has the same name 'blur' as anonymizers.no_op; set its label",
            id="duplicate",
        ),
        pytest.param(
            "anonymizers.no_op.label=original",
            "anonymizers.no_op: the name 'original' means the original images",
            id="reserved",
        ),
        pytest.param(
            "+anonymizers.own={_target_:cldmray.anonymizers.precomputed.Precomputed,root:x,faces:${faces},label:../../x}",
            "anonymizers.own.label: may hold letters",
            id="label-leaves-the-cache",
        ),
        pytest.param(
            "+attackers.again={_target_:cldmray.attackers.contrastive.AdaptiveContrastive}",
            "attackers.again: has the same name 'adaptive_contrastive' as "
            "attackers.adaptive_contrastive; set its label",
            id="duplicate-attack",
        ),
        pytest.param(
            "attackers.condition_only.init_from=clean_trained",
            "attackers.condition_only.init_from: expected a group of settings whose _target_",
            id="start-by-name",
        ),
        pytest.param(
            "attackers.condition_only.init_from._target_=cldmray.attackers.contrastive.AdaptiveContrastive",
            "attackers.condition_only.init_from: adaptive_contrastive learns from the anonymizer's",
            id="start-from-adaptive_contrastive",
        ),
        pytest.param(
            "attackers.condition_only.init_from.encoder={_target_:cldmray.attackers.nn.encoder.SmallEncoder,width:32}",
            "attackers.condition_only.init_from.encoder: must be the encoder of condition_only",
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
    refusal = refused(override)
    assert re.match(message, refusal), refusal


def test_no_name_of_a_class_from_outside_leaves_the_cache() -> None:
    class Outside(Anonymizer):
        name = "../../x"

        def open(self) -> AnonymizeFunction:
            raise NotImplementedError

    with pytest.raises(ConfigError, match=r"^anonymizers.own.label: may hold letters.*'../../x'"):
        build_audit(updated(compose_settings("audit"), {"anonymizers": {"own": Outside()}}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking=null", "tracking: to record nothing write ~tracking"),
        ("faces=null", "faces: must be named, for example faces=celeba; see cldmray list faces"),
        ("+faces@gallery.faces=null", "faces@gallery.faces: must be named, for example "),
        ("engine=null", "engine: must be named, for example engine="),
        ("anonymizers=null", "anonymizers: choose at least one, .*; see cldmray list anonymizers"),
        ("anonymizers=[blur,blurr]", "anonymizers: there is no blurr; see cldmray list anonym"),
        ("faces=foldr", "faces: there is no foldr; see cldmray list faces"),
        (
            "recognizer@attackers.pretrained.recognizer=x",
            "recognizer@attackers.pretrained.recognizer: there is no x; see .* list recognizers",
        ),
    ],
)
def test_a_wrong_option_is_named_with_where_to_look(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        compose_settings("audit", [override])


def test_options_of_own_files_are_left_to_hydra() -> None:
    refuse_wrong_options(["--config-dir", "conf", "anonymizers=[mine]"])
    refuse_wrong_options(["--config-name", "faces=x", "attackers=${x}", "~tracking"])
    with pytest.raises(ConfigError, match="^faces: must be named"):
        refuse_wrong_options(["--config-dir", "conf", "faces=null"])
