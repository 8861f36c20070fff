"""Families of latent diffusion models: the classes of diffusers that run each, and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cldmray.anonymizers.diffusion.settings import DiffusionSettings, Mode
from cldmray.errors import BadInputError, ConfigError

FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
"""The one scheduler of transformers: diffusers gives the others no generator of an image's own, or
they do not take the pipelines' sigmas."""


@dataclass(frozen=True)
class Family:
    """What distinguishes the pipelines of one family.

    Attributes:
        name: in messages.
        denoiser: component that denoises the latents: ``unet`` or ``transformer``.
        controlnet: class of its ControlNets.
        pipelines, control_pipelines: classes by mode, without and with ControlNets.
        embeds: what ``encode_prompt`` returns, in this order; None or absent where not needed.
        own_prompts: arguments of ``encode_prompt`` for other prompts of the further text encoders.
        has_negative_prompt: whether guidance is classifier-free. Else the denoiser reads
            ``guidance_scale`` as an input.
        packing: side of the squares of latents that the pipeline itself makes one token of.
        shared: configuration that a ControlNet has in common with the denoiser.
        common: configuration that diffusers takes from the first of several ControlNets.
        required: configuration that a ControlNet must have.
    """

    name: str
    denoiser: str
    controlnet: str
    pipelines: Mapping[Mode, str]
    control_pipelines: Mapping[Mode, str]
    embeds: tuple[str, ...]
    shared: tuple[str, ...]
    own_prompts: tuple[str, ...] = ()
    has_negative_prompt: bool = True
    packing: int = 1
    common: tuple[str, ...] = ()
    required: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_transformer(self) -> bool:
        return self.denoiser == "transformer"

    def pipeline(self, mode: Mode, with_controls: bool) -> str:
        """Class of diffusers that runs a mode.

        Raises:
            ConfigError: there is none.
        """
        classes = self.control_pipelines if with_controls else self.pipelines
        if mode not in classes:
            controls = " with ControlNets" if with_controls else ""
            raise ConfigError(
                f"mode={mode}: {self.name}{controls} is known for {', '.join(classes)} only"
            )
        return classes[mode]

    def check(self, settings: DiffusionSettings, index: Mapping[str, Any]) -> None:
        """Check that settings suit the family, before anything large is loaded.

        Args:
            index: content of the pipeline's ``model_index.json``.

        Raises:
            ConfigError: one does not; the message begins with it.
        """
        self.pipeline(settings.mode, bool(settings.controls))
        if settings.negative_prompt and not self.has_negative_prompt:
            raise ConfigError(f"negative_prompt: {self.name} takes none; leave it empty")
        scheduler = settings.scheduler or (index.get("scheduler") or [None, None])[1]
        if self.is_transformer and scheduler != FLOW_SCHEDULER:
            raise ConfigError(
                f"scheduler: {self.name} needs a {FLOW_SCHEDULER}, not {scheduler}; "
                "null is the model's own"
            )

    def check_control(self, name: str, control: Mapping[str, Any], denoiser: Any) -> None:
        """Check that a ControlNet was made for the denoiser.

        Args:
            name: of the control in the settings.
            control, denoiser: configurations of both networks.

        Raises:
            BadInputError: it was not; the message names the key in which they differ.
        """
        for key in self.shared:
            ours, theirs = control[key], denoiser[key]
            if ours != theirs and not (ours is None and self.is_transformer):
                raise BadInputError(
                    f"controls.{name}.model belongs to another model: its {key} is {ours}, "
                    f"the {self.denoiser.replace('unet', 'UNet')}'s {theirs}"
                )
        for key, value in self.required.items():
            if control[key] != value:
                raise BadInputError(
                    f"controls.{name}.model has {key}={control[key]}, for inputs that no condition "
                    f"gives; only {key}={value} is known"
                )

    def check_stack(self, controls: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that ControlNets can act together.

        Args:
            controls: their configurations by the control's name.

        Raises:
            BadInputError: diffusers would run one as if it were another.
        """
        first, *others = controls or [""]
        for name in others:
            for key in self.common:
                ours, theirs = controls[name][key], controls[first][key]
                if ours != theirs:
                    raise BadInputError(
                        f"controls.{name}.model and controls.{first}.model cannot act together: "
                        f"their {key} are {ours} and {theirs}"
                    )


AUTO: Mapping[Mode, str] = {
    "text2img": "AutoPipelineForText2Image",
    "img2img": "AutoPipelineForImage2Image",
    "inpaint": "AutoPipelineForImage2Image",
}
"""Loaders that choose the class themselves; of models that were not made for inpainting."""

UNET = Family(
    name="Stable Diffusion 1, 2 and XL",
    denoiser="unet",
    controlnet="ControlNetModel",
    pipelines=AUTO,
    control_pipelines=AUTO,
    embeds=(
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
    shared=("cross_attention_dim", "block_out_channels"),
)
SD3 = Family(
    name="Stable Diffusion 3",
    denoiser="transformer",
    controlnet="SD3ControlNetModel",
    pipelines={
        "text2img": "StableDiffusion3Pipeline",
        "img2img": "StableDiffusion3Img2ImgPipeline",
    },
    control_pipelines={"text2img": "StableDiffusion3ControlNetPipeline"},
    embeds=UNET.embeds,
    own_prompts=("prompt_2", "prompt_3"),
    shared=(
        "in_channels",
        "patch_size",
        "num_attention_heads",
        "attention_head_dim",
        "joint_attention_dim",
        "pooled_projection_dim",
    ),
    common=("force_zeros_for_pooled_projection", "joint_attention_dim"),
    required={"extra_conditioning_channels": 0},
)
"""Esser et al. 2024. ControlNets of 3.5 Large read no prompt: their joint_attention_dim is None."""

FLUX = Family(
    name="FLUX",
    denoiser="transformer",
    controlnet="FluxControlNetModel",
    pipelines={"text2img": "FluxPipeline", "img2img": "FluxImg2ImgPipeline"},
    control_pipelines={
        "text2img": "FluxControlNetPipeline",
        "img2img": "FluxControlNetImg2ImgPipeline",
    },
    embeds=("prompt_embeds", "pooled_prompt_embeds"),
    has_negative_prompt=False,
    packing=2,
    shared=(
        "in_channels",
        "num_attention_heads",
        "attention_head_dim",
        "joint_attention_dim",
        "pooled_projection_dim",
    ),
    common=("guidance_embeds", "conditioning_embedding_channels"),
    required={"num_mode": None},
)

TRANSFORMERS = {
    kind: family
    for family in (SD3, FLUX)
    for kind in (*family.pipelines.values(), *family.control_pipelines.values())
}
"""Families by the classes of their pipelines."""


def of_pipeline(pipe: Any) -> Family:
    """Family of a loaded pipeline."""
    return TRANSFORMERS.get(type(pipe).__name__, UNET)


def of_index(index: Mapping[str, Any], source: str) -> Family:
    """Family of the pipeline that a ``model_index.json`` describes.

    Args:
        source: the model, for the message.

    Raises:
        BadInputError: it is none of those that are known.
    """
    kind = index.get("_class_name")
    if kind in TRANSFORMERS:
        return TRANSFORMERS[kind]
    if not {"unet", "vae"} <= index.keys():
        raise BadInputError(
            f"{source} is a {kind}; only Stable Diffusion 1, 2, XL, 3 and FLUX are known"
        )
    return UNET
