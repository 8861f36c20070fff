"""Where MLflow is, and whether it answers: checked before any work starts."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cldmray import storage
from cldmray.errors import CldmrayError, redact_text
from cldmray.settings import environment

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"
DATABASE = "mlflow.db"
DEFAULT_URI = f"{SQLITE}{DATABASE}"
URI_VARIABLE = "MLFLOW_TRACKING_URI"


class TrackingError(CldmrayError):
    """MLflow cannot be used; the message names its URI, without credentials, and a way out."""


def resolve_uri(uri: str | None) -> str:
    """The tracking URI: the given one, else ``MLFLOW_TRACKING_URI``, else a SQLite file.

    The file is ``mlflow.db`` in the current folder, or for a submitted job in
    :func:`cldmray.storage.job_root`. Relative SQLite paths are made absolute, so that a change of
    folder or another process finds the same file.
    """
    resolved = uri or os.environ.get(URI_VARIABLE)
    if not resolved:
        root = storage.job_root()
        resolved = DEFAULT_URI if root is None else f"{SQLITE}{root}/{DATABASE}"
    path = sqlite_path(resolved)
    return resolved if path is None else f"{SQLITE}{path}"


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of a SQLite URI's file; None for another URI."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE)).expanduser().absolute()


def check_reachable(uri: str, timeout: float) -> None:
    """Fail early where no MLflow can be.

    Args:
        uri: as of ``resolve_uri``.
        timeout: seconds that a server has to answer.

    Raises:
        TrackingError: the server does not answer or refuses, or the SQLite file cannot be written.
    """
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(uri, path)
    elif uri.startswith(("http://", "https://")):
        _check_server(uri, timeout)
    elif "://" not in uri or uri.startswith("file:"):
        raise failure(
            uri,
            "MLflow keeps no runs in plain folders any more",
            f"use {DEFAULT_URI} or a server's http(s) URL",
        )


@contextmanager
def impatient(timeout: float) -> Iterator[None]:
    """Within the block MLflow's requests end after ``timeout`` seconds and are not repeated."""
    settings = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, round(timeout))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    with environment(settings):
        yield


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn any failure of MLflow, its database or the network into a ``TrackingError``.

    The cause is not chained: its text may hold the URI's password.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".replace(uri, redact_text(uri))
        raise failure(uri, redact_text(text).strip()) from None


def failure(uri: str, reason: str, cure: str | None = None) -> TrackingError:
    """The error that says where MLflow should be, what is wrong and what to do."""
    if cure is None:
        cure = "see that it runs and that you may write there"
    return TrackingError(
        f"MLflow at {redact_text(uri)} cannot be used: {reason}; {cure}, "
        "or set tracking.uri or MLFLOW_TRACKING_URI to another place"
    )


def open_client(uri: str) -> "MlflowClient":
    """A client; MLflow's usage statistics stay off unless the user turned them on."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _check_sqlite(uri: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise failure(uri, f"no such folder: {path.parent}", "create it")
    if path.is_dir():
        raise failure(uri, f"{path} is a folder", "give a file's path")
    writable = os.access(path if path.exists() else path.parent, os.W_OK)
    if not (writable and os.access(path.parent, os.W_OK)):
        raise failure(uri, "its folder or file is read-only")


def _check_server(uri: str, timeout: float) -> None:
    import requests

    try:
        response = requests.get(f"{uri.rstrip('/')}/health", timeout=timeout)
    except requests.RequestException as error:
        name = type(error).__name__
        raise failure(uri, f"no answer within {timeout:g} s ({name})", "start the server") from None
    if response.status_code in (401, 403):
        raise failure(
            uri,
            f"access refused (HTTP {response.status_code})",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if response.status_code >= 500:
        raise failure(uri, f"the server fails (HTTP {response.status_code})")
