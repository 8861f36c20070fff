"""Stable hashes: sample ids, split ranks, per-image seeds, configuration fingerprints.

Everything here depends on the given values alone, never on the process, the order of the
data or Python's randomised ``hash``.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

SEPARATOR = b"\x1f"
IMAGE_SALT = "picture"
"""Part of every image's seed. Another word would change all anonymized images."""

IMAGES = "jpg jpeg jpe jfif png webp ppm pgm pbm bmp gif tif tiff heic heif avif jp2 img image"
ARCHIVES = "parquet tar zip gz tgz 7z rar"
EXTENSIONS = frozenset(f"{IMAGES} {ARCHIVES}".split())
"""Of files, in lower case, that messages may show."""

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages."""

EXCLUDED_FROM_KEY = {"hashed": False}
"""Metadata of a dataclass field that changes no image, so that :func:`describe` skips it."""


def digest(*parts: object) -> str:
    """SHA-256 of the parts' text, joined so that ("ab", "c") differs from ("a", "bc").

    Returns:
        64 hexadecimal characters.
    """
    joined = SEPARATOR.join(str(part).encode("utf-8", "surrogateescape") for part in parts)
    return hashlib.sha256(joined).hexdigest()


def sample_id(source: str, name: str) -> str:
    """Identifier of a sample: 16 hexadecimal characters from the source's name and its own."""
    return digest("sample", source, name)[:16]


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that is uniform over the parts; used to rank and split identities."""
    return int(digest(*parts)[:13], 16) / 16**13


def identity_hash(identity: str) -> str:
    """12 hexadecimal characters that stand for a person in lists which must not name people."""
    return digest("identity", identity)[:12]


def safe_location(location: str) -> str:
    """A file's path below a root without names of people, for logs, messages and MLflow.

    The first part is the identity's :func:`identity_hash`; the others are hashed as well, because
    data sets repeat the name in the file's. An extension of images or archives stays; another may
    be part of a name, as in ``A.Lovelace``. A row of a Parquet file or a
    place in a tar file, which hold many people, is returned as it is.

    >>> safe_location("Ada/Ada_0001.jpg")
    '50e9c21627f3/1352a5998dc3.jpg'
    """
    if re.search(r"\.(parquet#\d+|tar#\d+,\d+)$", location):
        return location
    *folders, name = location.split("/")
    stem, dot, extension = name.rpartition(".")
    is_plain = bool(dot) and extension.lower() in EXTENSIONS
    hashed = [identity_hash(part) for part in (*folders, stem if is_plain else name)]
    return "/".join(hashed) + (f".{extension}" if is_plain else "")


def image_seed(sample_id: str, sample: int, audit_seed: int) -> int:
    """Random seed of one anonymized image, in [0, 2**63).

    It depends on the image, the sample and the audit's seed only, so that order, batch size,
    number of workers and restarts change no image.
    """
    return int(digest(IMAGE_SALT, sample_id, sample, audit_seed)[:16], 16) >> 1


def fingerprint(value: Any) -> str:
    """Fingerprint of a JSON-like value (mappings, sequences, scalars): 16 hexadecimal characters.

    Mappings are compared without regard to key order; other objects by their ``str``.
    """
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_rows(rows: Iterable[str]) -> str:
    """Order-free fingerprint of many row texts: 16 hexadecimal characters."""
    total = hashlib.sha256()
    for row in sorted(rows):
        total.update(row.encode("utf-8", "surrogateescape"))
        total.update(SEPARATOR)
    return total.hexdigest()[:16]


def canonicalize(value: Any) -> Any:
    """Settings of an object as JSON-like data: dataclasses become mappings with their class.

    Fields with the metadata ``EXCLUDED_FROM_KEY`` are left out. An object's ``version()``, where
    it has one, is included: it changes with outside content (weights, folders) that the settings
    only name. A function is described by its name, an array or tensor by its content.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        hashed = [f.name for f in dataclasses.fields(value) if f.metadata.get("hashed", True)]
        settings = {name: canonicalize(getattr(value, name)) for name in hashed}
        settings["_target_"] = f"{kind.__module__}.{kind.__qualname__}"
        version = getattr(value, "version", None)
        if callable(version):
            settings["_version_"] = version()
        return settings
    array = array_content(value)
    if array is not None:
        return array
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {str(key): canonicalize(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonicalize(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((canonicalize(item) for item in value), key=fingerprint)
    return value


def array_content(value: Any) -> dict[str, Any] | None:
    """Type, shape and hash of an array's or tensor's numbers, whose text leaves out most of them.

    Returns:
        None for anything else.

    >>> array_content(np.zeros((2, 2), np.uint8))["shape"]
    [2, 2]
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        array = value
    elif type(value).__module__.startswith("torch") and hasattr(value, "detach"):
        plain = value.detach().cpu()
        array = (plain if str(plain.dtype) != "torch.bfloat16" else plain.float()).numpy()
    else:
        return None
    return {
        "type": f"{type(value).__name__} {value.dtype}",
        "shape": list(array.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal; its time does not enter."""
    status = path.stat()
    return _file_hash(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified_ns: int) -> str:
    """Size and time only tell the cache when to read the file anew."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
