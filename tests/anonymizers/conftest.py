import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel

from cldmray.models import cldm

SMALL = cldm.CldmArchitecture(
    size=32,
    latent_channels=8,
    autoencoder_channels=(8, 8, 16, 16),
    unet_channels=(16, 32),
    condition_channels=(8, 8, 16, 16),
    text_width=16,
    text_length=32,
)


def parts(arch: cldm.CldmArchitecture) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    unet = cldm.build_unet(arch)
    tokenizer = cldm.build_tokenizer(arch)
    return {
        "vae": cldm.build_autoencoder(arch),
        "unet": unet,
        "scheduler": cldm.build_scheduler(),
        "tokenizer": tokenizer,
        "text_encoder": cldm.build_text_encoder(arch, tokenizer),
        "controlnets": {name: cldm.build_controlnet(unet, arch) for name in ("canny", "soft")},
    }


@pytest.fixture(scope="session")
def small() -> cldm.CldmArchitecture:
    """An architecture that is built and run within a second."""
    return SMALL


@pytest.fixture(scope="session")
def build_parts() -> Callable[[cldm.CldmArchitecture], dict[str, Any]]:
    """Makes the parts of an untrained pipeline with two ControlNets."""
    return parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "tiny"
    cldm.save_controlnet_pipeline(root, parts(SMALL))
    return root


@pytest.fixture(scope="session")
def save_inpainting() -> Callable[[Path, dict[str, Any]], None]:
    """Saves parts as the public inpainting repositories are: their index names their own class."""

    def save(folder: Path, parts: dict[str, Any]) -> None:
        unet = UNet2DConditionModel.from_config(parts["unet"].config, in_channels=9)
        cldm.save_controlnet_pipeline(folder, {**parts, "unet": unet})
        names = ("vae", "scheduler", "tokenizer", "text_encoder")
        StableDiffusionInpaintPipeline(
            **{name: parts[name] for name in names},
            unet=unet,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder, safe_serialization=True)

    return save


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "broken"))
