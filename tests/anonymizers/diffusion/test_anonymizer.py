"""Diffusion anonymizers that are made of another one: other scales, conditions and starts."""

from dataclasses import replace

import pytest

from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.diffusion import Control, Diffusion, inference
from cldmray.conditions import Canny, Coarse, Depth
from cldmray.errors import ConfigError

NONE = Diffusion()
CANNY = Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")})
BOTH = Diffusion(
    controls={
        "canny": Control(Canny(), "controlnet-canny"),
        "depth": Control(Depth(), "controlnet-depth", controlnet_conditioning_scale=0.5),
    }
)


class TestChanges:
    def test_scales(self) -> None:
        assert [item.ablation_key().scale for item in (NONE, CANNY, BOTH)] == [0.0, 1.0, 1.0]
        assert CANNY.with_scale(0.25).name == "cldm-canny-0.25"
        assert BOTH.with_scale(0.5).name == "cldm-canny-0.5+depth-0.25"
        assert CANNY.with_scale(1) is CANNY and NONE.with_scale(0.5) is NONE
        assert BOTH.with_scale(0) == NONE
        assert replace(CANNY, label="mine").with_scale(0.5).name == "mine-x0.5"

    def test_coarseness(self) -> None:
        coarse = CANNY.with_coarse_condition(4)
        assert coarse.name == "cldm-canny-1.0-coarse4"
        assert coarse.controls["canny"].condition == Coarse(Canny(), 4)
        assert CANNY.with_coarse_condition(1) is CANNY and NONE.with_coarse_condition(4) is NONE

    def test_starts(self) -> None:
        assert CANNY.with_init_image(0.8).name == "cldm-canny-1.0-img2img-0.8"
        assert (
            CANNY.with_coarse_condition(2).with_init_image(0.6).name
            == "cldm-canny-1.0-coarse2-img2img-0.6"
        )
        inpaint = replace(CANNY, mode="inpaint").with_init_image(0.9)
        assert (inpaint.mode, inpaint.strength) == ("inpaint", 0.9)
        assert CANNY.with_init_image(None) is CANNY
        with pytest.raises(ValueError, match="strength"):
            CANNY.with_init_image(1.5)

    def test_what_is_not_used_does_not_count(self) -> None:
        assert CANNY.same_images(replace(CANNY, label="mine", name_prefix="sd", strength=0.3))
        assert not CANNY.with_init_image(0.8).same_images(CANNY.with_init_image(0.3))
        assert not CANNY.same_images(CANNY.with_scale(0.5))

    def test_only_diffusion_has_a_condition(self) -> None:
        assert not Blur().is_conditioned and Blur().ablation_key() is None
        message = "^blur is no anonymizer with a condition"
        with pytest.raises(ConfigError, match=message):
            Blur().with_scale(0.5)
        with pytest.raises(ConfigError, match=message):
            Blur().with_coarse_condition(2)
        with pytest.raises(ConfigError, match=message):
            Blur().with_init_image(0.5)
        with pytest.raises(ConfigError, match=message):
            Blur().started_from_image(0.5)

    def test_from_the_image_with_a_step_at_least(self) -> None:
        assert CANNY.started_from_image(0.8) == CANNY.with_init_image(0.8)
        assert CANNY.started_from_image(0.1).strength == 1.0
        inpaint = replace(CANNY, mode="inpaint")
        assert inpaint.started_from_image(0.8) is inpaint


def test_the_engines_device_counts_unless_another_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        inference, "PipelineRunner", lambda settings: opened.append(settings.device)
    )
    NONE.open()
    NONE.open_on("cpu")
    replace(NONE, device="cuda:1").open_on("cpu")
    assert opened == ["auto", "cpu", "cuda:1"]
    assert NONE.uses_gpu and not replace(NONE, device="cpu").uses_gpu
