"""Settings and names of diffusion anonymizers; errors that name them."""

import pickle
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
)
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cldmray.anonymizers.base import Anonymizer
from cldmray.anonymizers.diffusion import Control, Diffusion, Lora, inference, loading, prompts
from cldmray.conditions import Canny, SoftEdge
from cldmray.config.instantiate import build, to_container
from cldmray.errors import ConfigError

CONF = Path(__file__).parents[3] / "conf"
CANNY = Control(Canny(), "controlnet-canny")
EMBEDDED: Any = {
    "input_side": 128, "scheduler": "UniPCMultistepScheduler", "num_inference_steps": 5
}  # fmt: skip
SOFT = Control(SoftEdge(), "controlnet-soft", controlnet_conditioning_scale=0.5)


def settings(folder: Path, controls: dict[str, Control], mode: Any = "text2img") -> Diffusion:
    return Diffusion(
        str(folder), controls, mode=mode, num_inference_steps=3, strength=0.7, device="cpu"
    )


class TestName:
    def test_default(self) -> None:
        assert Diffusion().name == "cldm-none"
        assert Diffusion(controls={"canny": CANNY}).name == "cldm-canny-1.0"
        depth = replace(CANNY, controlnet_conditioning_scale=0.7)
        assert Diffusion(controls={"canny": CANNY, "depth": depth}).name == (
            "cldm-canny-1.0+depth-0.7"
        )
        assert Diffusion(mode="img2img", strength=0.5).name == "cldm-none-img2img-0.5"
        whole = Diffusion(
            controls={"canny": replace(CANNY, controlnet_conditioning_scale=1)},
            mode="inpaint",
            name_prefix="sd",
        )
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
        ("guidance_scale", -0.1),
        ("guidance_scale", float("nan")),
        ("num_inference_steps", 0),
        ("scheduler", "a b"),
        ("strength", 0.0),
        ("strength", 1.1),
        ("mask", 0.0),
        ("mask", 1.5),
        ("dtype", "int8"),
        ("device", "tpu"),
        ("name_prefix", ""),
        ("label", "../up"),
        ("vae", ""),
        ("prompt", "a {style} image"),
        ("negative_prompt", "no {style}"),
        ("prompt_choices", {"style": []}),
        ("prompt_choices", {"style": "studio"}),
    ],
)
def test_wrong_settings_are_named(key: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{key}[:.]"):
        Diffusion(**{key: wrong})


def test_a_strength_without_a_step() -> None:
    with pytest.raises(ValueError, match=r"^strength: 0.1 leaves none of 8 steps"):
        Diffusion(mode="img2img", strength=0.1)
    assert Diffusion(strength=0.1).strength == 0.1


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("model", ""),
        ("controlnet_conditioning_scale", -1.0),
        ("controlnet_conditioning_scale", float("nan")),
        ("control_guidance_start", 1.0),
        ("control_guidance_end", 0.0),
    ],
)
def test_wrong_control_settings_are_named(key: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        replace(CANNY, **{key: wrong})


def test_an_unknown_scheduler(folder: Path) -> None:
    for name in ("NoSuchScheduler", "UNet2DConditionModel"):
        with pytest.raises(ConfigError, match=f"scheduler: .* '{name}'"):
            replace(settings(folder, {}), scheduler=name).open()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        loading.find_device("cuda:99")
    assert loading.find_device("cpu") == "cpu"
    assert loading.find_device("auto") in {"cpu", "cuda"}


def test_large_images_are_decoded_in_tiles(folder: Path) -> None:
    for wanted in (False, True):
        paint: Any = replace(settings(folder, {}), vae_tiling=wanted).open()
        assert paint.pipe.vae.use_tiling == wanted


class TestOffload:
    @pytest.mark.parametrize("offload", ["model", "sequential"])
    def test_it_needs_a_gpu(self, folder: Path, offload: Any) -> None:
        with pytest.raises(ConfigError, match=f"^offload={offload}: there is no GPU .*=none, or"):
            replace(settings(folder, {}), offload=offload).open()

    @pytest.mark.parametrize("offload", ["model", "sequential"])
    def test_networks_wait_in_main_memory(
        self, folder: Path, offload: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The GPU is only pretended: the pipeline is told to offload, and is not moved before."""
        moved: list[Any] = []
        kind = loading.diffusers.DiffusionPipeline
        monkeypatch.setattr(kind, "to", lambda pipe, *place, **_: moved.append(place))
        for name in ("model", "sequential"):
            monkeypatch.setattr(
                kind,
                f"enable_{name}_cpu_offload",
                lambda pipe, device, name=name: moved.append((name, device, pipe.text_encoder)),
            )
        monkeypatch.setattr(loading, "find_device", lambda device: "cuda")
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: tensor)
        replace(settings(folder, {}), offload=offload).open()
        assert moved == [(offload, "cuda", None)]

    def test_other_words_and_compiled_networks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="^offload: must be 'none', 'model' or 'sequential'"):
            Diffusion(offload="disk")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="compile must be false"):
            Diffusion(offload="model", compile=True)


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
            "defaults:\n  - anonymizers: [cldm_none, cldm_canny, diffusion]\n  - _self_\n"
        )
        with initialize_config_dir(str(tmp_path / "conf"), version_base=None):
            composed = compose("test", [*overrides, "anonymizers.diffusion.model=owner/name"])
        nodes = to_container(composed)["anonymizers"]
        return build(nodes, dict[str, Anonymizer], "anonymizers")

    def test_defaults(self, tmp_path: Path) -> None:
        made = self.compose(tmp_path)
        assert {key: anonymizer.name for key, anonymizer in made.items()} == {
            "cldm_none": "cldm-none",
            "cldm_canny": "cldm-canny-1.0",
            "diffusion": "sd-canny-1.0",
        }
        assert made["cldm_none"] == Diffusion(**EMBEDDED)
        assert made["cldm_canny"] == Diffusion(controls={"canny": CANNY}, **EMBEDDED)
        assert type(made["cldm_canny"].controls) is dict

    def test_overrides(self, tmp_path: Path) -> None:
        made = self.compose(
            tmp_path,
            "anonymizers.cldm_canny.controls.canny.controlnet_conditioning_scale=0.5",
            "condition@anonymizers.cldm_canny.controls.canny.condition=soft_edge",
            "~anonymizers.diffusion.controls.canny",
        )
        control = made["cldm_canny"].controls["canny"]
        assert control == replace(CANNY, condition=SoftEdge(), controlnet_conditioning_scale=0.5)
        assert made["diffusion"].controls == {}

    def test_a_second_control(self, tmp_path: Path) -> None:
        made = self.compose(
            tmp_path,
            "+control@anonymizers.diffusion.controls.edge=controlnet",
            "+condition@anonymizers.diffusion.controls.edge.condition=soft_edge",
            "anonymizers.diffusion.controls.edge.model=owner/edge",
        )
        assert made["diffusion"].name == "sd-canny-1.0+edge-1.0"
        assert made["diffusion"].conditions["edge"] == SoftEdge()

    @pytest.mark.parametrize("name", ["cldm_none", "cldm_canny", "diffusion", "sd15"])
    def test_the_head_names_the_package(self, name: str) -> None:
        path = CONF / "anonymizers" / f"{name}.yaml"
        assert path.read_text().startswith(f"# @package anonymizers.{name}\n# ")

    def test_every_field_is_listed(self) -> None:
        listed = set(OmegaConf.load(CONF / "diffusion" / "base.yaml")) - {"_target_"}
        assert listed == {field.name for field in fields(Diffusion)}
        listed = set(OmegaConf.load(CONF / "control" / "controlnet.yaml")) - {"_target_"}
        assert listed | {"condition"} == {field.name for field in fields(Control)}


PUBLIC = sorted(
    path.stem
    for pattern in ("sd*.yaml", "flux*.yaml")
    for path in (CONF / "anonymizers").glob(pattern)
)
TRANSFORMERS = {"sd3_canny": "float16", "flux_canny": "bfloat16"}


@pytest.fixture(scope="module")
def made() -> dict[str, Diffusion]:
    """The public models by the names of their YAMLs."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("audit", [f"anonymizers=[{','.join(PUBLIC)}]"])
    settings = to_container(composed)["anonymizers"]
    return {key: build(value, Anonymizer, key) for key, value in settings.items()}


class TestPublicModels:
    def test_their_names(self, made: dict[str, Diffusion]) -> None:
        assert {key: anonymizer.name for key, anonymizer in made.items()} == {
            "flux_canny": "flux-canny-0.6",
            "sd15": "sd15-none",
            "sd15_canny": "sd15-canny-1.0",
            "sd15_depth": "sd15-depth-1.0",
            "sd15_depth_hed": "sd15-depth-0.7+hed-0.1-inpaint-1.0",
            "sd15_five": "sd15-canny-0.4+depth-0.4+hed-0.4+lineart-0.4+normal-0.4",
            "sd15_img2img": "sd15-none-img2img-0.6",
            "sd15_lcm": "sd15-lcm-canny-1.0",
            "sd15_soft_edge": "sd15-soft_edge-1.0",
            "sd3_canny": "sd3-canny-0.5",
            "sd_turbo": "sd-turbo-none-img2img-0.5",
            "sdxl": "sdxl-none",
            "sdxl_canny": "sdxl-canny-0.5",
            "sdxl_depth": "sdxl-depth-0.5",
            "sdxl_turbo": "sdxl-turbo-canny-0.5",
        }

    def test_instance_augmentation(self, made: dict[str, Diffusion]) -> None:
        anonymizer = made["sd15_depth_hed"]
        assert (anonymizer.mode, anonymizer.num_inference_steps, anonymizer.guidance_scale) == (
            "inpaint",
            40,
            7.5,
        )
        assert anonymizer.scheduler == "UniPCMultistepScheduler"
        assert anonymizer.model.endswith("inpainting")
        assert {
            name: control.controlnet_conditioning_scale
            for name, control in anonymizer.controls.items()
        } == {
            "depth": 0.7,
            "hed": 0.1,
        }
        detectors = {name: control.condition.name for name, control in anonymizer.controls.items()}
        assert detectors == {"depth": "midas", "hed": "hed"}

    def test_few_steps(self, made: dict[str, Diffusion]) -> None:
        assert made["sd15_lcm"].lora == Lora("latent-consistency/lcm-lora-sdv1-5")
        assert made["sd15_lcm"].scheduler == "LCMScheduler"
        assert all(
            made[key].num_inference_steps == 4 for key in ("sd15_lcm", "sd_turbo", "sdxl_turbo")
        )
        assert all(made[key].guidance_scale == 0 for key in ("sd_turbo", "sdxl_turbo"))

    def test_all_suit_a_gpu_and_vary_their_prompts(self, made: dict[str, Diffusion]) -> None:
        for key, anonymizer in made.items():
            assert anonymizer.channels_last
            assert anonymizer.dtype == TRANSFORMERS.get(key, "float16")
            assert anonymizer.variant == (None if key in TRANSFORMERS else "fp16")
            assert (
                len(
                    prompts.all_prompts(
                        (anonymizer.prompt, anonymizer.negative_prompt), anonymizer.prompt_choices
                    )
                )
                == 12
            )

    @pytest.mark.parametrize("name", PUBLIC)
    def test_the_head_tells_what_one_must_know(self, name: str) -> None:
        text = (CONF / "anonymizers" / f"{name}.yaml").read_text()
        head = text[: text.index("\ndefaults:" if "\ndefaults:" in text else "\n_target_")]
        assert head.startswith(f"# @package anonymizers.{name}\n# ")
        assert all(line.startswith("#") for line in head.splitlines())
        for entry in ("#   launch:   python jobs/full_audit.py", f"{name}]", "#   memory:   "):
            assert entry in head
        assert "#   licence:  " in head and "safety checker" in head


def test_the_embedded_scheduler_is_kept(folder: Path) -> None:
    paint = settings(folder, {}).open()
    assert isinstance(paint, inference.PipelineRunner)
    assert isinstance(paint.pipe.scheduler, DDIMScheduler)
