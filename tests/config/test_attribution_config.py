"""An attribution's settings become the settings that are tried, or an error that names the key."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cldmray.config.attribution import AttributionConfig, AttributionSettings, build_attribution
from cldmray.errors import ConfigError
from tests.config.only_audit import ONLY_AUDIT

CONF = Path(__file__).resolve().parents[2] / "conf"
OVERRIDES = ["anonymizers=[cldm_none,cldm_canny]", "attribution.swap.anonymizers=[cldm_canny]"]
NO_SEARCH = "attribution.operating_point.anonymizer=null"


def built(*overrides: str) -> AttributionConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_attribution(compose("attribute", list(overrides)))


def names(config: AttributionConfig) -> list[str]:
    return [anonymizer.name for anonymizer in config.audit.anonymizers.values()]


def test_the_shipped_one() -> None:
    config = built()
    assert config.searched == [
        "cldm-canny-0.5",
        "cldm-canny-1.0",
        "cldm-canny-0.5-coarse4",
        "cldm-canny-1.0-coarse4",
        "cldm-canny-0.5-img2img-0.6",
        "cldm-canny-1.0-img2img-0.6",
        "cldm-canny-0.5-coarse4-img2img-0.6",
        "cldm-canny-1.0-coarse4-img2img-0.6",
    ]
    assert config.swapped == [
        "cldm-canny-1.0-img2img-0.8",
        "cldm-canny-1.0-img2img-0.6",
        "cldm-depth-1.0-img2img-0.8",
        "cldm-depth-1.0-img2img-0.6",
    ]
    result = names(config)
    assert len(result) == len(set(result)) == 5 + 4 * 3 + 4 + 5
    assert set(config.searched) | set(config.swapped) <= set(result)
    assert config.audit.audit.regions == ["face", "surroundings"]


def test_scales() -> None:
    config = built(
        *OVERRIDES, NO_SEARCH, "attribution.swap.strengths=[]", "attribution.scales=[0,0.5,2]"
    )
    assert names(config) == ["cldm-none", "cldm-canny-1.0", "cldm-canny-0.5", "cldm-canny-2.0"]
    assert (config.swapped, config.searched) == ([], [])


def test_scale_0_makes_the_control_where_it_is_not_named() -> None:
    config = built("anonymizers=[cldm_canny]", *OVERRIDES[1:], NO_SEARCH, "attribution.scales=[0]")
    assert names(config) == ["cldm-canny-1.0", "cldm-none", "cldm-canny-1.0-img2img-0.8",
                             "cldm-canny-1.0-img2img-0.6"]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "formatting"),
    [
        (["attribution.scales=[-1]"], "attribution.scales.0: must not be negative"),
        (
            ["attribution.operating_point.scales=[]"],
            "attribution.operating_point.scales: must not be empty",
        ),
        (
            ["attribution.operating_point.target_k=1"],
            "attribution.operating_point.target_k: must be at least 2",
        ),
        (
            ["attribution.operating_point.n_images=1"],
            "attribution.operating_point.n_images: must be at least 2",
        ),
        (
            ["attribution.operating_point.coarseness=[0]"],
            "attribution.operating_point.coarseness.0: must be at least",
        ),
        (
            ["attribution.operating_point.strengths=[2]"],
            "attribution.operating_point.strengths.0: must be in",
        ),
        (
            ["attribution.swap.strengths=[0.01]"],
            "attribution.swap.strengths: strength: 0.01 leaves",
        ),
        (["attribution.swap.anonymizers=[cldm_none]"], "attribution.swap.anonymizers: 'cldm_none'"),
        (
            ["attribution.operating_point.anonymizer=nosuch"],
            "attribution.operating_point.anonymizer: 'nosuch'",
        ),
        (
            ["anonymizers.cldm_none.num_inference_steps=4"],
            "attribution.scales .cldm_canny.: two settings get",
        ),
        (
            ["audit.galleries=[source_included]"],
            "attribution.operating_point.gallery: source_excluded is",
        ),
        *ONLY_AUDIT,
        (["audit.regions=[face,face]"], "audit.regions: name none twice"),
        (["audit.regions=[nose]"], "audit.regions.*nose"),
        (["+attribution.scale=1"], "attribution.scale: AttributionSettings has no such setting"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], formatting: str) -> None:
    with pytest.raises(ConfigError, match=f"^{formatting}"):
        built(*OVERRIDES, *overrides)


def test_defaults_are_those_of_the_file() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        written = compose("attribute").attribution
    assert list(written.scales) == AttributionSettings().scales
    assert written.operating_point.target_k == AttributionSettings().operating_point.target_k
