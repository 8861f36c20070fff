"""Settings of a diffusion anonymizer: the model, its ControlNets, prompts and sampling."""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from cldmray.anonymizers.diffusion import model_folder, prompts
from cldmray.anonymizers.diffusion.lora import Lora
from cldmray.conditions.base import Condition
from cldmray.hashing import EXCLUDED_FROM_KEY
from cldmray.results.names import LABEL, check_label

Mode = Literal["text2img", "img2img", "inpaint"]
Dtype = Literal["float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "sequential"]

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
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
    model: str
    controlnet_conditioning_scale: float = 1.0
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0
    revision: str | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model must not be empty")
        if not self.controlnet_conditioning_scale >= 0:
            raise ValueError(
                "controlnet_conditioning_scale must be at least 0, not "
                f"{self.controlnet_conditioning_scale}"
            )
        if not 0 <= self.control_guidance_start < 1:
            raise ValueError(
                f"control_guidance_start must be in [0, 1), not {self.control_guidance_start}"
            )
        if not self.control_guidance_start < self.control_guidance_end <= 1:
            raise ValueError(
                "control_guidance_end must be above control_guidance_start="
                f"{self.control_guidance_start} and at most 1, not {self.control_guidance_end}"
            )


@dataclass(frozen=True)
class DiffusionSettings:
    """What a user may set of a latent diffusion model that anonymizes.

    Attributes:
        model: ``embedded`` (the package's own small model), a local folder, or a hub id.
        controls: ControlNets by name; none leaves the image to the prompt and the mode alone.
        mode: ``text2img`` starts from noise, ``img2img`` from the noised image, ``inpaint``
            anonymizes an ellipse in the middle and keeps the rest.
        prompt: for all images; it may have placeholders such as ``{style}``.
        negative_prompt: what guidance leads away from; used when ``guidance_scale`` is above 1. It
            may have placeholders, too.
        prompt_choices: texts that may stand for each placeholder; an image's seed chooses.
        guidance_scale: of classifier-free guidance, >= 0; up to 1 means none (Ho and Salimans
            2022).
        num_inference_steps: denoising steps, >= 1.
        scheduler: class name in diffusers, for example ``UniPCMultistepScheduler``; None: the
            model's own.
        strength: fraction of the noise schedule that ``img2img`` and ``inpaint`` run, in (0, 1].
        mask: axes of the ellipse of ``inpaint`` as fractions of the image's sides, in (0, 1].
        lora: adapter that is merged into the weights; needs the extra ``lora``.
        vae: folder or hub id of an autoencoder that replaces the model's own, for example a tiny
            one that decodes at a tenth of the cost.
        dtype: of weights and arithmetic.
        channels_last: layout of the weights that suits GPUs in half precision. Like batch sizes it
            changes images by rounding only.
        compile: whether torch compiles UNet and ControlNets, minutes once for each batch size.
            Changes images by rounding only.
        offload: what waits in main memory until the GPU needs it, by hooks of accelerate: ``none``;
            ``model``, each network as a whole, which is little slower; ``sequential``, each layer,
            for GPUs that do not hold the UNet.
        device: ``auto`` (the device that the engine reserves; elsewhere CUDA where there is one,
            else the CPU), ``cpu``, ``cuda``, ``cuda:1``.
        revision: branch, tag or commit of a hub id.
        variant: file variant of the weights, for example ``fp16``.
        name_prefix: first word of the default name.
        label: name in tables; None: ``cldm-none``, ``cldm-canny-1.0``,
            ``cldm-canny-1.0+depth-0.7-img2img-0.5``.
    """

    model: str = model_folder.EMBEDDED
    controls: dict[str, Control] = field(default_factory=dict)
    mode: Mode = "text2img"
    prompt: str = "a photo of a face"
    negative_prompt: str = ""
    prompt_choices: dict[str, list[str]] = field(default_factory=dict)
    guidance_scale: float = 1.0
    num_inference_steps: int = 8
    scheduler: str | None = None
    strength: float = 0.8
    mask: float = 0.8
    lora: Lora | None = None
    vae: str | None = None
    dtype: Dtype = "float32"
    channels_last: bool = field(default=False, metadata=EXCLUDED_FROM_KEY)
    compile: bool = field(default=False, metadata=EXCLUDED_FROM_KEY)
    offload: Offload = field(default="none", metadata=EXCLUDED_FROM_KEY)
    device: str = "auto"
    revision: str | None = None
    variant: str | None = None
    name_prefix: str = "cldm"
    label: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "controls", dict(self.controls))
        if not self.model:
            raise ValueError("model must not be empty")
        for name in self.controls:
            if not LABEL.fullmatch(name):
                raise ValueError(f"controls has a name of other than letters and digits: {name!r}")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, not {self.mode!r}")
        texts = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        prompts.check(texts, self.prompt_choices)
        if self.vae == "":
            raise ValueError("vae must not be empty")
        if not self.guidance_scale >= 0:
            raise ValueError(f"guidance_scale must be at least 0, not {self.guidance_scale}")
        if self.num_inference_steps < 1:
            raise ValueError(
                f"num_inference_steps must be at least 1, not {self.num_inference_steps}"
            )
        if self.scheduler is not None and not self.scheduler.isidentifier():
            raise ValueError(f"scheduler must be a class name, not {self.scheduler!r}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be in (0, 1], not {self.strength}")
        if self.mode != "text2img" and int(self.num_inference_steps * self.strength) < 1:
            raise ValueError(
                f"strength={self.strength} leaves none of {self.num_inference_steps} steps; raise "
                "one of them"
            )
        if not 0 < self.mask <= 1:
            raise ValueError(f"mask must be in (0, 1], not {self.mask}")
        if self.dtype not in get_args(Dtype):
            dtypes = ", ".join(get_args(Dtype))
            raise ValueError(f"dtype must be one of {dtypes}, not {self.dtype!r}")
        if self.offload not in get_args(Offload):
            choices = ", ".join(get_args(Offload))
            raise ValueError(f"offload must be one of {choices}, not {self.offload!r}")
        if self.offload != "none" and self.compile:
            raise ValueError("offload moves networks about, so that compile must be false")
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device must be auto, cpu, mps, cuda or cuda:N, not {self.device!r}")
        if not LABEL.fullmatch(self.name_prefix):
            raise ValueError(
                f"name_prefix may hold letters, digits and . _ + -, not {self.name_prefix!r}"
            )
        check_label(self.label)

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
