"""Low-rank adapters (Hu et al. 2022), merged into a pipeline's weights when it is loaded."""

import importlib.metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from cldmray.anonymizers.diffusion import model_folder
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.settings import NonEmpty, checked_dataclass

USUAL_FILE = "pytorch_lora_weights.safetensors"
OLDEST_PEFT = (0, 17)
"""What diffusers 0.42 wants."""


def _safetensors(file: str) -> str:
    if Path(file).suffix != ".safetensors":
        raise ValueError("must be a .safetensors file")
    return file


@checked_dataclass
class Lora:
    """One adapter.

    Attributes:
        model: safetensors file, local folder, or hub id.
        file: name within the folder or hub repository.
        lora_scale: factor on the adapter's weights, >= 0.
        revision: branch, tag or commit of a hub id.
    """

    model: NonEmpty
    file: Annotated[str, AfterValidator(_safetensors)] = USUAL_FILE
    lora_scale: Annotated[float, Field(ge=0)] = 1.0
    revision: str | None = None

    def find(self) -> Path | None:
        """The adapter's local file; None: it is on the hub.

        Raises:
            BadInputError: the file is missing, cut short or a pickle.
        """
        path = Path(self.model).expanduser()
        if path.suffix in model_folder.PICKLED:
            raise BadInputError(
                f"lora: {path} is a pickle, which is never read: give a .safetensors file"
            )
        if path.suffix != ".safetensors":
            if model_folder.HUB_ID.fullmatch(self.model) and not path.is_dir():
                return None
            path = path / self.file
        if not path.is_file():
            raise BadInputError(f"lora: no such file: {path}")
        model_folder.check_safetensors(path)
        return path


def check_peft() -> None:
    """Find out whether diffusers can read adapters here.

    Raises:
        MissingDependencyError: peft is missing or too old.
    """
    cure = "pip install 'cldmray[lora]'"
    try:
        installed = importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependencyError(f"lora needs the package peft: {cure}") from None
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST_PEFT:
        wanted = ".".join(map(str, OLDEST_PEFT))
        raise MissingDependencyError(f"lora needs peft {wanted} or newer, not {installed}: {cure}")


def merge(pipeline: Any, lora: Lora) -> None:
    """Add an adapter to the weights of a loaded pipeline, so that it costs nothing afterwards.

    Raises:
        BadInputError: the file cannot be had, or belongs to another model.
        MissingDependencyError: see :func:`check_peft`.
    """
    from cldmray.anonymizers.diffusion import hub

    check_peft()
    file = lora.find() or hub.download(lora.model, lora.file, lora.revision)
    hub.call(
        pipeline.load_lora_weights, str(file.parent), weight_name=file.name, use_safetensors=True
    )
    if not pipeline.get_list_adapters():
        raise BadInputError(f"lora: {file} holds no adapter for this model")
    pipeline.fuse_lora(lora_scale=lora.lora_scale)
    pipeline.unload_lora_weights()
