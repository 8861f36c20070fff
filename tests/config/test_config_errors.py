"""A wrong configuration is an error of one line that names the key."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cldmray.config.audit import build_audit
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
            "attack.adaptive._target_=cldmray.attackers.base.Rung",
            "attack.adaptive._target_: .* abstract",
            id="target-abstract",
        ),
        pytest.param(
            "faces._target_=cldmray.anonymizers.baselines.Blur",
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
            "+attack.again={_target_:cldmray.attackers.contrastive.Adaptive}",
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
