"""Training the small CLDM: what enters it, and one whole run that is resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cldmray.anonymizers import cldm
from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.conditions import Canny
from cldmray.engine import cldm_training
from cldmray.engine.cldm_training import picture_variants, to_unit_range, train_cldm
from cldmray.engine.phases import CldmTraining, PhaseConfig
from cldmray.faces.drawn import DrawnFaces
from cldmray.faces.records import Pictures, decode_pictures

TINY = cldm.CldmArchitecture(
    size=64,
    latent_channels=4,
    autoencoder_channels=(8, 8, 16, 16),
    unet_channels=(16, 32),
    condition_channels=(8, 8, 16, 16),
    text_width=16,
    text_length=16,
)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    source = DrawnFaces(people=12, photos_per_person=2, size=64)
    return decode_pictures(filter(None, source.read(source.listing()["location"].to_pylist())))


class TestPictureVariants:
    def test_the_first_is_the_picture_and_the_second_its_mirror(self, pictures: Pictures) -> None:
        found = picture_variants(pictures, 4, 0)
        assert found.shape == (4 * len(pictures), 64, 64, 3)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[:24], pictures)
        np.testing.assert_array_equal(found[24:48], pictures[:, :, ::-1])

    def test_further_ones_are_moved_a_little(self, pictures: Pictures) -> None:
        found = picture_variants(pictures, 4, 0).astype(int)
        for start, base in ((48, 0), (72, 24)):
            for moved, still in zip(
                found[start : start + 24], found[base : base + 24], strict=True
            ):
                assert 0 < np.abs(moved - still).mean() < 40

    def test_they_depend_on_the_seed_only(self, pictures: Pictures) -> None:
        first = picture_variants(pictures, 3, 5)
        np.testing.assert_array_equal(first, picture_variants(pictures, 3, 5))
        assert (first != picture_variants(pictures, 3, 6)).any()
        np.testing.assert_array_equal(picture_variants(pictures, 1, 5), pictures)


def test_unit_range() -> None:
    picture = np.zeros((1, 2, 3, 3), np.uint8)
    picture[0, 1, 2] = [255, 0, 51]
    tensor = to_unit_range(picture)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 1, 2].tolist() == pytest.approx([1, -1, -0.6])
    assert to_unit_range(picture[:, :, ::-1]).shape == (1, 3, 2, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_whole_training_is_resumed_and_can_be_drawn_with(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = PhaseConfig(steps=4, batch=8, learning_rate=1e-3, warmup=2)
    training = CldmTraining(
        autoencoder=phase,
        diffusion=replace(phase, ema=0.9),
        storage=str(tmp_path / "runs"),
        checkpoint_every=2,
        precision="no",
        threads=1,
    )
    asked: list[tuple[str, dict[str, Any]]] = []
    fit = cldm_training.fit

    def recorded(loop: Any, name: str, *arguments: Any, **config: Any) -> Any:
        weights = fit(loop, name, *arguments, **config)
        asked.append((name.split("-")[0], weights))
        return weights

    def interrupted(loop: Any, name: str, *arguments: Any, **config: Any) -> Any:
        if name.startswith("diffusion"):
            raise KeyboardInterrupt
        return recorded(loop, name, *arguments, **config)

    monkeypatch.setattr(cldm_training, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_cldm(pictures, Canny(), training, TINY)
    (saved,) = (tmp_path / "runs").rglob("state.pt")
    written = saved.stat().st_mtime_ns

    monkeypatch.setattr(cldm_training, "fit", recorded)
    parts = train_cldm(pictures, Canny(), training, TINY)
    assert [name for name, _ in asked] == ["autoencoder", "autoencoder", "diffusion"]
    for key, value in asked[0][1].items():
        torch.testing.assert_close(asked[1][1][key], value, atol=0, rtol=0)
    assert saved.stat().st_mtime_ns == written

    with torch.no_grad():
        latents = parts["vae"].encode(to_unit_range(pictures)).latent_dist.mean
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)

    folder = tmp_path / "model"
    cldm.save_controlnet_pipeline(folder, parts)
    controls = {"canny": Control(Canny(), "controlnet-canny")}
    redraw = Diffusion(str(folder), controls, steps=2, device="cpu").open()
    maps = {"canny": Canny()(pictures[:3])}
    drawn = redraw(Batch(["a", "b", "c"], pictures[:3], np.arange(3), maps))
    assert drawn.shape == (3, 64, 64, 3)
    assert drawn.std() > 0
