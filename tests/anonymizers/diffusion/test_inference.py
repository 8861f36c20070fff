"""What a diffusion anonymizer draws, in every mode, beside the plain pipelines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from cldmray.anonymizers.base import Batch, UnusableImagesError
from cldmray.anonymizers.diffusion import Control, Diffusion, inference
from cldmray.arrays import Images
from cldmray.conditions import Canny, SoftEdge
from cldmray.errors import BadInputError
from cldmray.faces.regions import ellipse
from cldmray.models import cldm

CONF = Path(__file__).parents[3] / "conf"
CANNY = Control(Canny(), "controlnet-canny")
SOFT = Control(SoftEdge(), "controlnet-soft", controlnet_conditioning_scale=0.5)


def batch(settings: Diffusion, count: int = 3, side: int = 32, first_seed: int = 5) -> Batch:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images.setflags(write=False)
    seeds = np.arange(first_seed, first_seed + count)
    maps = {name: extract(images) for name, extract in settings.conditions.items()}
    return Batch([str(seed) for seed in seeds], images, seeds, maps)


def take(whole: Batch, rows: list[int]) -> Batch:
    maps = {name: item[rows] for name, item in whole.conditions.items()}
    ids = [whole.sample_ids[row] for row in rows]
    return Batch(ids, whole.images[rows], whole.seeds[rows], maps)


def furthest(first: Images, second: Images) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def settings(folder: Path, controls: dict[str, Control], mode: Any = "text2img") -> Diffusion:
    return Diffusion(
        str(folder), controls, mode=mode, num_inference_steps=3, strength=0.7, device="cpu"
    )


@pytest.mark.parametrize("mode", ["text2img", "img2img", "inpaint"])
@pytest.mark.parametrize(
    "controls", [{}, {"canny": CANNY}, {"canny": CANNY, "soft": SOFT}], ids=["none", "one", "two"]
)
class TestEveryMode:
    def test_an_image_depends_on_itself_and_its_seed_only(
        self, folder: Path, controls: dict[str, Control], mode: str
    ) -> None:
        anonymizer = settings(folder, controls, mode)
        paint = anonymizer.open()
        whole = batch(anonymizer)
        drawn = paint(whole)
        assert drawn.shape == whole.images.shape
        assert drawn.dtype == np.uint8
        assert furthest(paint(take(whole, [2, 0])), drawn[[2, 0]]) <= 1
        assert furthest(anonymizer.open()(take(whole, [1])), drawn[[1]]) <= 1
        again = replace(whole, seeds=whole.seeds + 100)
        assert all(
            furthest(first, other) > 3 for first, other in zip(paint(again), drawn, strict=True)
        )
        assert paint(take(whole, [])).shape == (0, 32, 32, 3)

    def test_what_reaches_the_image(
        self, folder: Path, controls: dict[str, Control], mode: str
    ) -> None:
        anonymizer = settings(folder, controls, mode)
        paint = anonymizer.open()
        whole = batch(anonymizer)
        drawn = paint(whole)
        other = replace(whole, images=255 - whole.images)
        assert (furthest(paint(other), drawn) > 0) == (mode != "text2img")
        for name, maps in whole.conditions.items():
            changed = replace(whole, conditions={**whole.conditions, name: 255 - maps})
            assert furthest(paint(changed), drawn) > 0


def test_it_draws_what_the_plain_pipeline_draws(folder: Path) -> None:
    anonymizer = settings(folder, {"canny": CANNY})
    whole = batch(anonymizer, count=1)
    controlnet = ControlNetModel.from_pretrained(folder / "controlnet-canny")
    plain = StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=controlnet.float(), dtype=torch.float32
    )
    plain.set_progress_bar_config(disable=True)
    expected = plain(
        anonymizer.prompt,
        image=inference.unit_range(whole.conditions["canny"]),
        guidance_scale=1.0,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(int(whole.seeds[0])),
        output_type="np",
    ).images
    assert furthest(anonymizer.open()(whole), np.rint(expected * 255).astype(np.uint8)) <= 1


def test_scale_zero_is_no_control(folder: Path) -> None:
    off = settings(folder, {"canny": replace(CANNY, controlnet_conditioning_scale=0.0)})
    bare = settings(folder, {})
    full = settings(folder, {"canny": CANNY})
    drawn = off.open()(batch(off))
    assert furthest(drawn, bare.open()(batch(bare))) <= 1
    assert furthest(drawn, full.open()(batch(full))) > 1


def test_a_control_acts_between_start_and_end(folder: Path) -> None:
    whole = settings(folder, {"canny": CANNY})
    late = settings(folder, {"canny": replace(CANNY, control_guidance_start=0.9)})
    assert furthest(late.open()(batch(late)), whole.open()(batch(whole))) > 1


def test_guidance_leads_away_from_the_negative_prompt(folder: Path) -> None:
    plain = settings(folder, {"canny": CANNY})
    guided = replace(plain, guidance_scale=6.0, negative_prompt="blurred")
    drawn = guided.open()(batch(guided))
    assert furthest(drawn, plain.open()(batch(plain))) > 0
    other = replace(guided, negative_prompt="something else")
    assert furthest(drawn, other.open()(batch(other))) > 0


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("mode", ["text2img", "inpaint"])
def test_another_scheduler(folder: Path, name: str, mode: str) -> None:
    anonymizer = replace(
        settings(folder, {"canny": CANNY}, mode), scheduler=name, num_inference_steps=8
    )
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    assert type(paint.pipe.scheduler).__name__ == name
    whole = batch(anonymizer)
    drawn = paint(whole)
    assert furthest(paint(take(whole, [1])), drawn[[1]]) <= 1
    plain = replace(anonymizer, scheduler=None)
    assert furthest(plain.open()(whole), drawn) > 1


def test_img2img_starts_from_the_image(folder: Path) -> None:
    weak = replace(settings(folder, {}, "img2img"), num_inference_steps=20, strength=0.05)
    strong = replace(weak, strength=1.0)
    whole = batch(weak, count=1)
    other = replace(whole, images=255 - whole.images)
    spread = [furthest(item.open()(whole), item.open()(other)) for item in (weak, strong)]
    assert spread[0] > spread[1]


def test_inpainting_keeps_what_lies_outside_the_ellipse(folder: Path) -> None:
    anonymizer = replace(settings(folder, {"canny": CANNY}, "inpaint"), mask=0.5, strength=1.0)
    whole = batch(anonymizer)
    drawn = anonymizer.open()(whole)
    inside = ellipse(32, 32, 0.5)
    np.testing.assert_array_equal(drawn[:, ~inside], whole.images[:, ~inside])
    assert (drawn != whole.images).any(-1)[:, inside].mean() > 0.9
    plain = replace(anonymizer, mode="img2img").open()(whole)
    assert furthest(plain[:, inside], drawn[:, inside]) > 1


def test_a_model_that_reads_the_mask(tmp_path: Path, small: Any, build_parts: Any) -> None:
    made = build_parts(replace(small, latent_channels=4))
    made["unet"] = UNet2DConditionModel.from_config(made["unet"].config, in_channels=9)
    cldm.save_controlnet_pipeline(tmp_path / "nine", {**made, "controlnets": {}})
    anonymizer = settings(tmp_path / "nine", {}, "inpaint")
    whole = batch(anonymizer)
    paint = anonymizer.open()
    drawn = paint(whole)
    assert furthest(paint(take(whole, [2])), drawn[[2]]) <= 1
    outside = ~ellipse(32, 32, 0.8)
    np.testing.assert_array_equal(drawn[:, outside], whole.images[:, outside])
    with pytest.raises(BadInputError, match="nine is an inpainting model: mode must be inpaint"):
        replace(anonymizer, mode="img2img").open()


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory, small: Any, build_parts: Any) -> Path:
    root = tmp_path_factory.mktemp("models") / "xl"
    made = build_parts(small)
    unet = UNet2DConditionModel.from_config(
        made["unet"].config,
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 16,
    )
    text = CLIPTextConfig(**made["text_encoder"].config.to_dict())
    StableDiffusionXLPipeline(
        vae=made["vae"],
        unet=unet,
        scheduler=made["scheduler"],
        tokenizer=made["tokenizer"],
        tokenizer_2=made["tokenizer"],
        text_encoder=made["text_encoder"],
        text_encoder_2=CLIPTextModelWithProjection(text).eval(),
        add_watermarker=False,
    ).save_pretrained(root, safe_serialization=True)
    cldm.build_controlnet(unet, small).save_pretrained(root / "controlnet-canny")
    return root


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("mode", ["text2img", "img2img", "inpaint"])
@pytest.mark.parametrize("controls", [{}, {"canny": CANNY}], ids=["none", "one"])
def test_xl(xl: Path, controls: dict[str, Control], mode: str, guidance_scale: float) -> None:
    anonymizer = replace(settings(xl, controls, mode), guidance_scale=guidance_scale)
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    assert paint.pipe.text_encoder is None and paint.pipe.text_encoder_2 is None
    assert {"prompt_embeds", "pooled_prompt_embeds"} <= set(paint.prompts.embeds)
    whole = batch(anonymizer)
    drawn = paint(whole)
    assert drawn.shape == whole.images.shape
    assert furthest(paint(take(whole, [2, 0])), drawn[[2, 0]]) <= 1
    if controls:
        changed = replace(whole, conditions={"canny": 255 - whole.conditions["canny"]})
        assert furthest(paint(changed), drawn) > 0


@pytest.mark.parametrize("mode", ["text2img", "inpaint"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(folder: Path, mode: str, dtype: Any) -> None:
    exact = settings(folder, {"canny": CANNY}, mode)
    rough = replace(exact, dtype=dtype)
    difference = exact.open()(batch(exact)).astype(int) - rough.open()(batch(rough))
    assert np.abs(difference).mean() < 4


def test_an_overflow_is_no_image(folder: Path) -> None:
    anonymizer = settings(folder, {})
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    paint.pipe.vae.post_quant_conv.bias.fill_(float("nan"))
    with pytest.raises(BadInputError, match="cldm-none: the model overflows in float32"):
        paint(batch(anonymizer))


def test_an_autoencoder_that_overflows_decodes_again_in_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anonymizer = replace(settings(folder, {}), dtype="bfloat16")
    usual = anonymizer.open()(batch(anonymizer))
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    decode, kinds = paint.pipe.vae.decode, []

    def overflowing(latents: Any, *arguments: Any, **options: Any) -> Any:
        kinds.append((latents.dtype, len(latents)))
        decoded = decode(latents, *arguments, **options)
        if latents.dtype == torch.bfloat16 and len(latents) == 3:
            decoded[0][1:] = float("nan")
        return decoded

    monkeypatch.setattr(paint.pipe.vae, "decode", overflowing)
    drawn = paint(batch(anonymizer))
    assert kinds == [(torch.bfloat16, 3), (torch.float32, 1), (torch.float32, 1)]
    assert paint.pipe.vae.dtype == torch.bfloat16
    np.testing.assert_array_equal(drawn[0], usual[0])
    assert np.abs(drawn[1:].astype(int) - usual[1:]).mean((1, 2, 3)).max() < 4


def test_images_that_stay_infinite_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anonymizer = settings(folder, {})
    usual = anonymizer.open()(batch(anonymizer))
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    on_host = inference._on_host

    def overflowing(images: torch.Tensor) -> Any:
        broken = images.clone()
        broken[1, 0, 0, 0] = float("nan")
        return on_host(broken)

    monkeypatch.setattr(inference, "_on_host", overflowing)
    with pytest.raises(UnusableImagesError, match="overflows in float32") as caught:
        paint(batch(anonymizer))
    assert caught.value.unusable.tolist() == [False, True, False]
    np.testing.assert_array_equal(caught.value.images[[0, 2]], usual[[0, 2]])


def test_sides_must_fit_the_autoencoder(folder: Path) -> None:
    anonymizer = settings(folder, {"canny": CANNY})
    with pytest.raises(BadInputError, match="36x36 pixels .* multiples of 8"):
        anonymizer.open()(batch(anonymizer, side=36))
    assert anonymizer.open()(batch(anonymizer, side=40)).shape == (3, 40, 40, 3)
