"""Training the small CLDM: what enters it, and one whole run that is resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.arrays import Images, to_unit_range
from cldmray.attackers.nn.training import Worker
from cldmray.conditions import Canny, SoftEdge
from cldmray.engine.training import CHECKPOINT_FILE, TrainingResult
from cldmray.errors import BadInputError
from cldmray.faces.records import decode_images
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.models import cldm, cldm_training
from cldmray.models.cldm_training import CldmTraining, train_cldm
from cldmray.models.phases import PhaseConfig, PhaseTrainable

TINY = cldm.CldmArchitecture(
    size=64,
    latent_channels=4,
    autoencoder_channels=(16, 48, 48, 48),
    unet_channels=(16, 32),
    condition_channels=(8, 8, 16, 16),
    text_width=16,
    text_length=16,
)


@pytest.fixture(scope="module")
def images() -> Images:
    source = SyntheticFaces(n_identities=12, images_per_identity=2, size=64)
    return decode_images(filter(None, source.read(source.listing()["location"].to_pylist())))


def test_too_many_conditions_for_a_batch(images: Images) -> None:
    phase = PhaseConfig(max_steps=1, batch_size=4, learning_rate=1e-3)
    training = CldmTraining(
        autoencoder=phase, diffusion=phase, storage="nowhere", arrays="nowhere", workers=2
    )
    conditions = {str(number): Canny() for number in range(3)}
    with pytest.raises(BadInputError, match=r"^training.diffusion.batch_size: 4 .* 3 conditions"):
        train_cldm(images, conditions, training, TINY)


def test_unit_range() -> None:
    image = np.zeros((1, 2, 3, 3), np.uint8)
    image[0, 1, 2] = [255, 0, 51]
    tensor = to_unit_range(image)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 1, 2].tolist() == pytest.approx([1, -1, -0.6])
    assert to_unit_range(image[:, :, ::-1]).shape == (1, 3, 2, 3)


def test_another_precision_is_another_training(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrained(trainable: PhaseTrainable, training: CldmTraining) -> TrainingResult:
        names.append(trainable.name)
        trainable.build(Worker())
        state = {name: value.contiguous() for name, value in trainable.state().items()}
        return TrainingResult(save(state), [])

    monkeypatch.setattr(cldm_training, "fit", untrained)
    phase = PhaseConfig(max_steps=1, batch_size=8, learning_rate=1e-3)
    training = CldmTraining(
        autoencoder=phase,
        diffusion=phase,
        sharpening=phase,
        storage="nowhere",
        arrays=str(tmp_path),
    )
    phases: dict[str, set[str]] = {"autoencoder": set(), "diffusion": set(), "sharpening": set()}
    precisions: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32", "bf16")
    for precision in precisions:
        names: list[str] = []
        train_cldm(images[:8], {"canny": Canny()}, replace(training, precision=precision), TINY)
        for name in names:
            phases[name.partition("-")[0]].add(name)
    assert [len(names) for names in phases.values()] == [2, 2, 2]
    assert len(list(tmp_path.glob("latents-*.npy"))) == 2


@pytest.mark.slow
def test_a_whole_training_is_resumed_and_can_be_drawn_with(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = PhaseConfig(max_steps=4, batch_size=8, learning_rate=1e-3, warmup_steps=2)
    training = CldmTraining(
        autoencoder=phase,
        diffusion=replace(phase, ema=0.9),
        storage=str(tmp_path / "runs"),
        arrays=str(tmp_path / "arrays"),
        checkpoint_every=2,
        precision="fp32",
        workers=0,
        threads=1,
    )
    asked: list[tuple[str, dict[str, Any]]] = []
    fit = cldm_training.fit
    conditions = {"canny": Canny(), "soft": SoftEdge()}

    def recorded(trainable: PhaseTrainable, training: CldmTraining) -> TrainingResult:
        result = fit(trainable, training)
        asked.append((trainable.name.split("-")[0], result.state))
        return result

    def interrupted(trainable: PhaseTrainable, training: CldmTraining) -> TrainingResult:
        if trainable.name.startswith("diffusion"):
            raise KeyboardInterrupt
        return recorded(trainable, training)

    monkeypatch.setattr(cldm_training, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_cldm(images, conditions, training, TINY)
    (saved,) = (tmp_path / "runs").rglob(CHECKPOINT_FILE)
    written = saved.stat().st_mtime_ns

    monkeypatch.setattr(cldm_training, "fit", recorded)
    parts, curves = train_cldm(images, conditions, training, TINY)
    assert [name for name, _ in asked] == ["autoencoder", "autoencoder", "diffusion"]
    for key, value in asked[0][1].items():
        torch.testing.assert_close(asked[1][1][key], value, atol=0, rtol=0)
    assert saved.stat().st_mtime_ns == written
    assert {name: [point["step"] for point in curve] for name, curve in curves.items()} == {
        "autoencoder": [2, 4],
        "diffusion": [2, 4],
    }

    with torch.no_grad():
        latents = parts["vae"].encode(to_unit_range(images)).latent_dist.mean
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)

    folder = tmp_path / "model"
    cldm.save_controlnet_pipeline(folder, parts)
    controls = {name: Control(item, f"controlnet-{name}") for name, item in conditions.items()}
    anonymize = Diffusion(str(folder), controls, num_inference_steps=2, device="cpu").open()
    maps = {name: item(images[:3]) for name, item in conditions.items()}
    drawn = anonymize(Batch(["a", "b", "c"], images[:3], np.arange(3), maps))
    assert drawn.shape == (3, 64, 64, 3)
    assert drawn.std() > 0
