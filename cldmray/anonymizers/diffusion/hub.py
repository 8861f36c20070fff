"""Calls diffusers' loaders for local folders and the hub, with errors that a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import transformers
from huggingface_hub import hf_hub_download, model_info
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cldmray.errors import BadInputError
from cldmray.storage import HUB_TIMEOUT


def options(model: str, revision: str | None) -> dict[str, Any]:
    """Where to look for a hub model: one quick question spares minutes of retries offline.

    Raises:
        BadInputError: the hub answers that there is no such model, or none for us.
    """
    try:
        model_info(model, revision=revision, timeout=HUB_TIMEOUT)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise BadInputError(f"{model}: no such folder, and the hub refuses: {error}") from error
    except Exception:
        return {"revision": revision, "local_files_only": True}
    return {"revision": revision}


def download(model: str, file: str, revision: str | None) -> Path:
    """One file of a hub repository, from the local cache where it is there.

    Raises:
        BadInputError: it cannot be had.
    """
    return Path(call(hf_hub_download, model, filename=file, **options(model, revision)))


def call(load: Any, source: str, **settings: Any) -> Any:
    """Call a loader, whose errors are of any type.

    Raises:
        BadInputError: for each of them; the message names the source.
    """
    try:
        with _no_progress_bars():
            return load(source, **settings)
    except Exception as error:
        if settings.get("local_files_only"):
            raise BadInputError(
                f"{source}: no such folder, the Hugging Face hub cannot be reached, and its local "
                "cache lacks the model: give the path of a local folder"
            ) from error
        raise BadInputError(f"{source} cannot be loaded: {error}") from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading is seconds long and happens in actors, whose bars would fill the driver's log."""
    libraries = [diffusers.utils.logging, transformers.utils.logging]
    enabled = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in enabled:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in enabled:
            library.enable_progress_bar()
