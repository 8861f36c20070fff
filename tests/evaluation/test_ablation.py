"""Diffusion settings that differ in how much of the condition they are given."""

from dataclasses import replace

import pytest

from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.diffusion.settings import Control, Diffusion
from cldmray.conditions import Canny, Coarse, Depth
from cldmray.evaluation.ablation import (
    Family,
    coarsened,
    conditioned,
    families,
    same_pictures,
    scale_of,
    scaled,
    started,
)

NONE = Diffusion()
CANNY = Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")})
BOTH = Diffusion(
    controls={
        "canny": Control(Canny(), "controlnet-canny"),
        "depth": Control(Depth(), "controlnet-depth", scale=0.5),
    }
)


class TestChanges:
    def test_scales(self) -> None:
        assert [scale_of(one) for one in (NONE, CANNY, BOTH)] == [0.0, 1.0, 1.0]
        assert scaled(CANNY, 0.25).name == "cldm-canny-0.25"
        assert scaled(BOTH, 0.5).name == "cldm-canny-0.5+depth-0.25"
        assert scaled(CANNY, 1) is CANNY and scaled(NONE, 0.5) is NONE
        assert scaled(BOTH, 0) == NONE
        assert scaled(replace(CANNY, label="mine"), 0.5).name == "mine-x0.5"

    def test_coarseness(self) -> None:
        coarse = coarsened(CANNY, 4)
        assert coarse.name == "cldm-canny-1.0-coarse4"
        assert coarse.controls["canny"].condition == Coarse(Canny(), 4)
        assert coarsened(CANNY, 1) is CANNY and coarsened(NONE, 4) is NONE

    def test_starts(self) -> None:
        assert started(CANNY, 0.8).name == "cldm-canny-1.0-img2img-0.8"
        assert started(coarsened(CANNY, 2), 0.6).name == "cldm-canny-1.0-coarse2-img2img-0.6"
        inpaint = started(replace(CANNY, mode="inpaint"), 0.9)
        assert (inpaint.mode, inpaint.strength) == ("inpaint", 0.9)
        assert started(CANNY, None) is CANNY
        with pytest.raises(ValueError, match="strength"):
            started(CANNY, 1.5)

    def test_what_is_not_used_does_not_count(self) -> None:
        assert same_pictures(CANNY, replace(CANNY, label="mine", family="sd", strength=0.3))
        assert not same_pictures(started(CANNY, 0.8), started(CANNY, 0.3))
        assert not same_pictures(CANNY, scaled(CANNY, 0.5))


class TestFamilies:
    def test_members_by_rising_scale_beside_their_control(self) -> None:
        started_none = started(NONE, 0.6)
        members = [
            CANNY,
            started(CANNY, 0.6),
            Blur(),
            scaled(CANNY, 0.25),
            BOTH,
            started_none,
            coarsened(CANNY, 4),
            replace(scaled(BOTH, 0.5), label="half"),
            NONE,
        ]
        assert families(members) == [
            Family("cldm-none", ["cldm-canny-0.25", "cldm-canny-1.0"], [0.25, 1.0]),
            Family("cldm-none-img2img-0.6", ["cldm-canny-1.0-img2img-0.6"], [1.0]),
            Family("cldm-none", ["half", "cldm-canny-1.0+depth-0.5"], [0.5, 1.0]),
            Family("cldm-none", ["cldm-canny-1.0-coarse4"], [1.0]),
        ]

    def test_without_a_control(self) -> None:
        assert families([replace(NONE, steps=4), CANNY]) == [Family(None, [CANNY.name], [1.0])]
        assert families([Blur(), NONE]) == []

    def test_a_control_at_scale_0_is_none(self) -> None:
        silent = replace(CANNY, controls={"canny": Control(Canny(), "controlnet-canny", scale=0)})
        (family,) = families([silent, CANNY])
        assert family.none == silent.name
        assert conditioned({"a": silent, "b": CANNY, "c": Blur()}) == {"b": CANNY}
