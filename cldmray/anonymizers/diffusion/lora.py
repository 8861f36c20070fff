"""Low-rank adapters (Hu et al. 2022), merged into a pipeline's weights when it is loaded."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldmray.anonymizers.diffusion import model_folder
from cldmray.errors import BadInputError, MissingDependencyError

USUAL_FILE = "pytorch_lora_weights.safetensors"
OLDEST_PEFT = (0, 17)
"""What diffusers 0.42 wants."""


@dataclass(frozen=True)
class Lora:
    """One adapter.

    Attributes:
        model: safetensors file, local folder, or hub id.
        file: name within the folder or hub repository.
        lora_scale: factor on the adapter's weights, >= 0.
        revision: branch, tag or commit of a hub id.
    """

    model: str
    file: str = USUAL_FILE
    lora_scale: float = 1.0
    revision: str | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model must not be empty")
        if Path(self.file).suffix != ".safetensors":
            raise ValueError(f"file must be a .safetensors file, not {self.file!r}")
        if not self.lora_scale >= 0:
            raise ValueError(f"lora_scale must be at least 0, not {self.lora_scale}")

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
