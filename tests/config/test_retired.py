"""A retired key or option is refused with its new name, before Hydra composes and after."""

import pytest

from cldmray.config.files import shipped
from cldmray.config.retired import (
    OPTIONS,
    refuse_retired_keys,
    refuse_retired_overrides,
    renamed_key,
)
from cldmray.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("anonymizer=[blur]", "anonymizer: now called anonymizers, for example anonymizers=[blur]"),
        ("attack=[]", "attack: now called attackers, for example attackers=[]"),
        ("attack_size=large", "attack_size: now called preset, for example preset=large"),
        ("work=/tmp/w", "work: now called cache_dir, for example cache_dir=/tmp/w"),
        (
            "~inversion.search.space",
            "inversion.search.space: now called reconstruction.search.space",
        ),
        (
            "anonymizer.copy.label=x",
            "anonymizer.copy.label: now called anonymizers.no_op.label, for example "
            "anonymizers.no_op.label=x",
        ),
        (
            "attack.adaptive.training.steps=5",
            "attack.adaptive.training.steps: now called "
            "attackers.adaptive_contrastive.training.max_steps, for example "
            "attackers.adaptive_contrastive.training.max_steps=5",
        ),
        (
            "anonymizers.cldm_canny.guidance=2",
            "anonymizers.cldm_canny.guidance: now called anonymizers.cldm_canny.guidance_scale, "
            "for example anonymizers.cldm_canny.guidance_scale=2",
        ),
        ("anonymizers=[copy,blur]", "anonymizers: copy is now called no_op"),
        ("attackers=[fusion]", "attackers: fusion is now called score_fusion"),
        (
            "audit.level=0.9",
            "audit.level: now called audit.confidence_level, for example "
            "audit.confidence_level=0.9",
        ),
        (
            "encoder@attack.adaptive.encoder=resnet50",
            "attack.adaptive.encoder: now called attackers.adaptive_contrastive.encoder",
        ),
        (
            "+inverter@reconstruction.models.b=look_alike",
            "inverter: now called reconstruction_model",
        ),
    ],
)
def test_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_retired_overrides(["audit.seed=1", override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "override",
    [
        "anonymizers=[blur]",
        "+anonymizers.mine.steps=3",
        "--config-dir",
        "recognizer@attackers.pretrained.recognizer=onnx",
        "faces.root=work",
    ],
)
def test_what_is_not_retired_passes(override: str) -> None:
    refuse_retired_overrides([override])


@pytest.mark.parametrize("option", ["--config-dir", "-cd", "--config-name", "-p"])
def test_values_of_options_pass(option: str) -> None:
    refuse_retired_overrides([option, "work", "audit.seed=1"])
    for arguments in ([option, "conf", "work=x"], [f"{option}=conf", "work=x"], ["-m", "work=x"]):
        with pytest.raises(ConfigError, match=r"^work: now called cache_dir"):
            refuse_retired_overrides(arguments)


def test_keys_of_a_whole_configuration() -> None:
    refuse_retired_keys({"anonymizers": {"blur": {"_target_": "x.Y", "steps": 3}}, "audit": {}})
    with pytest.raises(ConfigError, match=r"^audit.resamples: now called audit.n_bootstrap$"):
        refuse_retired_keys({"audit": {"resamples": 100}})
    with pytest.raises(ConfigError, match=r"^work: now called cache_dir$"):
        refuse_retired_keys({"work": "x"})


def test_new_names_exist() -> None:
    for group, names in OPTIONS.items():
        for name in set(names.values()) - {"reconstruction_best"}:
            assert shipped(group, name), (group, name)
    assert renamed_key("cache_dir") is None
