"""Folders in diffusers' layout: where a model is, whether it is whole, which content it has."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cldmray.errors import BadInputError
from cldmray.hashing import digest, file_hash

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[2] / "weights" / "cldm128"
INDEX = "model_index.json"
TRAINING_IDENTITIES = "training_identities.txt"
UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}
"""Components of a pipeline that anonymizing does without."""
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
IDENTITY_HASH = re.compile(r"[0-9a-f]{12}")


def find(model: str) -> Path | None:
    """Local folder that a model setting means, there or not; None: it is a hub id."""
    if model == EMBEDDED:
        return EMBEDDED_FOLDER
    path = Path(model).expanduser()
    return None if HUB_ID.fullmatch(model) and not path.is_dir() else path


def find_control(folder: Path | None, model: str) -> Path | None:
    """Local folder that a ControlNet's setting means, there or not; None: it is on the hub.

    Args:
        folder: the pipeline's folder; None where the pipeline is a hub id.
        model: folder name inside ``folder``, local folder, or hub id.
    """
    path = Path(model).expanduser()
    if folder is not None and (folder / model).is_dir():
        return folder / model
    if path.is_dir() or path.is_absolute():
        return path
    if HUB_ID.fullmatch(model) or folder is None:
        return None
    return folder / model


def check_pipeline(folder: Path) -> dict[str, Any]:
    """Check that a pipeline's folder is whole, as far as can be seen without loading it.

    Returns:
        The content of ``model_index.json``.

    Raises:
        BadInputError: it is not; the message names what is missing.
    """
    if not folder.is_dir():
        raise BadInputError(f"no such folder: {folder}")
    index = _read_json(folder / INDEX)
    for component in _components(index):
        check_component(folder / component)
    return index


def check_component(folder: Path) -> None:
    """Check one component's folder: a model needs whole safetensors beside its ``config.json``.

    Raises:
        BadInputError: the folder or its weights are missing, pickled or cut short.
    """
    if not folder.is_dir():
        raise BadInputError(f"no such folder: {folder}")
    if not list(folder.glob("*.json")):
        raise BadInputError(f"{folder} holds no JSON file that configures it")
    if not (folder / "config.json").is_file():
        return
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        check_safetensors(file)
    if not weights:
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
        if pickled:
            raise BadInputError(
                f"{folder} has pickled weights only ({', '.join(pickled)}), which are never read: "
                "save the model with safe_serialization=True"
            )
        raise BadInputError(f"{folder} has no *.safetensors file")


def version(folder: Path | None, parts: Sequence[Path | None], commits: str) -> str:
    """Fingerprint of the files that a pipeline and what is added to it are loaded from.

    Args:
        folder: the pipeline's; None where it is on the hub.
        parts: folders of ControlNets and the like, or single files; None where they are on the hub.
        commits: of what is on the hub.

    Returns:
        16 hexadecimal characters; ``commits`` when everything is on the hub.

    Raises:
        BadInputError: a folder is missing or incomplete.
    """
    used: list[Path] = []
    if folder is not None:
        components = _components(check_pipeline(folder))
        used += [folder / INDEX, *(folder / component for component in components)]
    for part in parts:
        if part is not None:
            if not part.is_file():
                check_component(part)
            used.append(part)
    if not used:
        return commits
    content: list[object] = [commits]
    for part in used:
        for file in [part] if part.is_file() else sorted(part.iterdir()):
            if file.suffix in {".json", ".txt", ".safetensors", ".model"}:
                content += [part.name, file.name, file_hash(file)]
    return digest(*content)[:16]


def trained_on(folder: Path) -> frozenset[str]:
    """Identity hashes in ``training_identities.txt``, one a line; ``#`` begins a comment.

    Raises:
        BadInputError: a line is not 12 hexadecimal characters; the message has its number.
    """
    path = folder / TRAINING_IDENTITIES
    if not path.is_file():
        return frozenset()
    hashes = set()
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if entry and not IDENTITY_HASH.fullmatch(entry):
            raise BadInputError(f"{path}, line {number}: {entry!r} is no identity hash")
        if entry:
            hashes.add(entry)
    return frozenset(hashes)


def _components(index: dict[str, Any]) -> list[str]:
    """Names of the components that a pipeline's index lists and anonymizing needs."""
    return sorted(
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] and name not in UNUSED
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInputError(f"{path.parent} is no diffusers pipeline: {path.name} is missing")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path} holds no JSON object")
    return content


def check_safetensors(path: Path) -> None:
    """Raise BadInputError where a safetensors file is cut short or something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path} is not a whole safetensors file: {error}") from error
