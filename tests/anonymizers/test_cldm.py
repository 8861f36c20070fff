"""The small model's parts: shapes, starts, exact rescaling, and the folder they are saved in."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from safetensors.torch import load_file

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion
from cldmray.conditions import Canny
from cldmray.hashing import identity_hash
from cldmray.models import cldm, cldm_card

MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32) * 2 - 1


class TestDefaultArchitecture:
    def test_it_fits_the_package_as_fp16(self) -> None:
        arch = cldm.CldmArchitecture()
        unet = cldm.build_unet(arch)
        text = cldm.build_text_encoder(arch, cldm.build_tokenizer(arch))
        controlnets = [cldm.build_controlnet(unet, arch) for _ in range(3)]
        modules = [cldm.build_autoencoder(arch), unet, text, *controlnets]
        numbers = sum(tensor.numel() for part in modules for tensor in part.state_dict().values())
        assert 2 * numbers <= 39 * MEGABYTE

    def test_shapes(self) -> None:
        arch = cldm.CldmArchitecture()
        autoencoder = cldm.build_autoencoder(arch)
        with torch.no_grad():
            latents = autoencoder.encode(torch.zeros(2, 3, 128, 128)).latent_dist.mean
            assert latents.shape == (2, 32, 8, 8)
            assert autoencoder.decode(latents).sample.shape == (2, 3, 128, 128)
            text = torch.zeros(2, arch.text_length, arch.text_width)
            assert cldm.build_unet(arch)(latents, 5, text).sample.shape == latents.shape


class TestNormaliseLatents:
    def test_reconstructions_stay_and_latents_become_standard(
        self, images: torch.Tensor, small: cldm.CldmArchitecture
    ) -> None:
        autoencoder = cldm.build_autoencoder(small)
        with torch.no_grad():
            autoencoder.quant_conv.weight.mul_(7)
            autoencoder.quant_conv.bias.add_(3)
        before = copy.deepcopy(autoencoder)
        with torch.no_grad():
            old = before.encode(images).latent_dist
            cldm.normalise_latents(autoencoder, old.mean)
            new = autoencoder.encode(images).latent_dist
            torch.testing.assert_close(new.mean.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
            torch.testing.assert_close(new.mean.std((0, 2, 3)), torch.ones(8), atol=1e-5, rtol=0)
            torch.testing.assert_close(
                autoencoder.decode(new.mean).sample, before.decode(old.mean).sample,
                atol=1e-4, rtol=0,
            )  # fmt: skip

    def test_sampled_latents_are_rescaled_alike(
        self, images: torch.Tensor, small: cldm.CldmArchitecture
    ) -> None:
        autoencoder = cldm.build_autoencoder(small)
        before = copy.deepcopy(autoencoder)
        noise = torch.randn(6, 8, 4, 4)
        with torch.no_grad():
            old = before.encode(images).latent_dist
            cldm.normalise_latents(autoencoder, old.mean)
            new = autoencoder.encode(images).latent_dist
            torch.testing.assert_close(new.std, old.std / old.mean.std((0, 2, 3))[:, None, None])
            torch.testing.assert_close(
                autoencoder.decode(new.mean + new.std * noise).sample,
                before.decode(old.mean + old.std * noise).sample,
                atol=1e-4, rtol=0,
            )  # fmt: skip


class TestText:
    @pytest.mark.parametrize("text", [cldm.PROMPT, "łódź 日本", "a+b=c"])
    def test_the_tokenizer_loses_nothing(self, text: str) -> None:
        tokenizer = cldm.build_tokenizer(cldm.CldmArchitecture(text_length=77))
        tokens = tokenizer(text)["input_ids"]
        assert tokens[0] == tokenizer.bos_token_id
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.unk_token_id not in tokens[1:-1]
        decoded = tokenizer.decode(tokens, skip_special_tokens=True)
        assert "".join(decoded.split()) == "".join(text.split())

    def test_the_prompt_is_embedded_whole(self) -> None:
        arch = cldm.CldmArchitecture()
        tokenizer = cldm.build_tokenizer(arch)
        encoder = cldm.build_text_encoder(arch, tokenizer)
        assert len(tokenizer(cldm.PROMPT)["input_ids"]) <= arch.text_length
        embeddings = [
            cldm.encode_prompt(prompt, tokenizer, encoder)
            for prompt in (cldm.PROMPT, cldm.PROMPT + "!", 50 * "long ")
        ]
        assert {tuple(embedding.shape) for embedding in embeddings} == {
            (1, arch.text_length, arch.text_width)
        }
        assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_the_last_step_is_pure_noise() -> None:
    scheduler = cldm.build_scheduler()
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)
    scheduler.set_timesteps(8)
    assert int(scheduler.timesteps[0]) == len(scheduler.betas) - 1


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    small: cldm.CldmArchitecture,
    build_parts: Callable[[cldm.CldmArchitecture], dict[str, Any]],
) -> Path:
    root = tmp_path_factory.mktemp("models") / "tiny"
    made = build_parts(small)
    cldm.save_controlnet_pipeline(root, made)
    cldm_card.write_card(
        root,
        {"lfw": ["Ann", "Bob", "Ann"], "synthetic": ["invented"]},
        made,
        {
            "training": {"num_inference_steps": 3, "storage": "/home/me"},
            "conditions": {"canny": {"low": 80}},
        },
        size=32,
    )
    return root


class TestSavedFolder:
    def test_it_opens_as_a_controlnet_pipeline(self, folder: Path) -> None:
        assert {path.suffix for path in folder.rglob("*.*") if path.is_file()} <= {
            ".json", ".md", ".safetensors", ".txt",
        }  # fmt: skip
        for weights in folder.rglob("*.safetensors"):
            assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
        controlnet = ControlNetModel.from_pretrained(folder / "controlnet-canny")
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(
            folder, controlnet=controlnet.float(), dtype=torch.float32
        )
        pipeline.set_progress_bar_config(disable=True)
        drawn = pipeline(
            cldm.PROMPT, image=torch.zeros(1, 3, 32, 32), num_inference_steps=2,
            guidance_scale=1.0, output_type="np",
        ).images  # fmt: skip
        assert drawn.shape == (1, 32, 32, 3)
        assert np.isfinite(drawn).all()

    def test_the_anonymizer_draws_with_it(self, folder: Path) -> None:
        controls = {"canny": Control(Canny(), "controlnet-canny")}
        anonymizer = Diffusion(str(folder), controls, num_inference_steps=2, device="cpu")
        images = np.full((2, 32, 32, 3), 90, np.uint8)
        batch = Batch(["a", "b"], images, np.array([1, 2]), {"canny": Canny()(images)})
        assert anonymizer.open()(batch).shape == images.shape

    def test_its_people_are_known_by_hash_only(self, folder: Path) -> None:
        anonymizer = Diffusion(str(folder), device="cpu")
        assert anonymizer.trained_on() == set(map(identity_hash, ("Ann", "Bob", "invented")))
        written = (folder / cldm_card.IDENTITIES_FILE).read_text()
        assert "Ann" not in written and "lfw" in written

    def test_the_card(self, folder: Path, small: cldm.CldmArchitecture) -> None:
        text = (folder / cldm_card.CARD_FILE).read_text()
        _, head, body = text.split("---\n", 2)
        assert yaml.safe_load(head)["library_name"] == "diffusers"
        assert "# tiny" in body
        assert "32x32 face images" in body
        assert "3 images of 2 people of `lfw`,\n  1 images of 1 people of `synthetic`" in body
        numbers = sum(p.numel() for p in cldm.build_unet(small).parameters())
        assert f"- `unet`: {numbers:,} parameters" in body
        settings = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
        assert settings["training"] == {"num_inference_steps": 3}
        assert "Ann" not in text
