"""A FAISS index over embeddings of known people: build, save, search, merge shards."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cldmray import storage
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.gallery.gpu_search import MOST_NEIGHBOURS, GpuGallery

Answer = TypeVar("Answer")
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]


def load_faiss() -> Any:
    """The ``faiss`` module.

    Raises:
        MissingDependencyError: neither faiss-cpu nor faiss-gpu is usable. Both install the same
            module, and removing one leaves the other's folder empty, so that is checked too.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            "FAISS is not installed: pip install 'cldmray[cpu]' or 'cldmray[gpu]'"
        ) from error
    if not hasattr(faiss, "IndexFlatIP"):
        raise MissingDependencyError(
            "the faiss module is empty, as it is after one of faiss-cpu and faiss-gpu was removed "
            "while both were installed: pip uninstall faiss-cpu faiss-gpu, then install one"
        )
    return faiss


class GalleryIndex:
    """Exact inner-product search over unit vectors, each under an integer label.

    Where FAISS sees GPUs, they search, each in its share of the vectors; scores differ from the
    CPU's by rounding in float32 only. The CPU searches where there are none, where more than 2,048
    neighbours are wanted, and, with a warning, where the GPUs' memory does not suffice.

    Args:
        vectors: unit norm, shape (n, d).
        labels: shape (n,), returned by searches.
        gpus: at most so many GPUs; None: all that there are; 0: the CPU.
    """

    def __init__(self, vectors: Floats, labels: Codes, gpus: int | None = None) -> None:
        faiss = load_faiss()
        if vectors.ndim != 2 or len(vectors) != len(labels):
            raise BadInputError(f"{vectors.shape} vectors do not fit {len(labels)} labels")
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        self._index.add_with_ids(
            np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(labels, np.int64)
        )
        self._gallery = self._on_gpus(gpus)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, probes: Floats, k: int) -> tuple[Floats, Codes]:
        """Scores (descending) and labels of the k best vectors of each probe, shape (P, k).

        ``k`` is capped at the size of the index.

        Raises:
            BadInputError: the probes have another number of dimensions.
        """
        k = min(k, len(self))
        self._check_dimensions(probes)
        if not k:
            return np.zeros((len(probes), 0), np.float32), np.zeros((len(probes), 0), np.int64)
        probes = np.ascontiguousarray(probes, np.float32)
        if k <= MOST_NEIGHBOURS and len(probes):
            found = self._ask(lambda gallery: gallery.search(probes, k))
            if found is not None:
                labels = load_faiss().vector_to_array(self._index.id_map)
                return found[0], np.where(found[1] < 0, -1, labels[found[1]])
        scores, labels = self._index.search(probes, k)
        return scores, labels

    def inner_products(self, probes: Floats) -> Floats:
        """Inner products of each probe with every vector, in the vectors' order, shape (P, n).

        Raises:
            BadInputError: the probes have another number of dimensions.
        """
        self._check_dimensions(probes)
        if not len(self) or not len(probes):
            return np.zeros((len(probes), len(self)), np.float32)
        faiss = load_faiss()
        inner = faiss.downcast_index(self._index.index)
        vectors = faiss.rev_swig_ptr(inner.get_xb(), len(self) * inner.d).reshape(-1, inner.d)
        probes = np.ascontiguousarray(probes, np.float32)
        found = self._ask(lambda gallery: gallery.inner_products(probes, vectors))
        if found is None:
            metric = faiss.METRIC_INNER_PRODUCT
            found = np.asarray(faiss.pairwise_distances(probes, vectors, metric))
        return found

    def save(self, uri: str) -> None:
        """Write the index as one file, atomically."""
        faiss = load_faiss()
        storage.write_bytes(uri, faiss.serialize_index(self._index).tobytes())

    @classmethod
    def open(cls, uri: str, gpus: int | None = None) -> "GalleryIndex":
        """Read an index that :meth:`save` wrote; ``gpus`` is as in the constructor.

        Raises:
            BadInputError: the file is absent or no such index.
        """
        faiss = load_faiss()
        index = cls.__new__(cls)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "index.faiss")
            try:
                local.write_bytes(storage.read_bytes(uri))
                index._index = faiss.read_index(str(local))
            except (FileNotFoundError, RuntimeError) as error:
                raise BadInputError(f"no FAISS index at {uri}: {error}") from error
        if not isinstance(index._index, faiss.IndexIDMap2):
            kind = type(index._index).__name__
            raise BadInputError(f"no gallery at {uri}, but a FAISS index of the kind {kind}")
        index._gallery = index._on_gpus(gpus)
        return index

    @classmethod
    def merge(cls, shards: Sequence["GalleryIndex"]) -> "GalleryIndex":
        """One index over all shards' vectors; the shards stay as they are.

        Raises:
            BadInputError: no shards, only empty ones, or ones of different dimensions.
        """
        if not shards:
            raise BadInputError("no gallery shards to merge")
        sizes = sorted({int(shard._index.d) for shard in shards})
        if len(sizes) > 1:
            raise BadInputError(f"gallery shards of different dimensions: {sizes}")
        faiss = load_faiss()
        parts = []
        for shard in shards:
            inner = faiss.downcast_index(shard._index.index)
            vectors = inner.reconstruct_n(0, len(shard)) if len(shard) else None
            if vectors is not None:
                parts.append((vectors, faiss.vector_to_array(shard._index.id_map)))
        if not parts:
            raise BadInputError("all gallery shards are empty")
        vectors, labels = zip(*parts, strict=True)
        return cls(np.concatenate(vectors), np.concatenate(labels))

    def _on_gpus(self, most: int | None) -> GpuGallery | None:
        """The vectors for the GPUs; None where there are none."""
        faiss = load_faiss()
        there = faiss.get_num_gpus()
        count = there if most is None else min(most, there)
        return GpuGallery(faiss, faiss.downcast_index(self._index.index), count) if count else None

    def _ask(self, question: Callable[[GpuGallery], Answer]) -> Answer | None:
        """What the GPUs answer; None where there are none, from now on where they cannot."""
        if self._gallery is None:
            return None
        try:
            return question(self._gallery)
        except RuntimeError as error:
            warnings.warn(f"the gallery is searched on the CPU: {error}", stacklevel=3)
            self._gallery = None
            return None

    def _check_dimensions(self, probes: Floats) -> None:
        if probes.shape[1] != self._index.d:
            raise BadInputError(
                f"probes of {probes.shape[1]} dimensions in a gallery of {self._index.d}"
            )
