"""The composed configurations of the training jobs."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.conditions import Canny, Depth, SoftEdge
from cldmray.conditions.base import Condition
from cldmray.config.instantiate import build, to_container
from cldmray.errors import ConfigError
from cldmray.models import cldm, cldm_training

CONF = Path(__file__).resolve().parents[2] / "conf"
TRAININGS = {
    "cldm": "cldm_training.CldmTraining",
    "depth": "depth_training.DepthTraining",
}
LARGEST = 40_000_000
"""Bytes of a model that ships with the package."""


def composed(*overrides: str, name: str = "audit") -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def training_class(name: str) -> Any:
    module, _, kind = TRAININGS[name].partition(".")
    return getattr(importlib.import_module(f"cldmray.models.{module}"), kind)


class TestTheTrainingJobs:
    @pytest.mark.parametrize("name", list(TRAININGS))
    def test_they_compose(self, name: str) -> None:
        settings = to_container(composed(name=name))
        training = build(settings["training"], training_class(name), "training")
        assert training.checkpoint_every == settings["training"]["checkpoint_every"]
        assert training.storage.startswith("runs/")

    def test_the_cldm_learns_three_conditions(self) -> None:
        settings = to_container(composed(name="cldm"))
        conditions = build(settings["conditions"], dict[str, Condition], "conditions")
        assert conditions == {"canny": Canny(), "soft_edge": SoftEdge(), "depth": Depth()}

    def test_the_cldm_is_the_default_architecture_and_fits_the_package(self) -> None:
        settings = to_container(composed(name="cldm"))
        arch = build(settings["architecture"], cldm.CldmArchitecture, "architecture")
        assert arch == cldm.CldmArchitecture()
        assert settings["faces"]["size"] == settings["synthetic"]["size"] == arch.size == 128
        assert arch.latent_shape == (32, 8, 8)
        denoiser = cldm_training.build_denoiser(arch, settings["conditions"])
        networks = [cldm.build_autoencoder(arch), denoiser]
        weights = sum(p.numel() for network in networks for p in network.parameters())
        assert 2 * weights <= LARGEST  # fp16

    def test_trained_people_are_not_those_that_audits_render(self) -> None:
        seeds = [
            to_container(composed("faces=synthetic"))["faces"]["seed"],
            to_container(composed(name="cldm"))["synthetic"]["seed"],
            to_container(composed(name="depth"))["faces"]["seed"],
        ]
        assert len(set(seeds)) == 3

    @pytest.mark.parametrize(
        ("name", "override", "key"),
        [
            ("cldm", "training.diffusion.max_steps=many", "training.diffusion.max_steps"),
            ("cldm", "+training.diffusion.epochs=3", "training.diffusion.epochs"),
            ("depth", "training.noise=2", "training.noise"),
        ],
    )
    def test_errors_name_the_key(self, name: str, override: str, key: str) -> None:
        settings = to_container(composed(override, name=name))
        with pytest.raises(ConfigError, match=f"^{key}: "):
            build(settings["training"], training_class(name), "training")
