"""Small pipelines of the shapes of Stable Diffusion 1.5 and XL, through ``Diffusion.open()``."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, PNDMScheduler

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.batching import BatchedRunner
from cldmray.anonymizers.diffusion import Control, Diffusion, inference, loading, prompts
from cldmray.arrays import Images
from cldmray.conditions import Canny, Coarse, SoftEdge
from cldmray.errors import BadInputError
from cldmray.faces.regions import ellipse
from cldmray.models import cldm

SCALES = {"canny": 1.0, "depth": 0.7, "hed": 0.1, "lineart": 0.4, "normal": 0.3}
CONDITIONS = {
    "canny": Canny(),
    "depth": SoftEdge(sigma=3.0),
    "hed": SoftEdge(),
    "lineart": Canny(30, 60),
    "normal": Coarse(Canny(), 2),
}
PROMPT = "a {style} photo of a face, {light}"
CHOICES = {"style": ["candid", "studio"], "light": ["sun", "lamp"]}


@pytest.fixture(scope="module")
def made(small: Any, build_parts: Any) -> dict[str, Any]:
    """Parts with four latent channels, PNDM and epsilon prediction, as Stable Diffusion 1.5 has."""
    arch = replace(small, latent_channels=4)
    parts = build_parts(arch)
    torch.manual_seed(1)
    parts["controlnets"] = {name: cldm.build_controlnet(parts["unet"], arch) for name in SCALES}
    parts["scheduler"] = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    return dict(parts)


@pytest.fixture(scope="module")
def sd(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "sd15"
    cldm.save_controlnet_pipeline(root, made)
    torch.manual_seed(2)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8)
    )
    tiny.save_pretrained(root / "tiny")
    return root


def controls(*names: str) -> dict[str, Control]:
    return {name: Control(CONDITIONS[name], f"controlnet-{name}", SCALES[name]) for name in names}


def settings(root: Path, *names: str, **changes: Any) -> Diffusion:
    plain = Diffusion(
        str(root),
        controls(*names),
        scheduler="UniPCMultistepScheduler",
        guidance_scale=7.5,
        negative_prompt="blurred",
        num_inference_steps=3,
        device="cpu",
    )
    return replace(plain, **changes)


def batch(anonymizer: Diffusion, count: int = 3) -> Batch:
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    maps = {name: extract(images) for name, extract in anonymizer.conditions.items()}
    return Batch([str(i) for i in range(count)], images, np.arange(count) + 7, maps)


def furthest(first: Images, second: Images) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def opened(anonymizer: Diffusion) -> inference.PipelineRunner:
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    return paint


def batched(paint: inference.PipelineRunner, size: int | None, whole: Batch) -> Images:
    runner, done = BatchedRunner(paint, size), list[Images]()
    for attempt in runner.attempts(whole, done):
        with attempt:
            attempt.finish = runner.start(attempt.batch)
    return np.concatenate(done)


class TestStacks:
    @pytest.mark.parametrize("mode", ["text2img", "img2img"])
    def test_five_controlnets(self, sd: Path, mode: Any) -> None:
        anonymizer = settings(sd, *SCALES, mode=mode)
        paint = opened(anonymizer)
        whole = batch(anonymizer)
        drawn = paint(whole)
        assert drawn.shape == whole.images.shape
        assert len(paint.pipe.controlnet.nets) == 5
        for name, maps in whole.conditions.items():
            changed = {**whole.conditions, name: 255 - maps}
            assert furthest(paint(replace(whole, conditions=changed)), drawn) > 0, name

    def test_depth_and_hed_on_an_inpainting_base(
        self, tmp_path: Path, made: Any, save_inpainting: Any
    ) -> None:
        save_inpainting(tmp_path / "nine", made)
        anonymizer = settings(tmp_path / "nine", "depth", "hed", mode="inpaint", strength=1.0)
        whole = batch(anonymizer)
        paint = opened(anonymizer)
        drawn = paint(whole)
        assert type(paint.pipe).__name__ == "StableDiffusionControlNetInpaintPipeline"
        outside = ~ellipse(32, 32, 0.8)
        np.testing.assert_array_equal(drawn[:, outside], whole.images[:, outside])
        assert furthest(paint(whole.take([2])), drawn[[2]]) <= 1
        strong = {
            name: replace(item, controlnet_conditioning_scale=2.0)
            for name, item in anonymizer.controls.items()
        }
        paint = opened(replace(anonymizer, controls=strong))
        drawn = paint(whole)
        for name, maps in whole.conditions.items():
            changed = {**whole.conditions, name: 255 - maps}
            assert furthest(paint(replace(whole, conditions=changed)), drawn) > 0, name

    @pytest.mark.parametrize("names", [[], ["depth"], ["depth", "hed"]])
    def test_an_inpainting_base_refuses_other_modes(
        self, tmp_path: Path, made: Any, save_inpainting: Any, names: list[str]
    ) -> None:
        save_inpainting(tmp_path / "nine", made)
        with pytest.raises(BadInputError, match="nine is an inpainting model: mode must be inp"):
            settings(tmp_path / "nine", *names, mode="img2img").open()

    def test_a_local_copy_without_the_variant(self, sd: Path) -> None:
        anonymizer = settings(sd, "canny", variant="fp16")
        whole = batch(anonymizer)
        without = opened(replace(anonymizer, variant=None))
        np.testing.assert_array_equal(opened(anonymizer)(whole), without(whole))

    def test_few_steps_without_guidance(self, sd: Path) -> None:
        anonymizer = settings(
            sd,
            scheduler="LCMScheduler",
            mode="img2img",
            guidance_scale=0.0,
            num_inference_steps=4,
            strength=0.5,
        )
        paint = opened(anonymizer)
        whole = batch(anonymizer)
        assert furthest(paint(whole.take([1, 0])), paint(whole)[[1, 0]]) <= 1
        assert "negative_prompt_embeds" not in paint.prompts.embeds


class TestPrompts:
    def test_each_image_has_its_own(self, sd: Path) -> None:
        anonymizer = settings(
            sd, prompt=PROMPT, prompt_choices=CHOICES, negative_prompt="no {style}"
        )
        whole = batch(anonymizer, 8)
        drawn = opened(anonymizer)(whole)
        seen = Counter()
        for row, seed in enumerate(whole.seeds):
            prompt = prompts.fill(PROMPT, CHOICES, int(seed))
            negative = prompts.fill("no {style}", CHOICES, int(seed))
            plain = settings(sd, prompt=prompt, negative_prompt=negative)
            seen[prompt] += 1
            if seen[prompt] == 1:
                assert furthest(opened(plain)(whole.take([row])), drawn[[row]]) <= 1
        assert len(seen) > 1

    def test_encoded_once_and_the_encoder_is_freed(
        self, sd: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = loading.diffusers.StableDiffusionPipeline
        encoded: list[str] = []
        encode = kind.encode_prompt

        def counted(pipe: Any, prompt: Any = None, *args: Any, **options: Any) -> Any:
            if prompt is not None:
                encoded.append(prompt)
            return encode(pipe, prompt, *args, **options)

        monkeypatch.setattr(kind, "encode_prompt", counted)
        anonymizer = settings(sd, prompt=PROMPT, prompt_choices=CHOICES)
        paint = opened(anonymizer)
        for _ in range(2):
            paint(batch(anonymizer))
        assert sorted(encoded) == sorted(
            f"a {style} photo of a face, {light}"
            for style in CHOICES["style"]
            for light in CHOICES["light"]
        )
        assert paint.pipe.text_encoder is None


def test_guidance_is_one_batch_and_each_network_is_called_once_a_step(
    sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anonymizer = settings(sd, "canny", "hed")
    paint = opened(anonymizer)
    seen: list[tuple[Any, int]] = []
    for network in (paint.pipe.unet, *paint.pipe.controlnet.nets):
        usual = network.forward

        def counted(*args: Any, _network: Any = network, _usual: Any = usual, **named: Any) -> Any:
            sample = args[0] if args else named["sample"]
            seen.append((_network, len(sample)))
            return _usual(*args, **named)

        monkeypatch.setattr(network, "forward", counted)
    paint(batch(anonymizer, 3))
    networks = (paint.pipe.unet, *paint.pipe.controlnet.nets)
    assert Counter(seen) == {(network, 6): 3 for network in networks}


@pytest.mark.parametrize("mode", ["text2img", "img2img", "inpaint"])
def test_any_order_and_any_batches_give_the_same_images(sd: Path, mode: Any) -> None:
    anonymizer = settings(sd, "canny", mode=mode, prompt=PROMPT, prompt_choices=CHOICES)
    paint = opened(anonymizer)
    whole = batch(anonymizer, 7)
    drawn = paint(whole)
    order = [4, 2, 6, 0, 5, 1, 3]
    for size in (1, 3, None):
        again = batched(paint, size, whole.take(order))
        assert furthest(again, drawn[order]) <= 1


class TestTinyAutoencoder:
    @pytest.mark.parametrize("mode", ["text2img", "img2img", "inpaint"])
    def test_it_takes_the_place_of_the_models_own(self, sd: Path, mode: Any) -> None:
        anonymizer = settings(sd, "canny", mode=mode, vae=str(sd / "tiny"))
        paint = opened(anonymizer)
        assert isinstance(paint.pipe.vae, AutoencoderTiny)
        whole = batch(anonymizer)
        drawn = paint(whole)
        assert drawn.shape == whole.images.shape
        assert furthest(paint(whole.take([2])), drawn[[2]]) <= 1
        assert furthest(opened(replace(anonymizer, vae=None))(whole), drawn) > 1

    def test_its_weights_are_in_the_version(self, sd: Path) -> None:
        plain = settings(sd)
        assert replace(plain, vae=str(sd / "tiny")).version() != plain.version()

    def test_it_is_not_there(self, sd: Path) -> None:
        with pytest.raises(BadInputError, match="no such folder: .*absent"):
            settings(sd, vae=str(sd / "absent")).open()


class TestLayoutAndCompiling:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_channels_last(self, sd: Path, dtype: Any) -> None:
        plain = settings(sd, "canny", dtype=dtype)
        other = opened(replace(plain, channels_last=True))
        for network in (other.pipe.unet, other.pipe.controlnet, other.pipe.vae):
            kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
            assert all(
                kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels
            )
        difference = other(batch(plain)).astype(int) - opened(plain)(batch(plain))
        assert np.abs(difference).max() <= 1 if dtype == "float32" else abs(difference).mean() < 8

    @pytest.mark.slow
    def test_compiled_networks_draw_the_same(
        self, sd: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiled: list[Any] = []
        usual = torch.nn.Module.compile

        def traced(network: torch.nn.Module, *, dynamic: bool) -> None:
            assert not dynamic
            compiled.append(network)
            usual(network, backend="eager", dynamic=dynamic)

        monkeypatch.setattr(torch.nn.Module, "compile", traced)
        plain = settings(sd, "canny", "hed", num_inference_steps=2)
        paint = opened(replace(plain, compile=True))
        assert compiled == [paint.pipe.unet, *paint.pipe.controlnet.nets]
        assert paint.one_size and not opened(plain).one_size
        whole = batch(plain, 3)
        torch._dynamo.utils.counters.clear()
        drawn = batched(paint, 2, whole)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3
        assert furthest(drawn, opened(plain)(whole)) <= 1

    def test_neither_changes_which_stage_is_found(self, sd: Path) -> None:
        from cldmray.hashing import canonicalize

        plain = settings(sd)
        assert canonicalize(replace(plain, compile=True, channels_last=True)) == canonicalize(plain)


@pytest.mark.parametrize("vae", [None, "tiny"])
@pytest.mark.parametrize(("mode", "names"), [("img2img", []), ("inpaint", ["canny"])])
def test_images_that_are_encoded_together_start_as_each_alone(
    sd: Path, mode: Any, names: list[str], vae: str | None
) -> None:
    own = None if vae is None else str(sd / vae)
    anonymizer = settings(sd, *names, mode=mode, vae=own)
    paint = opened(anonymizer)
    assert not paint.encodes_batches, "on a CPU"
    alone = paint(batch(anonymizer))
    encode, sizes = paint.pipe.vae.encode, []

    def counted(images: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(images))
        return encode(images, *arguments, **options)

    paint.pipe.vae.encode = counted
    paint.encodes_batches = True
    together = paint(batch(anonymizer))
    assert set(sizes) == {3}
    assert furthest(together, alone) <= 1


def test_without_a_gpu_nothing_tells_how_many_fit(sd: Path) -> None:
    anonymizer = settings(sd)
    assert opened(anonymizer).largest_batch(batch(anonymizer, 1), 1.0) is None
