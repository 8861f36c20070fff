"""FAISS index over unit vectors, by row: flat (exact, also on GPUs), IVF or HNSW (approximate)."""

import threading
import warnings
from functools import cache
from typing import Any, Literal, get_args

import numpy as np

from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.gallery.protocols import IntArray, Vectors

IndexKind = Literal["flat", "ivf", "hnsw"]
KINDS: tuple[IndexKind, ...] = get_args(IndexKind)

MOST_FLAT_BYTES = 2**30
"""Of vectors that are searched exactly where the kind is ``auto``."""
MOST_NEIGHBOURS = 2048
"""That FAISS finds for one probe on a GPU."""
TEMPORARY_BYTES = 2**28
"""Of every GPU's memory that FAISS keeps for itself; models need the rest."""

TARGET_RECALL = 0.95
RECALL_DEPTH = 10
RECALL_PROBES = 256
RECALL_COSINE = 0.5
"""An approximate index looks at more of its vectors, twice as many each time, until it finds
``TARGET_RECALL`` of the ``RECALL_DEPTH`` best matches of ``RECALL_PROBES`` probes, each of which
has about the cosine ``RECALL_COSINE`` with a vector of the index, as a person's other image has."""
POINTS_PER_LIST = 39
"""Vectors that FAISS wants for each list of an inverted file."""
HNSW_NEIGHBOURS = 32

_BUSY = threading.Lock()
"""FAISS's GPU resources serve one thread at a time."""


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


def choose_kind(kind: str, n_bytes: int) -> IndexKind:
    """The kind of index for vectors of so many bytes; ``auto`` is flat up to 1 GiB, then IVF.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind == "auto":
        return "flat" if n_bytes <= MOST_FLAT_BYTES else "ivf"
    for implemented in KINDS:
        if kind == implemented:
            return implemented
    raise ConfigError(f"kind: {kind!r} is no kind of gallery index; choose auto or {KINDS}")


class VectorIndex:
    """Inner-product search over unit vectors, whose rows it returns.

    Where FAISS sees GPUs, they search a flat index, each in its share of the vectors; scores differ
    from the CPU's by rounding in float32 only. The CPU searches where there are none, where more
    than 2,048 neighbours are wanted, and, with a warning, where the GPUs' memory does not suffice.

    >>> index = VectorIndex(np.eye(3, dtype=np.float32), gpus=0)
    >>> scores, rows = index.search(np.array([[0.8, 0.6, 0.0]], np.float32), k=2)
    >>> rows.tolist(), scores.round(2).tolist()
    ([[0, 1]], [[0.800000011920929, 0.6000000238418579]])

    Args:
        vectors: unit norm, shape (n, d).
        kind: ``flat``, ``ivf``, ``hnsw`` or ``auto``, see :func:`choose_kind`.
        gpus: at most so many GPUs; None: all that there are; 0: the CPU.

    Attributes:
        kind: of the index.
        recall: measured share of the ``RECALL_DEPTH`` best matches that it finds; 1 if it is flat.

    Raises:
        BadInputError: the vectors are no matrix.
    """

    def __init__(self, vectors: Vectors, kind: str = "flat", gpus: int | None = None) -> None:
        if vectors.ndim != 2:
            raise BadInputError(f"vectors of shape {vectors.shape} are no (n, d)")
        vectors = np.ascontiguousarray(vectors, np.float32)
        self.kind = choose_kind(kind, vectors.nbytes)
        self.recall = 1.0
        self._index = _empty_index(self.kind, *vectors.shape)
        if len(vectors):
            if not self._index.is_trained:
                self._index.train(vectors)
            self._index.add(vectors)
        if self.kind != "flat":
            self._search_until_recalled(vectors)
        self._gpu_shards = self._on_gpus(gpus)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return int(self._index.d)

    @property
    def vectors(self) -> Vectors:
        """All vectors in their order, shape (n, d)."""
        if not len(self):
            return np.zeros((0, self.dimensions), np.float32)
        if self.kind == "ivf":
            self._index.make_direct_map()
        vectors: Vectors = self._index.reconstruct_n(0, len(self))
        return vectors

    def search(self, probes: Vectors, k: int) -> tuple[Vectors, IntArray]:
        """Scores (descending) and rows of the k best vectors of each probe, shape (P, k).

        ``k`` is capped at the size of the index. An approximate index that finds fewer fills up
        with the row -1 and the score -inf.

        Raises:
            BadInputError: the probes have another number of dimensions.
        """
        k = min(k, len(self))
        probes = self._checked(probes)
        if not k or not len(probes):
            return np.zeros((len(probes), k), np.float32), np.zeros((len(probes), k), np.int64)
        if self._gpu_shards is not None and k <= MOST_NEIGHBOURS:
            try:
                return self._gpu_shards.search(probes, k)
            except RuntimeError as error:
                warnings.warn(f"the gallery is searched on the CPU: {error}", stacklevel=2)
                self._gpu_shards = None
        scores, rows = self._index.search(probes, k)
        return np.where(rows < 0, -np.inf, scores).astype(np.float32), rows

    def to_bytes(self) -> bytes:
        """The index in FAISS's own file format."""
        content: bytes = load_faiss().serialize_index(self._index).tobytes()
        return content

    @classmethod
    def from_bytes(
        cls, content: bytes, kind: str, recall: float, gpus: int | None = None
    ) -> "VectorIndex":
        """The index that :meth:`to_bytes` has written.

        Raises:
            BadInputError: the bytes are no index of that kind.
        """
        faiss = load_faiss()
        index = cls.__new__(cls)
        index.kind, index.recall = choose_kind(kind, 0), recall
        try:
            index._index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
        except RuntimeError as error:
            raise BadInputError(f"no FAISS index: {error}") from error
        expected = type(_empty_index(index.kind, 0, 1))
        if type(index._index) is not expected:
            raise BadInputError(
                f"a FAISS index of the kind {type(index._index).__name__}, not {expected.__name__}"
            )
        index._gpu_shards = index._on_gpus(gpus)
        return index

    def _search_until_recalled(self, vectors: Vectors) -> None:
        """Widen the search until the measured recall suffices, or everything is looked at."""
        if not len(vectors):
            return
        name, most = "efSearch", len(vectors)
        if self.kind == "ivf":
            name, most = "nprobe", self._index.nlist
        parameters = load_faiss().ParameterSpace()
        probes, best = _recall_probes(vectors)
        width = min(8, most)
        while True:
            parameters.set_index_parameter(self._index, name, width)
            answers = self._index.search(probes, best.shape[1])[1]
            pairs = zip(best, answers, strict=True)
            self.recall = float(np.mean([np.isin(*pair).mean() for pair in pairs]))
            if self.recall >= TARGET_RECALL or width >= most:
                return
            width = min(2 * width, most)

    def _on_gpus(self, most: int | None) -> "GpuShards | None":
        """The vectors for the GPUs; None where there are none or the index is not flat."""
        faiss = load_faiss()
        available = faiss.get_num_gpus() if self.kind == "flat" else 0
        count = available if most is None else min(most, available)
        return GpuShards(faiss, self._index, count) if count else None

    def _checked(self, probes: Vectors) -> Vectors:
        if probes.shape[1] != self.dimensions:
            raise BadInputError(
                f"probes of {probes.shape[1]} dimensions in a gallery of {self.dimensions}"
            )
        return np.ascontiguousarray(probes, np.float32)


def _empty_index(kind: IndexKind, n: int, dimensions: int) -> Any:
    faiss = load_faiss()
    if kind == "flat":
        return faiss.IndexFlatIP(dimensions)
    if kind == "hnsw":
        return faiss.IndexHNSWFlat(dimensions, HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    lists = max(1, min(round(4 * n**0.5), n // POINTS_PER_LIST))
    quantizer = faiss.IndexFlatIP(dimensions)
    index = faiss.IndexIVFFlat(quantizer, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
    quantizer.this.disown()
    index.own_fields = True
    return index


def _recall_probes(vectors: Vectors) -> tuple[Vectors, IntArray]:
    """Probes that lie off the vectors, shape (P, d), and rows of their best matches, (P, depth).

    A vector of the index itself would be found too easily: HNSW's recall of such was 0.99 where
    that of fresh probes was 0.79.
    """
    random = np.random.default_rng(0)
    rows = random.permutation(len(vectors))[:RECALL_PROBES]
    # (P, d): noise of the norm sqrt(1 / c^2 - 1) leaves a cosine of about c with the own vector.
    noise = random.normal(size=(len(rows), vectors.shape[1]))
    noise *= (1 / RECALL_COSINE**2 - 1) ** 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    probes = vectors[rows] + noise
    probes = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
    exact = load_faiss().IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    return probes, exact.search(probes, min(RECALL_DEPTH, len(vectors)))[1]


class GpuShards:
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

    def search(self, probes: Vectors, k: int) -> tuple[Vectors, IntArray]:
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
                resources = [_resources(self._faiss, self._gpus)[number] for number in gpus]
                self._index = self._faiss.index_cpu_to_gpu_multiple_py(
                    resources, self._flat, options, list(gpus)
                )
            scores, rows = self._index.search(probes, k)
        return scores, rows


@cache
def _resources(faiss: Any, gpus: int) -> tuple[Any, ...]:
    """FAISS's streams and temporary memory of each GPU: made once, as that takes long."""
    resources = tuple(faiss.StandardGpuResources() for _ in range(gpus))
    for resource in resources:
        resource.setTempMemory(TEMPORARY_BYTES)
    return resources
