"""Settings, names, folders and versions of diffusion anonymizers; errors that name them."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
)
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cldmray import hashing
from cldmray.anonymizers import cldm, model_folder, pipeline, redraw
from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.conditions import Canny, SoftEdge
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces.records import Pictures

CONF = Path(__file__).parents[2] / "conf"
CANNY = Control(Canny(), "controlnet-canny")
SOFT = Control(SoftEdge(), "controlnet-soft", scale=0.5)


def batch(settings: Diffusion, count: int = 3, side: int = 32, first_seed: int = 5) -> Batch:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images.setflags(write=False)
    seeds = np.arange(first_seed, first_seed + count)
    maps = {name: extract(images) for name, extract in settings.conditions.items()}
    return Batch([str(seed) for seed in seeds], images, seeds, maps)


def furthest(first: Pictures, second: Pictures) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def settings(folder: Path, controls: dict[str, Control], mode: Any = "text2img") -> Diffusion:
    return Diffusion(str(folder), controls, mode=mode, steps=3, strength=0.7, device="cpu")


class TestName:
    def test_default(self) -> None:
        assert Diffusion().name == "cldm-none"
        assert Diffusion(controls={"canny": CANNY}).name == "cldm-canny-1.0"
        depth = replace(CANNY, scale=0.7)
        assert Diffusion(controls={"canny": CANNY, "depth": depth}).name == (
            "cldm-canny-1.0+depth-0.7"
        )
        assert Diffusion(mode="img2img", strength=0.5).name == "cldm-none-img2img-0.5"
        whole = Diffusion(controls={"canny": replace(CANNY, scale=1)}, mode="inpaint", family="sd")
        assert whole.name == "sd-canny-1.0-inpaint-0.8"

    def test_label(self) -> None:
        assert Diffusion(label="mine", mode="img2img").name == "mine"

    def test_conditions(self) -> None:
        assert Diffusion(controls={"edges": CANNY}).conditions == {"edges": Canny()}


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("model", ""),
        ("controls", {"a/b": CANNY}),
        ("mode", "upscale"),
        ("guidance", -0.1),
        ("guidance", float("nan")),
        ("steps", 0),
        ("scheduler", "a b"),
        ("strength", 0.0),
        ("strength", 1.1),
        ("mask", 0.0),
        ("mask", 1.5),
        ("dtype", "int8"),
        ("device", "tpu"),
        ("family", ""),
        ("label", "../up"),
    ],
)
def test_wrong_settings_are_named(key: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key} "):
        Diffusion(**{key: wrong})


def test_a_strength_without_a_step() -> None:
    with pytest.raises(ValueError, match=r"^strength=0.1 leaves none of 8 steps"):
        Diffusion(mode="img2img", strength=0.1)
    assert Diffusion(strength=0.1).strength == 0.1


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("model", ""), ("scale", -1.0), ("scale", float("nan")), ("start", 1.0), ("end", 0.0)],
)
def test_wrong_control_settings_are_named(key: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key} "):
        replace(CANNY, **{key: wrong})


class TestVersion:
    def test_content_counts_and_times_do_not(self, folder: Path, broken: Path) -> None:
        first, second = (settings(one, {"canny": CANNY}) for one in (folder, broken))
        assert first.version() == second.version()
        assert len(first.version()) == 16
        assert first.version() != settings(folder, {}).version()
        assert hashing.describe(first)["_version_"] == first.version()

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

    def test_on_the_hub_the_revision_stands(self) -> None:
        assert Diffusion("owner/name").version() == ""
        assert Diffusion("owner/name", {"a": CANNY}, revision="v1").version() == "v1"


class TestTrainedOn:
    def test_no_list(self, folder: Path) -> None:
        assert settings(folder, {}).trained_on() == frozenset()
        assert Diffusion("owner/name").trained_on() == frozenset()

    def test_a_list(self, broken: Path) -> None:
        people = [hashing.identity_hash(name) for name in ("Ann", "Bob")]
        text = f"# two people\n{people[0]}\n\n{people[1]}  # the other\n"
        (broken / model_folder.TRAINING_IDENTITIES).write_text(text)
        assert settings(broken, {}).trained_on() == frozenset(people)

    def test_names_are_refused(self, broken: Path) -> None:
        (broken / model_folder.TRAINING_IDENTITIES).write_text("# list\nAnn\n")
        with pytest.raises(BadInputError, match=r"identities.txt, line 2: 'Ann' is no"):
            settings(broken, {}).trained_on()


class TestBadFolders:
    def fails(self, anonymizer: Diffusion, *words: str) -> None:
        for call in (anonymizer.open, anonymizer.version):
            with pytest.raises(BadInputError) as caught:
                call()
            assert all(word in str(caught.value) for word in words), str(caught.value)

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
            one.open()(batch(one))
            for one in (settings(folder, {"canny": control}) for control in (inside, outside))
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

        monkeypatch.setattr(pipeline, "model_info", unreachable)

    def test_unreachable(self) -> None:
        with pytest.raises(BadInputError, match=r"owner/name: .* give the path of a local folder"):
            Diffusion("owner/name", device="cpu").open()

    def test_unreachable_control(self, folder: Path) -> None:
        control = replace(CANNY, model="owner/control")
        with pytest.raises(BadInputError, match=r"owner/control: .* local folder"):
            settings(folder, {"canny": control}).open()


def test_an_unknown_scheduler(folder: Path) -> None:
    for name in ("NoSuchScheduler", "UNet2DConditionModel"):
        with pytest.raises(ConfigError, match=f"scheduler: .* '{name}'"):
            replace(settings(folder, {}), scheduler=name).open()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        pipeline.find_device("cuda:99")
    assert pipeline.find_device("cpu") == "cpu"
    assert pipeline.find_device("auto") in {"cpu", "cuda"}


def test_settings_travel_to_other_processes(folder: Path) -> None:
    anonymizer = settings(folder, {"canny": CANNY, "soft": SOFT})
    assert pickle.loads(pickle.dumps(anonymizer)) == anonymizer


def test_settings_do_without_torch() -> None:
    code = (
        "import sys, cldmray.anonymizers, cldmray.anonymizers.diffusion as d;"
        "d.Diffusion('owner/name').version();"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestConf:
    def compose(self, tmp_path: Path, *overrides: str) -> Any:
        shutil.copytree(CONF, tmp_path / "conf")
        (tmp_path / "conf" / "test.yaml").write_text(
            "defaults:\n  - anonymizer: [cldm_none, cldm_canny, diffusion]\n  - _self_\n"
        )
        with initialize_config_dir(str(tmp_path / "conf"), version_base=None):
            composed = compose("test", [*overrides, "anonymizer.diffusion.model=owner/name"])
        return {key: instantiate(value) for key, value in composed.anonymizer.items()}

    def test_defaults(self, tmp_path: Path) -> None:
        made = self.compose(tmp_path)
        assert {key: one.name for key, one in made.items()} == {
            "cldm_none": "cldm-none",
            "cldm_canny": "cldm-canny-1.0",
            "diffusion": "sd-canny-1.0",
        }
        assert made["cldm_none"] == Diffusion()
        assert made["cldm_canny"] == Diffusion(controls={"canny": CANNY})
        assert type(made["cldm_canny"].controls) is dict

    def test_overrides(self, tmp_path: Path) -> None:
        made = self.compose(
            tmp_path,
            "anonymizer.cldm_canny.controls.canny.scale=0.5",
            "condition@anonymizer.cldm_canny.controls.canny.condition=soft_edge",
            "~anonymizer.diffusion.controls.canny",
        )
        control = made["cldm_canny"].controls["canny"]
        assert control == replace(CANNY, condition=SoftEdge(), scale=0.5)
        assert made["diffusion"].controls == {}

    def test_a_second_control(self, tmp_path: Path) -> None:
        new = "+anonymizer.diffusion.controls.edge"
        made = self.compose(
            tmp_path,
            "+condition@anonymizer.diffusion.controls.edge.condition=soft_edge",
            f"{new}._target_=cldmray.anonymizers.diffusion.Control",
            f"{new}.model=owner/edge",
        )
        assert made["diffusion"].name == "sd-canny-1.0+edge-1.0"
        assert made["diffusion"].conditions["edge"] == SoftEdge()

    @pytest.mark.parametrize("name", ["cldm_none", "cldm_canny", "diffusion"])
    def test_every_field_is_listed(self, name: str) -> None:
        path = CONF / "anonymizer" / f"{name}.yaml"
        assert path.read_text().startswith(f"# @package anonymizer.{name}\n# ")
        config = OmegaConf.load(path)
        keys = set(config) - {"_target_", "defaults"}
        assert keys == {field.name for field in fields(Diffusion)}
        for control in config.controls.values():
            listed = set(control) - {"_target_"} | {"condition"}
            assert listed == {field.name for field in fields(Control)}


def test_the_embedded_scheduler_is_kept(folder: Path) -> None:
    paint = settings(folder, {}).open()
    assert isinstance(paint, redraw.PipelineRedraw)
    assert isinstance(paint.pipe.scheduler, DDIMScheduler)
