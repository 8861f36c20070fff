"""Folders and hub ids of diffusion models: versions, who was trained on, what is broken."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cldmray import hashing
from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion, hub, model_folder
from cldmray.anonymizers.diffusion.lora import Lora
from cldmray.conditions import Canny
from cldmray.errors import BadInputError
from cldmray.models import cldm
from cldmray.storage import hub_commit

CANNY = Control(Canny(), "controlnet-canny")


def batch(settings: Diffusion, count: int = 3, side: int = 32, first_seed: int = 5) -> Batch:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images.setflags(write=False)
    seeds = np.arange(first_seed, first_seed + count)
    maps = {name: extract(images) for name, extract in settings.conditions.items()}
    return Batch([str(seed) for seed in seeds], images, seeds, maps)


def settings(folder: Path, controls: dict[str, Control], mode: Any = "text2img") -> Diffusion:
    return Diffusion(
        str(folder), controls, mode=mode, num_inference_steps=3, strength=0.7, device="cpu"
    )


class TestVersion:
    def test_content_counts_and_times_do_not(self, folder: Path, broken: Path) -> None:
        first, second = (settings(item, {"canny": CANNY}) for item in (folder, broken))
        assert first.version() == second.version()
        assert len(first.version()) == 16
        assert first.version() != settings(folder, {}).version()
        assert hashing.canonicalize(first)["_version_"] == first.version()

    def test_only_what_is_used_counts(self, broken: Path) -> None:
        anonymizer = settings(broken, {"canny": CANNY})
        before = anonymizer.version()
        shutil.rmtree(broken / "controlnet-soft")
        (broken / "README.md").write_text("a card")
        assert anonymizer.version() == before
        weights = broken / "controlnet-canny" / "diffusion_pytorch_model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert anonymizer.version() != before

    def test_the_index_counts_which_names_the_classes(self, broken: Path) -> None:
        anonymizer = settings(broken, {})
        before = anonymizer.version()
        index = json.loads((broken / "model_index.json").read_text())
        index["scheduler"][1] = "EulerAncestralDiscreteScheduler"
        (broken / "model_index.json").write_text(json.dumps(index))
        assert anonymizer.version() != before

    def test_on_the_hub_the_revision_stands(self) -> None:
        assert Diffusion("owner/name").version() == ""
        assert Diffusion("owner/name", {"a": CANNY}, revision="v1").version() == "v1"

    def test_a_hub_model_counts_by_its_commit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        reference = tmp_path / "models--owner--moving" / "refs" / "main"
        reference.parent.mkdir(parents=True)
        versions = []
        for commit in ("first", "second"):
            reference.write_text(commit)
            hub_commit.cache_clear()
            versions.append(Diffusion("owner/moving").version())
        assert versions == ["first", "second"]

    def test_parts_of_the_hub_count_by_their_own_revision(self) -> None:
        control = Control(Canny(), "owner/control", revision="v2")
        lora = Lora("owner/lora", revision="v3")
        assert Diffusion("owner/name", {"a": control}, lora=lora).version() == "v2 v3"


class TestTrainedOn:
    def test_no_list(self, folder: Path) -> None:
        assert settings(folder, {}).trained_on() == frozenset()
        assert Diffusion("owner/name").trained_on() == frozenset()

    def test_a_list(self, broken: Path) -> None:
        identities = [hashing.identity_hash(name) for name in ("Ann", "Bob")]
        text = f"# two people\n{identities[0]}\n\n{identities[1]}  # the other\n"
        (broken / model_folder.TRAINING_IDENTITIES).write_text(text)
        assert settings(broken, {}).trained_on() == frozenset(identities)

    def test_names_are_refused(self, broken: Path) -> None:
        (broken / model_folder.TRAINING_IDENTITIES).write_text("# list\nAnn\n")
        with pytest.raises(BadInputError, match=r"identities.txt, line 2: 'Ann' is no"):
            settings(broken, {}).trained_on()


class TestBadFolders:
    def fails(self, anonymizer: Diffusion, *formatting: str) -> None:
        for call in (anonymizer.open, anonymizer.version):
            with pytest.raises(BadInputError) as caught:
                call()
            assert all(word in str(caught.value) for word in formatting), str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self.fails(settings(tmp_path / "none", {}), "no such folder", str(tmp_path / "none"))
        self.fails(Diffusion("sd15", device="cpu"), "no such folder", "sd15")

    def test_no_index(self, tmp_path: Path) -> None:
        self.fails(settings(tmp_path, {}), str(tmp_path), "model_index.json is missing")

    @pytest.mark.parametrize("content", ["{", "[]"])
    def test_broken_index(self, broken: Path, content: str) -> None:
        (broken / "model_index.json").write_text(content)
        self.fails(settings(broken, {}), str(broken / "model_index.json"), "JSON")

    @pytest.mark.parametrize("part", ["unet", "vae", "scheduler", "tokenizer", "text_encoder"])
    def test_missing_component(self, broken: Path, part: str) -> None:
        shutil.rmtree(broken / part)
        self.fails(settings(broken, {}), "no such folder", str(broken / part))

    def test_empty_component(self, broken: Path) -> None:
        shutil.rmtree(broken / "unet")
        (broken / "unet").mkdir()
        self.fails(settings(broken, {}), str(broken / "unet"), "no JSON file")

    def test_missing_weights(self, broken: Path) -> None:
        (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        self.fails(settings(broken, {}), str(broken / "unet"), "no *.safetensors")

    def test_pickled_weights(self, broken: Path) -> None:
        weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        self.fails(settings(broken, {}), str(broken / "vae"), "pickled", weights.stem + ".bin")

    @pytest.mark.parametrize("keep", [0, 4, 5000])
    def test_broken_weights(self, broken: Path, keep: int) -> None:
        weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:keep])
        self.fails(settings(broken, {}), str(weights), "not a whole safetensors file")

    def test_missing_control(self, folder: Path) -> None:
        control = replace(CANNY, model="controlnet-depth")
        anonymizer = settings(folder, {"depth": control})
        self.fails(anonymizer, "no such folder", str(folder / "controlnet-depth"))

    def test_control_elsewhere(self, folder: Path, tmp_path: Path) -> None:
        moved = shutil.copytree(folder / "controlnet-canny", tmp_path / "elsewhere")
        inside, outside = CANNY, replace(CANNY, model=str(moved))
        drawn = [
            item.open()(batch(item))
            for item in (settings(folder, {"canny": control}) for control in (inside, outside))
        ]
        np.testing.assert_array_equal(drawn[0], drawn[1])

    def test_control_of_another_model(
        self, folder: Path, tmp_path: Path, small: Any, build_parts: Any
    ) -> None:
        cldm.save_controlnet_pipeline(tmp_path / "wide", build_parts(replace(small, text_width=32)))
        control = replace(CANNY, model=str(tmp_path / "wide" / "controlnet-canny"))
        with pytest.raises(BadInputError, match=r"controls.canny.model .* cross_attention_dim"):
            settings(folder, {"canny": control}).open()

    def test_weights_of_another_shape(self, broken: Path) -> None:
        path = broken / "unet" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "block_out_channels": [32, 64]}))
        with pytest.raises(BadInputError, match="broken cannot be loaded"):
            settings(broken, {}).open()

    def test_another_kind_of_pipeline(self, broken: Path) -> None:
        path = broken / "model_index.json"
        index = {**json.loads(path.read_text()), "_class_name": "DDPMPipeline"}
        path.write_text(json.dumps(index))
        with pytest.raises(BadInputError, match="DDPMPipeline"):
            settings(broken, {}).open()


class TestHub:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(*_: Any, **__: Any) -> None:
            raise ConnectionError("Name or service not known")

        monkeypatch.setattr(hub, "model_info", unreachable)

    def test_unreachable(self) -> None:
        with pytest.raises(BadInputError, match=r"owner/name: .* give the path of a local folder"):
            Diffusion("owner/name", device="cpu").open()

    def test_unreachable_control(self, folder: Path) -> None:
        control = replace(CANNY, model="owner/control")
        with pytest.raises(BadInputError, match=r"owner/control: .* local folder"):
            settings(folder, {"canny": control}).open()
