"""Any Stable Diffusion or FLUX model of diffusers, with any ControlNets, as an anonymizer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from cldmray.anonymizers.base import AblationKey, AnonymizeFunction, Anonymizer
from cldmray.anonymizers.diffusion import model_folder
from cldmray.anonymizers.diffusion.lora import check_peft
from cldmray.anonymizers.diffusion.settings import DiffusionSettings, Mode
from cldmray.conditions.base import Condition
from cldmray.conditions.coarse import Coarse
from cldmray.conditions.controlnet_aux import check_torchvision
from cldmray.settings import checked_dataclass
from cldmray.storage import hub_commit


@checked_dataclass
class Diffusion(DiffusionSettings, Anonymizer):
    """Anonymizes images with a latent diffusion model (Rombach et al. 2022).

    Stable Diffusion 1.x, 2.x, XL and 3.x and FLUX in diffusers' folder layout, weights as
    safetensors only.
    A safety checker, where the model has one, is left out: it would put black images among the
    audited ones. Each image's noise comes from its own seed on the CPU, so that neither its
    neighbours in the batch nor the device's random generator matter.

    The settings are those of :class:`~cldmray.anonymizers.diffusion.settings.DiffusionSettings`.

    >>> from cldmray.anonymizers.diffusion import Control
    >>> from cldmray.conditions import Canny
    >>> Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")}).name
    'cldm-canny-1.0'
    """

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return {name: control.condition for name, control in self.controls.items()}

    @property
    def uses_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def n_steps(self) -> int:
        return self.num_inference_steps

    def version(self) -> str:
        """Fingerprint of the weights and settings in the folders that are used.

        Files' times do not enter. For hub models it is the commits that they resolve to; offline,
        and without a copy in the hub's local cache, the revision, ``""`` where none is set.

        Raises:
            BadInputError: a folder is missing or incomplete.
        """
        folder = model_folder.find(self.model)
        controls = [
            model_folder.find_control(folder, control.model) for control in self.controls.values()
        ]
        adapter = [] if self.lora is None else [self.lora.find()]
        autoencoder = [] if self.vae is None else [model_folder.find(self.vae)]
        parts = [*controls, *adapter, *autoencoder]
        names = [(control.model, control.revision) for control in self.controls.values()]
        names += [] if self.lora is None else [(self.lora.model, self.lora.revision)]
        names += [] if self.vae is None else [(self.vae, None)]
        commits = [] if folder else [hub_commit(self.model, self.revision)]
        commits += [
            hub_commit(*name) for name, part in zip(names, parts, strict=True) if part is None
        ]
        return model_folder.version(folder, parts, " ".join(filter(None, commits)))

    def check(self) -> None:
        """Find out before any work starts whether everything that it needs is installed.

        Raises:
            MissingDependencyError: the adapter or a condition needs a package that is not there, or
                a torchvision made for another torch would keep diffusers from loading.
        """
        super().check()
        check_torchvision()
        if self.lora is not None:
            check_peft()

    def trained_on(self) -> frozenset[str]:
        """Identity hashes in the model folder's ``training_identities.txt``, if it is there.

        Raises:
            BadInputError: a line of the file is no identity hash.
        """
        folder = model_folder.find(self.model)
        return frozenset() if folder is None else model_folder.trained_on(folder)

    def open(self) -> AnonymizeFunction:
        """Load the pipeline, encode the prompts once, and return the function that anonymizes.

        That function raises BadInputError for images whose sides the model cannot draw, and
        when the arithmetic overflows.

        Raises:
            BadInputError: the model is missing, incomplete, not of a supported kind, has no
                safetensors, or cannot be fetched; the message names the path or id.
            MissingDependencyError: see :meth:`check`.
            ConfigError: ``scheduler`` or ``device`` names something that is not there, or a setting
                does not suit the model's family; the message begins with it.
        """
        return self.open_on("auto")

    def open_on(self, device: str) -> AnonymizeFunction:
        """:meth:`open` on a device; the setting ``device`` goes before, unless it is ``auto``."""
        from cldmray.anonymizers.diffusion.inference import PipelineRunner

        return PipelineRunner(self if self.device != "auto" else replace(self, device=device))

    def ablation_key(self) -> AblationKey:
        scales = {
            name: control.controlnet_conditioning_scale
            for name, control in sorted(self.controls.items())
            if control.controlnet_conditioning_scale
        }
        largest = max(scales.values(), default=0.0)
        relative = {
            name: replace(
                self.controls[name], controlnet_conditioning_scale=round(scale / largest, 6)
            )
            for name, scale in scales.items()
        }
        return AblationKey(
            largest,
            replace(self, controls={})._images_key(),
            replace(self, controls=relative)._images_key(),
        )

    def same_images(self, other: Anonymizer) -> bool:
        return isinstance(other, Diffusion) and self._images_key() == other._images_key()

    def _images_key(self) -> str:
        """Text of all settings that change images."""
        strength = 1.0 if self.mode == "text2img" else self.strength
        return repr(replace(self, label=None, name_prefix="any", strength=strength))

    def with_scale(self, factor: float) -> Self:
        """The anonymizer with all control scales times ``factor``; at 0 without controls.

        A control at scale 0 adds nothing to the image, so that both are the same image by image.
        """
        if factor == 1 or not self.controls:
            return self
        if factor == 0:
            return replace(self, controls={}, label=None)
        controls = {
            name: replace(
                control,
                controlnet_conditioning_scale=control.controlnet_conditioning_scale * factor,
            )
            for name, control in self.controls.items()
        }
        return replace(self, controls=controls, label=self._extended(f"x{factor:g}"))

    def with_coarse_condition(self, factor: int) -> Self:
        """The anonymizer with :class:`Coarse` condition maps; named after the factor."""
        if factor == 1 or not self.controls:
            return self
        controls = {
            name: replace(control, condition=Coarse(control.condition, factor))
            for name, control in self.controls.items()
        }
        return replace(self, controls=controls, label=f"{self.name}-coarse{factor}")

    def with_init_image(self, strength: float | None) -> Self:
        """The anonymizer started from the noised image at a strength; None leaves it as it is.

        ``inpaint`` stays: it starts from the image, too.
        """
        if strength is None:
            return self
        mode: Mode = "inpaint" if self.mode == "inpaint" else "img2img"
        return replace(
            self, mode=mode, strength=strength, label=self._extended(f"{mode}-{strength}")
        )

    def started_from_image(self, strength: float) -> Self:
        """An anonymizer that starts from the image: itself, if it does, else at this strength.

        The strength is 1 where a smaller one would leave no step.
        """
        if self.mode != "text2img":
            return self
        leaves_a_step = self.num_inference_steps * strength >= 1
        return self.with_init_image(strength if leaves_a_step else 1.0)

    def _extended(self, ending: str) -> str | None:
        return None if self.label is None else f"{self.label}-{ending}"
