"""Search in a gallery that is sharded over all GPUs, exact and in float32."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

MOST_NEIGHBOURS = 2048
"""That FAISS finds for one probe on a GPU."""
TEMPORARY_BYTES = 2**28
"""Of every GPU's memory that FAISS keeps for itself; models need the rest."""

_BUSY = threading.Lock()
"""FAISS's GPU resources serve one thread at a time."""


class GpuGallery:
    """The vectors of a flat CPU index, copied to the GPUs when they are first searched.

    Args:
        faiss: the module; its ``get_num_gpus()`` is at least ``gpus``.
        flat: an ``IndexFlatIP``, which must live on.
        gpus: over how many GPUs the vectors are spread, >= 1.
    """

    def __init__(self, faiss: Any, flat: Any, gpus: int) -> None:
        self._faiss = faiss
        self._flat = flat
        self._gpus = gpus
        self._index: Any = None

    def search(self, probes: Floats, k: int) -> tuple[Floats, Rows]:
        """Scores (descending) and rows of the k best vectors of each probe, shape (P, k).

        Args:
            probes: float32, C-contiguous, shape (P, d).
            k: 1 to ``MOST_NEIGHBOURS``, and at most the number of vectors.

        Raises:
            RuntimeError: the GPUs' memory does not suffice.
        """
        with _BUSY:
            if self._index is None:
                options = self._faiss.GpuMultipleClonerOptions()
                options.shard = True
                options.useFloat16 = False
                gpus = range(min(self._gpus, self._flat.ntotal))
                resources = [self._resources()[number] for number in gpus]
                self._index = self._faiss.index_cpu_to_gpu_multiple_py(
                    resources, self._flat, options, list(gpus)
                )
            scores, rows = self._index.search(probes, k)
        return scores, rows

    def inner_products(self, probes: Floats, vectors: Floats) -> Floats:
        """Inner products of each probe with every vector, shape (P, n); nothing stays on the GPUs.

        Args:
            probes, vectors: float32, C-contiguous, shapes (P, d) and (n, d), both n and P >= 1.

        Raises:
            RuntimeError: the GPUs' memory does not suffice.
        """
        parts = [part for part in np.array_split(vectors, self._gpus) if len(part)]

        def one(number: int) -> Floats:
            found: Floats = self._faiss.pairwise_distance_gpu(
                self._resources()[number],
                probes,
                parts[number],
                metric=self._faiss.METRIC_INNER_PRODUCT,
                device=number,
            )
            return found

        with _BUSY, ThreadPoolExecutor(len(parts)) as pool:
            return np.concatenate(list(pool.map(one, range(len(parts)))), axis=1)

    def _resources(self) -> tuple[Any, ...]:
        return _resources(self._faiss, self._gpus)


@cache
def _resources(faiss: Any, gpus: int) -> tuple[Any, ...]:
    """FAISS's streams and temporary memory of each GPU: made once, as that takes long."""
    made = tuple(faiss.StandardGpuResources() for _ in range(gpus))
    for resource in made:
        resource.setTempMemory(TEMPORARY_BYTES)
    return made
