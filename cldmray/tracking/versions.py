"""What ran: the commit of the code and the versions of the packages that matter."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import cldmray

PACKAGES = (
    "torch",
    "ray",
    "diffusers",
    "transformers",
    "faiss-cpu",
    "faiss-gpu",
    "mlflow",
    "numpy",
    "pyarrow",
    "opencv-python-headless",
    "onnxruntime",
)


def git_commit(folder: str | None = None) -> str | None:
    """Commit of the checkout that holds this package, 40 hexadecimal characters.

    ``-dirty`` is added where tracked files were changed. A package that only lies within somebody
    else's checkout, as in a virtual environment there, has none.

    Args:
        folder: folder to ask about; None: the package's own.

    Returns:
        None outside of a checkout, without git, or before the first commit.
    """
    here = Path(folder) if folder is not None else Path(cldmray.__file__).parent
    if _git(here, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def code_commit() -> str:
    """Commit of the code that runs, for a reader: of the checkout, else what the build recorded."""
    return git_commit() or built_commit() or "not a checkout"


def built_commit(folder: str | None = None) -> str | None:
    """Commit that a wheel was built from; None where there was no checkout (see ``setup.py``).

    Args:
        folder: folder to ask about; None: the package's own.
    """
    here = Path(folder) if folder is not None else Path(cldmray.__file__).parent
    record = here / "COMMIT"
    return record.read_text("utf-8").strip() if record.is_file() else None


def package_versions() -> dict[str, str]:
    """Versions of Python, cldmray and the installed packages of ``PACKAGES``."""
    versions = {"python": platform.python_version(), "cldmray": cldmray.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
