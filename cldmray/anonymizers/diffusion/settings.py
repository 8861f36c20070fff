"""Settings of a diffusion anonymizer: the model, its ControlNets, prompts and sampling."""

import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cldmray.anonymizers.diffusion import model_folder, prompts
from cldmray.anonymizers.diffusion.lora import Lora
from cldmray.conditions.base import Condition
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.results.names import Label
from cldmray.settings import NonEmpty, checked_dataclass

Mode = Literal["text2img", "img2img", "inpaint"]
Dtype = Literal["float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "sequential"]

Fraction = Annotated[float, Field(gt=0, le=1)]

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _torch_device(device: str) -> str:
    if not DEVICE.fullmatch(device):
        raise ValueError("must be auto, cpu, mps, cuda or cuda:N")
    return device


def _class_name(scheduler: str) -> str:
    if not scheduler.isidentifier():
        raise ValueError("must be a class name")
    return scheduler


@checked_dataclass
class Control:
    """One ControlNet and the condition that it reads (Zhang, Rao and Agrawala 2023).

    Attributes:
        condition: extractor of its maps.
        model: folder name inside the pipeline's folder or hub repository, local folder, or hub id.
        controlnet_conditioning_scale: factor on its residuals, >= 0; 0 switches it off.
        control_guidance_start, control_guidance_end: fractions of the denoising steps between
            which it acts, 0 <= start < end <= 1.
        revision: branch, tag or commit, where ``model`` is a hub id.
    """

    condition: Condition
    model: NonEmpty
    controlnet_conditioning_scale: Annotated[float, Field(ge=0)] = 1.0
    control_guidance_start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    control_guidance_end: Annotated[float, Field(gt=0, le=1)] = 1.0
    revision: str | None = None

    def __post_init__(self) -> None:
        if not self.control_guidance_start < self.control_guidance_end:
            raise ValueError(
                "control_guidance_end: must be above control_guidance_start="
                f"{self.control_guidance_start}, got {self.control_guidance_end}"
            )


@checked_dataclass
class DiffusionSettings:
    """What a user may set of a latent diffusion model that anonymizes.

    Attributes:
        model: ``embedded`` (the package's own small model), a local folder, or a hub id.
        controls: ControlNets by name; none leaves the image to the prompt and the mode alone.
        input_side: side in pixels at which the model works; its images are brought back to the size
            of the audited ones. None works at theirs.
        mode: ``text2img`` starts from noise, ``img2img`` from the noised image, ``inpaint``
            anonymizes an ellipse in the middle and keeps the rest. Stable Diffusion 3 and FLUX have
            no ``inpaint`` here, and diffusers has no ``img2img`` of Stable Diffusion 3 with
            ControlNets.
        prompt: for all images; it may have placeholders such as ``{style}``.
        negative_prompt: what guidance leads away from; used when ``guidance_scale`` is above 1. It
            may have placeholders, too. FLUX takes none.
        prompt_choices: texts that may stand for each placeholder; an image's seed chooses.
        guidance_scale: of classifier-free guidance, >= 0; up to 1 means none (Ho and Salimans
            2022). FLUX reads it as an input.
        num_inference_steps: denoising steps, >= 1.
        scheduler: class name in diffusers, for example ``UniPCMultistepScheduler``; None: the
            model's own, as Stable Diffusion 3 and FLUX need.
        strength: fraction of the noise schedule that ``img2img`` and ``inpaint`` run, in (0, 1].
        mask: axes of the ellipse of ``inpaint`` as fractions of the image's sides, in (0, 1].
        lora: adapter that is merged into the weights; needs the extra ``lora``.
        vae: folder or hub id of an autoencoder that replaces the model's own, for example a tiny
            one that decodes at a tenth of the cost.
        dtype: of weights and arithmetic.
        channels_last: layout of the weights that suits GPUs in half precision. Like batch sizes it
            changes images by rounding only.
        compile: whether torch compiles UNet or transformer and ControlNets, minutes once for each
            batch size. Changes images by rounding only.
        offload: what waits in main memory until the GPU needs it, by hooks of accelerate: ``none``;
            ``model``, each network as a whole, which is little slower; ``sequential``, each layer,
            for GPUs that do not hold the UNet or transformer.
        vae_tiling: whether the autoencoder works on large images tile by tile, whose seams are
            blended, so that they fit into memory.
        device: ``auto`` (the device that the engine reserves; elsewhere CUDA where there is one,
            else the CPU), ``cpu``, ``cuda``, ``cuda:1``.
        revision: branch, tag or commit of a hub id.
        variant: file variant of the weights, for example ``fp16``.
        name_prefix: first word of the default name.
        label: name in tables; None: ``cldm-none``, ``cldm-canny-1.0``,
            ``cldm-canny-1.0+depth-0.7-img2img-0.5``.
    """

    model: NonEmpty = model_folder.EMBEDDED
    controls: dict[Label, Control] = field(default_factory=dict)
    input_side: Annotated[int, Field(ge=8)] | None = None
    mode: Mode = "text2img"
    prompt: str = "a photo of a face"
    negative_prompt: str = ""
    prompt_choices: dict[str, Annotated[list[str], Field(min_length=1)]] = field(
        default_factory=dict
    )
    guidance_scale: Annotated[float, Field(ge=0)] = 1.0
    num_inference_steps: Annotated[int, Field(ge=1)] = 8
    scheduler: Annotated[str, AfterValidator(_class_name)] | None = None
    strength: Fraction = 0.8
    mask: Fraction = 0.8
    lora: Lora | None = None
    vae: NonEmpty | None = None
    dtype: Dtype = "float32"
    channels_last: bool = field(default=False, metadata=EXCLUDED_FROM_KEY)
    compile: bool = field(default=False, metadata=EXCLUDED_FROM_KEY)
    offload: Offload = field(default="none", metadata=EXCLUDED_FROM_KEY)
    vae_tiling: bool = False
    device: Annotated[str, AfterValidator(_torch_device)] = "auto"
    revision: str | None = None
    variant: str | None = None
    name_prefix: Label = "cldm"
    label: Label | None = None

    def __post_init__(self) -> None:
        texts = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        prompts.check(texts, self.prompt_choices)
        if self.mode != "text2img" and int(self.num_inference_steps * self.strength) < 1:
            raise ValueError(
                f"strength: {self.strength} leaves none of {self.num_inference_steps} steps; raise "
                "one of them"
            )
        if self.offload != "none" and self.compile:
            raise ValueError("offload: moves networks about, so that compile must be false")

    @property
    def name(self) -> str:
        """The label, or prefix, controls with their scales, mode and strength."""
        if self.label is not None:
            return self.label
        parts = [
            f"{name}-{float(control.controlnet_conditioning_scale)}"
            for name, control in self.controls.items()
        ]
        start = "" if self.mode == "text2img" else f"-{self.mode}-{float(self.strength)}"
        return f"{self.name_prefix}-{'+'.join(parts) or 'none'}{start}"
