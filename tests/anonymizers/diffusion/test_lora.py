"""Adapters: where they are found, what is refused, and what merging them does."""

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Diffusion, inference, lora
from cldmray.anonymizers.diffusion.lora import USUAL_FILE, Lora
from cldmray.errors import BadInputError, MissingDependencyError

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def settings(folder: Path, adapter: Lora | None) -> Diffusion:
    return Diffusion(str(folder), num_inference_steps=2, device="cpu", lora=adapter)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of rank 2 for one layer of the small UNet, 32 wide."""
    torch.manual_seed(0)
    tensors = {
        f"unet.{LAYER}.lora_A.weight": torch.randn(2, 32),
        f"unet.{LAYER}.lora_B.weight": torch.randn(32, 2),
    }
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter" / USUAL_FILE)
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "^model: "),
        ({"file": "weights.bin"}, "^file: must be a .safetensors file"),
        ({"lora_scale": -1.0}, "^lora_scale: "),
        ({"lora_scale": float("nan")}, "^lora_scale: "),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Lora("x"), **changes)


class TestFind:
    def test_a_folder_or_its_file(self, adapter: Path) -> None:
        assert Lora(str(adapter)).find() == adapter / USUAL_FILE
        assert Lora(str(adapter / USUAL_FILE)).find() == adapter / USUAL_FILE

    def test_on_the_hub(self) -> None:
        assert Lora("latent-consistency/lcm-lora-sdv1-5").find() is None

    @pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.ckpt"])
    def test_a_pickle_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x80\x04")
        with pytest.raises(BadInputError, match=f"^lora: .*{name} is a pickle"):
            Lora(str(tmp_path / name)).find()

    def test_a_folder_that_has_a_pickle_only(self, tmp_path: Path) -> None:
        (tmp_path / "pytorch_lora_weights.bin").write_bytes(b"\x80\x04")
        with pytest.raises(BadInputError, match=f"^lora: no such file: .*{USUAL_FILE}"):
            Lora(str(tmp_path)).find()

    def test_a_file_cut_short(self, adapter: Path) -> None:
        file = adapter / USUAL_FILE
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(BadInputError, match="not a whole safetensors file"):
            Lora(str(adapter)).find()

    def test_its_content_is_in_the_version(self, folder: Path, adapter: Path) -> None:
        versions = {settings(folder, lora).version() for lora in (None, Lora(str(adapter)))}
        save_file({"unet.x.lora_A.weight": torch.zeros(1)}, adapter / USUAL_FILE)
        versions.add(settings(folder, Lora(str(adapter))).version())
        assert len(versions) == 3


class TestPeft:
    def test_it_is_missing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(lora.importlib.metadata, "version", absent)
        with pytest.raises(
            MissingDependencyError, match=r"^lora needs the package peft: .*\[lora\]"
        ):
            settings(folder, Lora("x/y")).check()

    def test_it_is_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lora.importlib.metadata, "version", lambda name: "0.9.1")
        with pytest.raises(MissingDependencyError, match=r"peft 0\.17 or newer, not 0\.9\.1"):
            lora.check_peft()
        monkeypatch.setattr(lora.importlib.metadata, "version", lambda name: "0.21.2")
        lora.check_peft()


class TestMerge:
    @pytest.fixture(autouse=True)
    def peft(self) -> None:
        pytest.importorskip("peft")

    def test_the_product_is_added_to_the_weight(self, folder: Path, adapter: Path) -> None:
        weights = {}
        for scale in (None, 0.5):
            lora = None if scale is None else Lora(str(adapter), lora_scale=scale)
            paint = settings(folder, lora).open()
            assert isinstance(paint, inference.PipelineRunner)
            weights[scale] = paint.pipe.unet.get_submodule(LAYER).weight
            assert type(paint.pipe.unet.get_submodule(LAYER)) is torch.nn.Linear
        torch.manual_seed(0)
        down, up = torch.randn(2, 32), torch.randn(32, 2)
        torch.testing.assert_close(weights[0.5], weights[None] + 0.5 * up @ down)

    def test_images_follow_it(self, folder: Path, adapter: Path) -> None:
        images = np.zeros((2, 32, 32, 3), np.uint8)
        batch = Batch(["a", "b"], images, np.arange(2))
        without = settings(folder, None).open()(batch)
        assert (settings(folder, Lora(str(adapter))).open()(batch) != without).any()
        none = settings(folder, Lora(str(adapter), lora_scale=0.0)).open()(batch)
        assert np.abs(none.astype(int) - without).max() <= 1

    def test_one_of_another_model(self, folder: Path, adapter: Path) -> None:
        name = f"unet.{LAYER}"
        for shape, message in (((2, 48), "cannot be loaded"), (None, "no adapter for this model")):
            tensors = {"other.lora_A.weight": torch.zeros(1, 1)}
            if shape is not None:
                tensors = {
                    f"{name}.lora_A.weight": torch.zeros(shape),
                    f"{name}.lora_B.weight": torch.zeros(48, 2),
                }
            save_file(tensors, adapter / USUAL_FILE)
            with pytest.raises(BadInputError, match=message):
                settings(folder, Lora(str(adapter))).open()
