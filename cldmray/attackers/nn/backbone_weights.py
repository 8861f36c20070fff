"""Pretrained weights of public image networks: safetensors in a file, in a folder or on the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cldmray.anonymizers.diffusion.model_folder import HUB_ID
from cldmray.errors import ConfigError

WEIGHTS = "model.safetensors"
OPTIONAL = ("mask_token", "position_ids")
"""Weights that a network may have or lack without being another: its features never need them."""
READ = (".json", ".safetensors")
"""Files of a folder that a network is built from."""


def message(error: Exception) -> str:
    """First line of an error's text, or its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def local_path(pretrained: str) -> Path | None:
    """Local file or folder that a setting means, there or not; None: it is a hub id."""
    path = Path(pretrained).expanduser()
    return None if HUB_ID.fullmatch(pretrained) and not path.exists() else path


def local_files(pretrained: str) -> list[Path]:
    """Files that are read of a local file or folder, sorted; none where it is on the hub."""
    path = local_path(pretrained)
    if path is None:
        return []
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in READ)
    return [path] if path.is_file() else []


def load_into(network: nn.Module, pretrained: str, classifier: tuple[str, ...]) -> None:
    """Fill a network without its classifier from a safetensors file.

    Args:
        pretrained: the file, a folder with ``model.safetensors``, or the hub id of one.
        classifier: names of the layers that the file may have and the network has not.

    Raises:
        ConfigError: the file is missing, no safetensors, or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = _file(pretrained)
    try:
        given = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"encoder.pretrained: {file} is no whole safetensors file: {message(error)}"
        ) from error
    try:
        loading = network.load_state_dict(given, strict=False)
    except RuntimeError as error:
        raise _other_network(pretrained, message(error)) from error
    prefixes = tuple(f"{layer}." for layer in classifier)
    strange = [key for key in loading.unexpected_keys if not key.startswith(prefixes)]
    if loading.missing_keys or strange:
        raise _other_network(pretrained, _difference(loading.missing_keys, strange))


def load_transformer(config: Any, pretrained: str) -> Any:
    """The model of transformers that ``config`` describes, in float32, with pretrained weights.

    Args:
        pretrained: folder or hub id.

    Raises:
        ConfigError: it cannot be read, has no safetensors, or is of another network.
    """
    from transformers import AutoModel

    path = local_path(pretrained)
    if path is not None and not path.is_dir():
        raise ConfigError(f"encoder.pretrained: {pretrained} is neither a folder nor a hub id")
    try:
        with _quiet():
            model, loading = AutoModel.from_pretrained(
                pretrained if path is None else str(path),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except OSError as error:
        raise ConfigError(
            f"encoder.pretrained: {pretrained} has no weights that can be read; they must be "
            f"safetensors: {message(error)}"
        ) from error
    except RuntimeError as error:
        raise _other_network(pretrained, message(error)) from error
    own = {name for name, _ in model.named_children()}
    prefix = f"{model.base_model_prefix}."
    strange = [
        key
        for key in loading["unexpected_keys"]
        if str(key).removeprefix(prefix).split(".")[0] in own - {"pooler"}
        and not str(key).endswith(OPTIONAL)
    ]
    missing = [
        key
        for key in loading["missing_keys"]
        if not str(key).startswith("pooler.") and not str(key).endswith(OPTIONAL)
    ]
    if missing or strange:
        raise _other_network(pretrained, _difference(missing, strange))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and report, whose content is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _file(pretrained: str) -> Path:
    path = local_path(pretrained)
    if path is None:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(pretrained, WEIGHTS))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"encoder.pretrained: no {WEIGHTS} of {pretrained} on the hub: {message(error)}"
            ) from error
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"encoder.pretrained: no file {file}")
    return file


def _difference(missing: list[str], strange: list[str]) -> str:
    parts = []
    for said, keys in (("lacks", missing), ("has besides", strange)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            parts.append(f"it {said} {min(keys)}{more}")
    return "; ".join(parts)


def _other_network(pretrained: str, why: str) -> ConfigError:
    return ConfigError(
        f"encoder.pretrained: {pretrained} belongs to another network than encoder.backbone: {why}"
    )
