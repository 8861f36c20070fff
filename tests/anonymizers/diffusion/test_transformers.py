"""Small pipelines of the shapes of Stable Diffusion 3 and FLUX, through ``Diffusion.open()``."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion, inference, loading
from cldmray.arrays import Images
from cldmray.attackers.reconstruction.diffusion import DiffusionReconstruction
from cldmray.conditions import Canny, SoftEdge
from cldmray.errors import BadInputError, ConfigError
from cldmray.models import cldm

WIDTH = 16
CHANNELS = 4
CANNY = Control(Canny(), "controlnet-canny")
SOFT = Control(SoftEdge(), "controlnet-soft", controlnet_conditioning_scale=0.5)
SHAPE = {
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 2 * WIDTH,
}
SD3 = SHAPE | {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "sample_size": 16,
    "caption_projection_dim": WIDTH,
    "pooled_projection_dim": 2 * WIDTH,
    "pos_embed_max_size": 16,
}
FLUX = SHAPE | {
    "in_channels": 4 * CHANNELS,
    "num_single_layers": 1,
    "pooled_projection_dim": WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 2, 2),
}
CASES = [
    ("sd3", "text2img", ()),
    ("sd3", "text2img", ("canny",)),
    ("sd3", "text2img", ("canny", "soft")),
    ("sd3", "img2img", ()),
    ("flux", "text2img", ()),
    ("flux", "text2img", ("canny",)),
    ("flux", "text2img", ("canny", "soft")),
    ("flux", "img2img", ()),
    ("flux", "img2img", ("canny",)),
    ("flux", "img2img", ("canny", "soft")),
]


def t5() -> tuple[PreTrainedTokenizerFast, T5EncoderModel]:
    """A T5 encoder and a tokenizer of one token a character."""
    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {text: i for i, text in enumerate(["<pad>", "</s>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=2 * WIDTH,
        d_kv=8,
        d_ff=WIDTH,
        num_layers=1,
        num_heads=2,
    )
    return fast, T5EncoderModel(config).eval()


def randomized(network: Any) -> Any:
    """The network with weights in place of the zeros that an untrained ControlNet ends in."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def autoencoder() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.06,
    )


@pytest.fixture(scope="module")
def models_of(
    tmp_path_factory: pytest.TempPathFactory, small: Any, build_parts: Callable[[Any], Any]
) -> Path:
    """Folder with the pipelines ``sd3`` and ``flux``, each with two ControlNets."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = cldm.build_tokenizer(small)
    torch.manual_seed(3)
    text = CLIPTextConfig(**cldm.build_text_encoder(small, tokenizer).config.to_dict())
    t5_tokenizer, t5_encoder = t5()
    shared = {"vae": autoencoder(), "tokenizer": tokenizer}
    diffusers.StableDiffusion3Pipeline(
        **shared,
        transformer=randomized(diffusers.SD3Transformer2DModel(**SD3)),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer_2=tokenizer,
        tokenizer_3=t5_tokenizer,
        text_encoder=CLIPTextModelWithProjection(text).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text).eval(),
        text_encoder_3=t5_encoder,
    ).save_pretrained(root / "sd3", safe_serialization=True)
    diffusers.FluxPipeline(
        **shared,
        transformer=randomized(diffusers.FluxTransformer2DModel(**FLUX)),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        tokenizer_2=t5_tokenizer,
        text_encoder=CLIPTextModel(text).eval(),
        text_encoder_2=t5_encoder,
    ).save_pretrained(root / "flux", safe_serialization=True)
    for name in ("canny", "soft"):
        sd3 = randomized(diffusers.SD3ControlNetModel(**SD3))
        sd3.save_pretrained(root / "sd3" / f"controlnet-{name}")
        flux = randomized(diffusers.FluxControlNetModel(**FLUX))
        flux.save_pretrained(root / "flux" / f"controlnet-{name}")
    return root


def settings(folder: Path, names: tuple[str, ...] = (), mode: Any = "text2img") -> Diffusion:
    both = {"canny": CANNY, "soft": SOFT}
    return Diffusion(
        str(folder),
        {name: both[name] for name in names},
        mode=mode,
        num_inference_steps=3,
        strength=0.5,
        guidance_scale=3.0,
        device="cpu",
    )


def batch(anonymizer: Diffusion, count: int = 3, side: int = 32) -> Batch:
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    maps = {name: extract(images) for name, extract in anonymizer.conditions.items()}
    return Batch([str(i) for i in range(count)], images, np.arange(count) + 7, maps)


def opened(anonymizer: Diffusion) -> inference.PipelineRunner:
    paint = anonymizer.open()
    assert isinstance(paint, inference.PipelineRunner)
    return paint


def furthest(first: Images, second: Images) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


@pytest.mark.parametrize(("family", "mode", "names"), CASES)
def test_an_image_depends_on_itself_and_its_seed_only(
    models_of: Path, family: str, mode: str, names: tuple[str, ...]
) -> None:
    anonymizer = settings(models_of / family, names, mode)
    paint = opened(anonymizer)
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    assert all(getattr(paint.pipe, name, None) is None for name in encoders)
    whole = batch(anonymizer)
    torch.manual_seed(0)
    drawn = paint(whole)
    assert drawn.shape == whole.images.shape and drawn.dtype == np.uint8
    torch.manual_seed(1)
    for row in range(3):
        assert furthest(paint(whole.take([row])), drawn[[row]]) <= 1
    assert furthest(opened(anonymizer)(whole.take([2, 0])), drawn[[2, 0]]) <= 1
    again = paint(replace(whole, seeds=whole.seeds + 100))
    assert all(furthest(first, other) > 3 for first, other in zip(again, drawn, strict=True))
    negative = paint(replace(whole, images=255 - whole.images))
    assert (furthest(negative, drawn) > 0) == (mode == "img2img")
    for name, maps in whole.conditions.items():
        changed = replace(whole, conditions={**whole.conditions, name: 255 - maps})
        assert furthest(paint(changed), drawn) > 0, name


@pytest.mark.parametrize(
    ("family", "mode"), [("sd3", "text2img"), ("flux", "text2img"), ("flux", "img2img")]
)
def test_scale_zero_is_no_control(models_of: Path, family: str, mode: str) -> None:
    full = settings(models_of / family, ("canny",), mode)
    off = replace(full, controls={"canny": replace(CANNY, controlnet_conditioning_scale=0.0)})
    bare = replace(full, controls={})
    drawn = opened(off)(batch(off))
    assert furthest(drawn, opened(bare)(batch(bare))) <= 1
    assert furthest(drawn, opened(full)(batch(full))) > 1


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_control_acts_between_start_and_end(models_of: Path, family: str) -> None:
    whole = settings(models_of / family, ("canny",))
    late = replace(whole, controls={"canny": replace(CANNY, control_guidance_start=0.9)})
    assert furthest(opened(late)(batch(late)), opened(whole)(batch(whole))) > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_it_draws_what_the_plain_pipeline_draws(models_of: Path, family: str, dtype: Any) -> None:
    folder = models_of / family
    anonymizer = replace(settings(folder, ("canny",)), dtype=dtype)
    whole = batch(anonymizer, 1)
    kind, control = {
        "sd3": (diffusers.StableDiffusion3ControlNetPipeline, diffusers.SD3ControlNetModel),
        "flux": (diffusers.FluxControlNetPipeline, diffusers.FluxControlNetModel),
    }[family]
    precision = getattr(torch, dtype)
    controlnet = control.from_pretrained(folder / "controlnet-canny", dtype=precision)
    plain: Any = kind.from_pretrained(folder, controlnet=controlnet, dtype=precision)
    plain.set_progress_bar_config(disable=True)
    loading.encode_to_mode(plain.vae)
    expected = plain(
        anonymizer.prompt,
        control_image=diffusers.utils.numpy_to_pil(whole.conditions["canny"] / 255.0),
        height=32,
        width=32,
        guidance_scale=3.0,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(int(whole.seeds[0])),
        output_type="np",
    ).images
    assert furthest(opened(anonymizer)(whole), np.rint(expected * 255).astype(np.uint8)) <= 1


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_prompts_and_guidance_reach_the_image(models_of: Path, family: str) -> None:
    plain = settings(models_of / family)
    drawn = opened(plain)(batch(plain))
    changes: list[dict[str, Any]] = [{"prompt": "another"}, {"guidance_scale": 6.0}]
    changes += [{"negative_prompt": "blurred"}] if family == "sd3" else []
    for change in changes:
        assert furthest(opened(replace(plain, **change))(batch(plain)), drawn) > 0, change
    chosen = replace(plain, prompt="{word}", prompt_choices={"word": ["a photo of a face", "b"]})
    several, single = (opened(item)(batch(plain, 8)) for item in (chosen, plain))
    assert furthest(several, single) > 1
    assert furthest(opened(chosen)(batch(plain, 8).take([5])), several[[5]]) <= 1


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_layout_tiles_and_a_tiny_autoencoder(models_of: Path, family: str, tmp_path: Path) -> None:
    plain = settings(models_of / family, ("canny",))
    drawn = opened(plain)(batch(plain))
    laid = replace(plain, channels_last=True, vae_tiling=True)
    assert furthest(opened(laid)(batch(plain)), drawn) <= 1
    diffusers.AutoencoderTiny(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
    ).save_pretrained(tmp_path / "tiny")
    tiny = replace(plain, vae=str(tmp_path / "tiny"))
    assert opened(tiny)(batch(plain)).shape == drawn.shape
    assert len({item.version() for item in (plain, tiny, replace(plain, controls={}))}) == 3


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_compiled_networks(models_of: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net, **_: compiled.append(net))
    plain = settings(models_of / family, ("canny",))
    pipe = opened(replace(plain, compile=True)).pipe
    assert compiled == [pipe.transformer, pipe.controlnet]


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_networks_wait_in_main_memory(
    models_of: Path, family: str, offload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is only pretended: the pipeline is told to offload, and is not moved before."""
    moved: list[Any] = []
    kind = {"sd3": diffusers.StableDiffusion3Pipeline, "flux": diffusers.FluxPipeline}[family]
    monkeypatch.setattr(kind, "to", lambda pipe, *place, **_: moved.append(place))
    monkeypatch.setattr(
        kind,
        f"enable_{offload}_cpu_offload",
        lambda pipe, device: moved.append((device, pipe.text_encoder, pipe.text_encoder_2)),
    )
    monkeypatch.setattr(loading, "find_device", lambda device: "cuda")
    usual: Any = torch.Tensor.to

    def to(tensor: Any, *place: Any, **named: Any) -> Any:
        return tensor if place and "cuda" in str(place[0]) else usual(tensor, *place, **named)

    monkeypatch.setattr(torch.Tensor, "to", to)
    replace(settings(models_of / family), offload=offload).open()
    assert moved == [("cuda", None, None)]


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_an_autoencoder_that_overflows_decodes_again_in_float32(
    models_of: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anonymizer = replace(settings(models_of / family), dtype="bfloat16")
    usual = opened(anonymizer)(batch(anonymizer))
    paint = opened(anonymizer)
    decode = paint.pipe.vae.decode

    def overflowing(latents: Any, *arguments: Any, **options: Any) -> Any:
        decoded = decode(latents, *arguments, **options)
        if latents.dtype == torch.bfloat16 and len(latents) == 3:
            decoded[0][1] = float("nan")
        return decoded

    monkeypatch.setattr(paint.pipe.vae, "decode", overflowing)
    drawn = paint(batch(anonymizer))
    np.testing.assert_array_equal(drawn[[0, 2]], usual[[0, 2]])
    assert np.abs(drawn[1].astype(int) - usual[1]).mean() < 8


def test_every_file_of_the_new_components_is_in_the_version(
    models_of: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(models_of / "sd3", tmp_path / "copy"))
    usual = settings(copy).version()
    for part in ("transformer/config.json", "text_encoder_3/config.json"):
        kept = (copy / part).read_text()
        (copy / part).write_text(kept + " ")
        assert settings(copy).version() != usual, part
        (copy / part).write_text(kept)
    (copy / "tokenizer_3" / "spiece.model").write_bytes(b"pieces")
    assert settings(copy).version() != usual


class TestRefusals:
    @pytest.mark.parametrize(
        ("family", "names", "changes", "message"),
        [
            ("sd3", ("canny",), {"mode": "img2img"}, "^mode=img2img: Stable Diffusion 3 with Con"),
            ("sd3", (), {"mode": "inpaint"}, "^mode=inpaint: Stable Diffusion 3 is known for text"),
            ("flux", ("canny",), {"mode": "inpaint"}, "^mode=inpaint: FLUX with ControlNets"),
            ("flux", (), {"negative_prompt": "x"}, "^negative_prompt: FLUX takes none"),
            ("flux", (), {"scheduler": "UniPCMultistepScheduler"}, "^scheduler: FLUX needs a Flow"),
            ("sd3", (), {"scheduler": "FlowMatchLCMScheduler"}, "not FlowMatchLCMScheduler; null"),
        ],
    )
    def test_settings(
        self,
        models_of: Path,
        family: str,
        names: tuple[str, ...],
        changes: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            replace(settings(models_of / family, names), **changes).open()

    @pytest.mark.parametrize("family", ["sd3", "flux"])
    def test_sides_that_are_no_whole_patches(self, models_of: Path, family: str) -> None:
        anonymizer = settings(models_of / family)
        with pytest.raises(BadInputError, match="40x40 pixels .* multiples of 16"):
            opened(anonymizer)(batch(anonymizer, side=40))

    @pytest.mark.parametrize(
        ("family", "made", "message"),
        [
            ("sd3", lambda: diffusers.FluxControlNetModel(**FLUX), "canny.model .* a FluxControl"),
            (
                "sd3",
                lambda: diffusers.SD3ControlNetModel(**SD3 | {"pooled_projection_dim": 8}),
                "canny.model .* pooled_projection_dim is 8, the transformer's 32",
            ),
            (
                "sd3",
                lambda: diffusers.SD3ControlNetModel(**SD3, extra_conditioning_channels=1),
                "canny.model has extra_conditioning_channels=1",
            ),
            (
                "flux",
                lambda: diffusers.FluxControlNetModel(**FLUX, num_mode=3),
                "canny.model has num_mode=3",
            ),
            (
                "flux",
                lambda: diffusers.FluxControlNetModel(**FLUX | {"guidance_embeds": False}),
                "soft.model and controls.canny.model cannot act together: their guidance_embeds",
            ),
        ],
    )
    def test_controlnets(
        self, models_of: Path, tmp_path: Path, family: str, made: Any, message: str
    ) -> None:
        made().save_pretrained(tmp_path / "odd")
        anonymizer = settings(models_of / family, ("canny", "soft"))
        odd = replace(CANNY, model=str(tmp_path / "odd"))
        with pytest.raises(BadInputError, match=f"controls.{message}"):
            replace(anonymizer, controls={**anonymizer.controls, "canny": odd}).open()

    def test_guidance_that_the_transformer_does_not_read(
        self, models_of: Path, tmp_path: Path
    ) -> None:
        copy = Path(shutil.copytree(models_of / "flux", tmp_path / "schnell"))
        network = diffusers.FluxTransformer2DModel(**FLUX | {"guidance_embeds": False})
        network.save_pretrained(copy / "transformer")
        with pytest.raises(ConfigError, match=r"^guidance_scale: .*schnell reads none"):
            settings(copy).open()
        plain = replace(settings(copy), guidance_scale=0.0)
        assert opened(plain)(batch(plain)).shape == (3, 32, 32, 3)

    def test_a_scheduler_whose_noise_no_seed_decides(self, models_of: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(models_of / "sd3", tmp_path / "copy"))
        diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True).save_pretrained(
            copy / "scheduler"
        )
        with pytest.raises(BadInputError, match="copy: its scheduler has stochastic_sampling"):
            settings(copy).open()

    def test_steps_that_shift_with_the_size_beside_controls(
        self, models_of: Path, tmp_path: Path
    ) -> None:
        copy = Path(shutil.copytree(models_of / "sd3", tmp_path / "copy"))
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(
            copy / "scheduler"
        )
        assert settings(copy).open()
        with pytest.raises(BadInputError, match="copy: its scheduler has use_dynamic_shifting"):
            settings(copy, ("canny",)).open()

    def test_other_pipelines(self, models_of: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(models_of / "flux", tmp_path / "copy"))
        index = copy / "model_index.json"
        index.write_text(index.read_text().replace("FluxPipeline", "FluxFillPipeline"))
        with pytest.raises(BadInputError, match="copy is a FluxFillPipeline; only Stable Diff"):
            settings(copy).open()

    def test_pickled_weights(self, models_of: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(models_of / "sd3", tmp_path / "copy"))
        weights = next((copy / "text_encoder_3").glob("*.safetensors"))
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(BadInputError, match="text_encoder_3 has pickled weights only"):
            settings(copy).open()

    def test_a_reconstruction_with_a_transformer(self, models_of: Path) -> None:
        attacker = DiffusionReconstruction(model=str(models_of / "sd3"))
        with pytest.raises(BadInputError, match="only Stable Diffusion 1 and 2 can be inverted"):
            attacker.build("cpu")
