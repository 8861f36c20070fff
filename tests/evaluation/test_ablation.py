"""Diffusion settings that differ in how much of the condition they are given."""

from dataclasses import replace

from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.conditions import Canny, Depth
from cldmray.evaluation.attribution import (
    AblationGrid,
    ablation_grids,
    conditioned,
)

NONE = Diffusion()
CANNY = Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")})
BOTH = Diffusion(
    controls={
        "canny": Control(Canny(), "controlnet-canny"),
        "depth": Control(Depth(), "controlnet-depth", controlnet_conditioning_scale=0.5),
    }
)


class TestFamilies:
    def test_members_by_rising_scale_beside_their_control(self) -> None:
        started_none = NONE.with_init_image(0.6)
        anonymizers = [
            CANNY,
            CANNY.with_init_image(0.6),
            Blur(),
            CANNY.with_scale(0.25),
            BOTH,
            started_none,
            CANNY.with_coarse_condition(4),
            replace(BOTH.with_scale(0.5), label="half"),
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
