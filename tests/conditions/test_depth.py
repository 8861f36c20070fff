"""The depth condition: its network, its folder, and what the shipped weights see."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cldmray.arrays import to_unit_range
from cldmray.conditions import Depth
from cldmray.conditions.depth import EMBEDDED_FOLDER, load_depth
from cldmray.conditions.depth_network import DepthArchitecture, DepthNetwork, depth_loss
from cldmray.errors import BadInputError
from cldmray.models.depth_card import save_depth

TINY = DepthArchitecture(size=16, channels=(8, 8, 16))
SETTINGS = {
    "faces": {"identities": 3},
    "training": {"seed": 0, "storage": "/home/me"},
    "architecture": {"size": 16},
    "output": "elsewhere",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("depth") / "tiny"
    save_depth(made, DepthNetwork(TINY), TINY, SETTINGS)
    return made


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


class TestNetwork:
    def test_shapes(self) -> None:
        network = DepthNetwork(TINY)
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 1, 16, 16)
        assert network(torch.zeros(1, 3, 32, 8)).shape == (1, 1, 32, 8)

    @pytest.mark.parametrize(
        ("size", "channels", "key"),
        [
            (16, (8,), "channels"),
            (16, (8, 12), "channels"),
            (18, (8, 8, 8), "size"),
            (0, (8, 8), "size"),
        ],
    )
    def test_wrong_shapes_are_named(self, size: int, channels: tuple[int, ...], key: str) -> None:
        with pytest.raises(ValueError, match=f"^{key}[:.]"):
            DepthArchitecture(size, channels)

    def test_the_loss_by_hand(self) -> None:
        flat, dot = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        dot[0, 0, 1, 1] = 0.5
        assert float(depth_loss(flat, flat)) == 0
        assert float(depth_loss(dot, flat)) == pytest.approx(0.5 / 16 + 2 * 2 * 0.5 / 12)
        assert float(depth_loss(flat + 0.25, flat)) == pytest.approx(0.25)


class TestCondition:
    def test_maps_are_grey_and_do_not_depend_on_the_batch(
        self, folder: Path, noise: np.ndarray
    ) -> None:
        depth = Depth(str(folder))
        maps = depth(noise)
        assert maps.shape == noise.shape and maps.dtype == np.uint8
        assert (maps[..., 0] == maps[..., 1]).all() and (maps[..., 0] == maps[..., 2]).all()
        alone = np.concatenate([depth(noise[row : row + 1]) for row in range(5)])
        assert np.abs(alone.astype(int) - maps).max() <= 1

    def test_other_sizes_are_looked_at_in_the_networks_size(self, folder: Path) -> None:
        flat = np.full((1, 40, 40, 3), 120, np.uint8)
        network, size = load_depth(folder)
        with torch.inference_mode():
            guess = network(to_unit_range(flat[:, :size, :size]))[0, 0].numpy()
        large = cv2.resize(guess, (40, 40), interpolation=cv2.INTER_LINEAR)
        depth = Depth(str(folder))(flat)[0]
        assert depth.shape == (40, 40, 3)
        assert np.abs(depth[..., 0] - np.clip(255 * large, 0, 255)).max() <= 1

    def test_the_version_follows_the_weights(self, folder: Path, tmp_path: Path) -> None:
        actual = tmp_path / "other"
        torch.manual_seed(1)
        save_depth(actual, DepthNetwork(TINY), TINY, SETTINGS)
        assert Depth(str(folder)).version() == Depth(str(folder)).version()
        assert Depth(str(folder)).version() != Depth(str(actual)).version()

    def test_replaced_weights_are_loaded_in_the_same_process(
        self, tmp_path: Path, noise: np.ndarray
    ) -> None:
        maps = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            save_depth(tmp_path / "model", DepthNetwork(TINY), TINY, SETTINGS)
            maps.append(Depth(str(tmp_path / "model"))(noise))
        assert (maps[0] != maps[1]).any()

    def test_the_card_tells_the_settings_but_no_path(self, folder: Path) -> None:
        text = (folder / "README.md").read_text()
        assert "# tiny" in text and "identities: 3" in text
        assert "/home/me" not in text and "elsewhere" not in text


class TestBadFolders:
    @pytest.mark.parametrize("name", ["config.json", "depth.safetensors"])
    def test_a_missing_file_is_named(
        self, folder: Path, tmp_path: Path, name: str, noise: np.ndarray
    ) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(folder, broken)
        (broken / name).unlink()
        with pytest.raises(BadInputError, match=name):
            Depth(str(broken))(noise)
        with pytest.raises(BadInputError, match=name):
            Depth(str(broken)).version()

    def test_a_cut_file_is_named(self, folder: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(folder, broken)
        weights = broken / "depth.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(BadInputError, match=r"depth\.safetensors cannot be used"):
            load_depth(broken)

    def test_another_architecture_is_named(self, folder: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(folder, broken)
        (broken / "config.json").write_text(json.dumps({"size": 16, "channels": [8, 16, 16]}))
        with pytest.raises(BadInputError, match=r"depth\.safetensors cannot be used"):
            load_depth(broken)
        (broken / "config.json").write_text("{}")
        with pytest.raises(BadInputError, match=r"config\.json is no depth network's"):
            load_depth(broken)


class TestShippedWeights:
    def test_they_see_the_depth_of_people_whom_they_never_saw(self) -> None:
        from cldmray.faces.synthetic.scene import relative_depth, render

        images = [render(31, identity, 0, 64) for identity in range(24)]
        truth = np.stack([relative_depth(image) for image in images]).astype(float)
        guess = Depth()(np.stack([image.image for image in images]))[..., 0].astype(float)
        foreground = np.stack([image.foreground for image in images])
        assert np.abs(guess - truth)[foreground].mean() < 25
        assert np.mean((guess > 32) == foreground) > 0.93
        for estimate, actual, where in zip(guess, truth, foreground, strict=True):
            assert np.corrcoef(estimate[where], actual[where])[0, 1] > 0.7

    def test_they_travel_as_fp16_without_anybodys_image(self) -> None:
        from safetensors.torch import load_file

        tensors = load_file(EMBEDDED_FOLDER / "depth.safetensors").values()
        assert {tensor.dtype for tensor in tensors} == {torch.float16}
        assert "rendered" in (EMBEDDED_FOLDER / "README.md").read_text()
