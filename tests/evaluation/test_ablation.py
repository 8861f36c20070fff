"""Diffusion settings that differ in how much of the condition they are given."""

from dataclasses import replace

import pytest

from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.diffusion.settings import Control, Diffusion
from cldmray.conditions import Canny, Coarse, Depth
from cldmray.evaluation.ablation import (
    AblationGrid,
    ablation_grids,
    conditioned,
    same_images,
    scale_of,
    with_coarse_condition,
    with_init_image,
    with_scale,
)

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
        assert [scale_of(one) for one in (NONE, CANNY, BOTH)] == [0.0, 1.0, 1.0]
        assert with_scale(CANNY, 0.25).name == "cldm-canny-0.25"
        assert with_scale(BOTH, 0.5).name == "cldm-canny-0.5+depth-0.25"
        assert with_scale(CANNY, 1) is CANNY and with_scale(NONE, 0.5) is NONE
        assert with_scale(BOTH, 0) == NONE
        assert with_scale(replace(CANNY, label="mine"), 0.5).name == "mine-x0.5"

    def test_coarseness(self) -> None:
        coarse = with_coarse_condition(CANNY, 4)
        assert coarse.name == "cldm-canny-1.0-coarse4"
        assert coarse.controls["canny"].condition == Coarse(Canny(), 4)
        assert with_coarse_condition(CANNY, 1) is CANNY and with_coarse_condition(NONE, 4) is NONE

    def test_starts(self) -> None:
        assert with_init_image(CANNY, 0.8).name == "cldm-canny-1.0-img2img-0.8"
        assert (
            with_init_image(with_coarse_condition(CANNY, 2), 0.6).name
            == "cldm-canny-1.0-coarse2-img2img-0.6"
        )
        inpaint = with_init_image(replace(CANNY, mode="inpaint"), 0.9)
        assert (inpaint.mode, inpaint.strength) == ("inpaint", 0.9)
        assert with_init_image(CANNY, None) is CANNY
        with pytest.raises(ValueError, match="strength"):
            with_init_image(CANNY, 1.5)

    def test_what_is_not_used_does_not_count(self) -> None:
        assert same_images(CANNY, replace(CANNY, label="mine", name_prefix="sd", strength=0.3))
        assert not same_images(with_init_image(CANNY, 0.8), with_init_image(CANNY, 0.3))
        assert not same_images(CANNY, with_scale(CANNY, 0.5))


class TestFamilies:
    def test_members_by_rising_scale_beside_their_control(self) -> None:
        started_none = with_init_image(NONE, 0.6)
        anonymizers = [
            CANNY,
            with_init_image(CANNY, 0.6),
            Blur(),
            with_scale(CANNY, 0.25),
            BOTH,
            started_none,
            with_coarse_condition(CANNY, 4),
            replace(with_scale(BOTH, 0.5), label="half"),
            NONE,
        ]
        assert ablation_grids(anonymizers) == [
            AblationGrid("cldm-none", ["cldm-canny-0.25", "cldm-canny-1.0"], [0.25, 1.0]),
            AblationGrid("cldm-none-img2img-0.6", ["cldm-canny-1.0-img2img-0.6"], [1.0]),
            AblationGrid("cldm-none", ["half", "cldm-canny-1.0+depth-0.5"], [0.5, 1.0]),
            AblationGrid("cldm-none", ["cldm-canny-1.0-coarse4"], [1.0]),
        ]

    def test_without_a_control(self) -> None:
        assert ablation_grids([replace(NONE, num_inference_steps=4), CANNY]) == [
            AblationGrid(None, [CANNY.name], [1.0])
        ]
        assert ablation_grids([Blur(), NONE]) == []

    def test_a_control_at_scale_0_is_none(self) -> None:
        silent = replace(
            CANNY,
            controls={
                "canny": Control(Canny(), "controlnet-canny", controlnet_conditioning_scale=0)
            },
        )
        (family,) = ablation_grids([silent, CANNY])
        assert family.none == silent.name
        assert conditioned({"a": silent, "b": CANNY, "c": Blur()}) == {"b": CANNY}
