"""Arrays that a training computes once and keeps as files: images, condition maps, latents.

They are opened as memory maps, so that a training that is started again goes on within seconds,
and so that they may be larger than the memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cldmray import storage

Array = npt.NDArray[Any]

CHUNK = 128
"""Rows that are computed at once; what is finished of them survives an end of the process."""


def packed(
    path: Path,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    parts: Callable[[int], Iterable[Array]],
) -> Array:
    """The array of a file, which is computed first where it is not there yet.

    A computation that was cut short goes on after its last part.

    Args:
        path: of the file, ``.npy``. Its name must say what decides the content.
        shape, dtype: of the whole array.
        parts: given a number of rows that are there, the rest of them, piece by piece.

    Returns:
        A read-only memory map.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "numbers.npy")
    >>> packed(path, (3,), "int64", lambda done: (np.array([n]) for n in range(done, 3))).tolist()
    [0, 1, 2]
    """
    if not path.exists():
        storage.make_folder(str(path.parent))
        partial, count = path.with_suffix(".partial"), path.with_suffix(".json")
        done = int(json.loads(count.read_text())) if count.exists() else 0
        array = np.lib.format.open_memmap(
            partial, mode="r+" if done else "w+", dtype=dtype, shape=shape
        )
        for part in parts(done):
            array[done : done + len(part)] = part
            array.flush()
            done += len(part)
            storage.write_bytes(str(count), json.dumps(done).encode())
        os.replace(partial, path)
        storage.delete(str(count))
    whole: Array = np.load(path, mmap_mode="r")
    return whole


def mapped(images: Array, compute: Callable[[Array], Array]) -> Callable[[int], Iterable[Array]]:
    """Parts for :func:`packed`: what a function makes of the images, ``CHUNK`` of them at once."""
    return lambda done: (
        compute(np.asarray(images[start : start + CHUNK]))
        for start in range(done, len(images), CHUNK)
    )


def content_hash(array: Array) -> str:
    """SHA-256 of an array's rows, 64 hexadecimal characters; memory for ``CHUNK`` of them."""
    digest = hashlib.sha256()
    for start in range(0, len(array), CHUNK):
        digest.update(np.ascontiguousarray(array[start : start + CHUNK]).data)
    return digest.hexdigest()
