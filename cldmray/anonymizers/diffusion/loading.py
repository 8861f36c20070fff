"""Loads diffusers pipelines and makes them ready for inference."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.vae import IdentityDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor

from cldmray.anonymizers.diffusion import families, hub, lora, model_folder
from cldmray.anonymizers.diffusion.families import Family
from cldmray.anonymizers.diffusion.settings import DiffusionSettings, Offload
from cldmray.errors import BadInputError, ConfigError

GRAPHS = 64
"""Compiled versions of one network's code that are kept: ControlNets share theirs, and each scale
and each batch size makes a version; beyond the limit torch would silently not compile."""


def load(settings: DiffusionSettings) -> Any:
    """The pipeline that the settings describe, ready for inference.

    It is on its device, or, with ``offload``, in main memory until :func:`place` is called. For
    ``inpaint`` it is the image-to-image pipeline unless the model's UNet takes the mask as an
    input of its own.

    Raises:
        BadInputError, ConfigError: as
            :meth:`~cldmray.anonymizers.diffusion.anonymizer.Diffusion.open` says.
    """
    device = find_device(settings.device)
    if settings.offload != "none" and device == "cpu":
        raise ConfigError(
            f"offload={settings.offload}: there is no GPU to work on while networks wait in main "
            "memory; set offload=none, or give the anonymizer a GPU (engine.gpus_per_actor)"
        )
    folder = model_folder.find(settings.model)
    if folder is None:
        source, options = settings.model, hub.options(settings.model, settings.revision)
        index = hub.call(diffusers.DiffusionPipeline.load_config, source, **options)
    else:
        source, options = str(folder), {}
        index = model_folder.check_pipeline(folder)
    family = families.of_index(index, source)
    family.check(settings, index)
    kind = _pipeline_kind(family, index, source, settings)
    dtype = getattr(torch, settings.dtype)
    parts: dict[str, Any] = {}
    if "safety_checker" in index:
        parts = {"safety_checker": None, "requires_safety_checker": False}
    controls = [_load_control(family, folder, settings, name, dtype) for name in settings.controls]
    if controls:
        parts["controlnet"] = controls if len(controls) > 1 else controls[0]
    if settings.vae is not None:
        parts["vae"] = _load_part(settings.vae, dtype)
    pipeline = hub.call(
        kind.from_pretrained,
        source,
        dtype=dtype,
        use_safetensors=True,
        variant=settings.variant if folder is None else _local_variant(folder, settings.variant),
        **options,
        **parts,
    )
    denoiser = getattr(pipeline, family.denoiser)
    if takes_mask(pipeline):
        _refuse_other_modes(source, settings.mode)
    stack = {
        name: control.config for name, control in zip(settings.controls, controls, strict=True)
    }
    for name, config in stack.items():
        family.check_control(name, config, denoiser.config)
    family.check_stack(stack)
    if settings.mode == "inpaint" and takes_mask(pipeline):
        pipeline = diffusers.AutoPipelineForInpainting.from_pipe(pipeline, dtype=dtype)
    if settings.scheduler is not None:
        pipeline.scheduler = _scheduler(settings.scheduler, pipeline.scheduler)
    if family.is_transformer:
        _check_sampling(pipeline, source, settings)
        encode_to_mode(pipeline.vae)
    if settings.lora is not None:
        lora.merge(pipeline, settings.lora)
    pipeline.set_progress_bar_config(disable=True)
    for module in (denoiser, pipeline.vae, *controls):
        module.eval().requires_grad_(False)
        if settings.channels_last:
            module.to(memory_format=torch.channels_last)
    if settings.vae_tiling:
        pipeline.vae.enable_tiling()
    if device == "cpu" and hasattr(pipeline.vae, "use_slicing"):
        # What an image alone needs stays in the processor's cache; of 64 at a time nothing does.
        pipeline.vae.enable_slicing()
    if settings.offload == "none":
        pipeline.to(device)
    if settings.compile:
        _compile(denoiser, *controls)
    return pipeline


def place(pipeline: Any, offload: Offload, device: str) -> None:
    """Let a pipeline in main memory work on a GPU, on which its networks lie only when they run.

    Its text encoders should be gone by then.
    """
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)


def find_device(device: str) -> str:
    """The torch device that a setting means.

    Raises:
        ConfigError: it is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        if not number < torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ConfigError(f"device is {device!r}, but torch sees {count} CUDA devices")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is 'mps', but torch cannot use it here")
    return device


def takes_mask(pipeline: Any) -> bool:
    """Whether a UNet reads a mask and the masked image beside the latents."""
    unet = getattr(pipeline, "unet", None)
    return unet is not None and bool(
        unet.config.in_channels == 2 * pipeline.vae.config.latent_channels + 1
    )


def encode_to_mode(vae: Any) -> None:
    """Let an autoencoder encode to its distribution's mode wherever diffusers asks for a sample.

    The pipelines of transformers encode condition maps, too. Those of Stable Diffusion 3 would draw
    that sample from torch's global generator, those of FLUX from an image's own before its noise,
    so that a control at scale 0 would change the image.
    """
    encode = vae.encode

    def mode(images: Tensor, return_dict: bool = True) -> Any:
        encoded = encode(images)
        latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents
        output = AutoencoderKLOutput(latent_dist=IdentityDistribution(latents))
        return output if return_dict else output.to_tuple()

    vae.encode = mode


def _load_part(model: str, dtype: torch.dtype) -> Any:
    """A network that replaces one of the pipeline's; its configuration tells the class."""
    folder = model_folder.find(model)
    settings: dict[str, Any] = {}
    if folder is None:
        settings = hub.options(model, None)
    else:
        model_folder.check_component(folder)
    return hub.call(
        diffusers.AutoModel.from_pretrained,
        model if folder is None else str(folder),
        dtype=dtype,
        use_safetensors=True,
        **settings,
    )


def _compile(*networks: torch.nn.Module) -> None:
    """Let torch compile networks when they are first called, for each batch size anew."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    for network in networks:
        network.compile(dynamic=False)


def _load_control(
    family: Family, folder: Path | None, settings: DiffusionSettings, name: str, dtype: torch.dtype
) -> Any:
    control = settings.controls[name]
    local = model_folder.find_control(folder, control.model)
    if local is not None:
        model_folder.check_component(local)
        source, options = str(local), {}
    elif model_folder.HUB_ID.fullmatch(control.model):
        source, options = control.model, hub.options(control.model, control.revision)
    else:
        source, options = settings.model, hub.options(settings.model, settings.revision)
        options["subfolder"] = control.model
    kind = getattr(diffusers, family.controlnet)
    class_name = hub.call(kind.load_config, source, **options).get("_class_name")
    if class_name != family.controlnet:
        raise BadInputError(
            f"controls.{name}.model belongs to another model: it is a {class_name}, and "
            f"{family.name} needs a {family.controlnet}"
        )
    return hub.call(
        kind.from_pretrained,
        source,
        dtype=dtype,
        use_safetensors=True,
        **options,
    )


def _pipeline_kind(
    family: Family, index: dict[str, Any], source: str, settings: DiffusionSettings
) -> Any:
    """The loader of diffusers that suits a repository's own class and the mode.

    With ControlNets diffusers derives the class from the repository's: its loader for images to
    images does not know inpainting repositories, such as ``StableDiffusionInpaintPipeline``.
    """
    if "Inpaint" not in str(index.get("_class_name")):
        return getattr(diffusers, family.pipeline(settings.mode, bool(settings.controls)))
    _refuse_other_modes(source, settings.mode)
    return diffusers.AutoPipelineForInpainting


def _refuse_other_modes(source: str, mode: str) -> None:
    if mode != "inpaint":
        raise BadInputError(f"{source} is an inpainting model: mode must be inpaint, not {mode}")


def _local_variant(folder: Path, variant: str | None) -> str | None:
    """The variant, if a local copy has files of it: copies often hold the plain names only."""
    has_variant = variant is not None and any(folder.glob(f"*/*.{variant}.safetensors"))
    return variant if has_variant else None


def _check_sampling(pipeline: Any, source: str, settings: DiffusionSettings) -> None:
    """Check what only a loaded transformer and its scheduler tell.

    Raises:
        BadInputError: the scheduler draws noise, for which diffusers has no generator, or shifts
            its steps by the image's size, which diffusers leaves out where ControlNets are.
        ConfigError: the transformer does not read the guidance scale.
    """
    if pipeline.scheduler.config.stochastic_sampling:
        raise BadInputError(
            f"{source}: its scheduler has stochastic_sampling, whose noise no image's seed decides"
        )
    is_shifted = pipeline.scheduler.config.get("use_dynamic_shifting", False)
    if is_shifted and type(pipeline) is diffusers.StableDiffusion3ControlNetPipeline:
        raise BadInputError(
            f"{source}: its scheduler has use_dynamic_shifting, with which diffusers runs "
            f"{families.SD3.name} without ControlNets only"
        )
    reads_guidance = pipeline.transformer.config.get("guidance_embeds", True)
    if settings.guidance_scale > 1 and not reads_guidance:
        raise ConfigError(f"guidance_scale: {source} reads none; set it to 1 or less")


def _scheduler(name: str, current: Any) -> Any:
    kind: Any = getattr(diffusers, name, None)
    is_scheduler = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not is_scheduler:
        raise ConfigError(f"scheduler: diffusers has no scheduler class {name!r}")
    return kind.from_config(current.config)
