"""Naming probes in a large gallery: exact search against approximate ones, and against peers.

    python benchmarks/gallery.py [--gallery 1000000] [--probes 100000] [--exact 20000]

Every person is a centre with five references and some probes around it, unit vectors of 128
dimensions. The deviation of dimension j falls as (1 + j)^-0.5, as that of face embeddings does;
in directions that all weigh the same, approximate indexes find next to nothing.

- *ours*: ``cldmray.gallery.vector_index.VectorIndex``, the flat FAISS index of a saved gallery.
- *torch*, *numpy*: blocks of the matrix product, and the k best of each row.
- *IVF*, *HNSW*: FAISS's approximate indexes at several settings; how much of the exact answer
  they find is their recall. Audits do not use them: a rank counts everybody who stands before the
  true person, and a rate must not depend on who was overlooked.

Exact searches may be timed on the first ``--exact`` probes; the time for all is then extrapolated
and marked so, and recalls are of these probes. Writes ``gallery.json``.
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from attacking import environment

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]
Search = Callable[[Floats], Codes]
"""Rows of the gallery nearest to each probe, best first, shape (P, K)."""

K, DIMENSIONS, REFERENCES, NOISE = 10, 128, 5, 0.7
BLOCK = 256
"""Probes whose scores a peer holds at once: 1 GiB in a million."""


class Row(NamedTuple):
    """What one way of searching costs and finds.

    Attributes:
        name: of the index and its setting.
        build: seconds to build the index.
        gib: memory that the index holds beyond the vectors it was given, GiB.
        rate: probes per second.
        searched: probes that were timed.
        recall_1, recall_10: shares of the best, and of the ten best, of the exact answer.
        named: share of probes whose nearest reference is of the same person.
    """

    name: str
    build: float
    gib: float
    rate: float
    searched: int
    recall_1: float
    recall_10: float
    named: float


class Data(NamedTuple):
    """Unit vectors and their people: gallery (n, 128) and probes (P, 128)."""

    gallery: Floats
    identities: Codes
    probes: Floats
    probe_identities: Codes


def mixture(gallery: int, probes: int, seed: int = 0) -> Data:
    """People who are centres, references and probes around them; the same for the same numbers."""
    random = np.random.default_rng(seed)
    scale = ((1 + np.arange(DIMENSIONS)) ** -0.5).astype(np.float32)
    identities = -(-gallery // REFERENCES)

    def drawn(rows: int) -> Floats:
        return random.standard_normal((rows, DIMENSIONS), np.float32) * scale

    def unit(vectors: Floats) -> Floats:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    centres = drawn(identities)
    unique_identities = np.arange(gallery) // REFERENCES
    probe_identities = random.integers(0, identities, probes)

    def around(of: Codes) -> Floats:
        vectors = centres[of]
        for start in range(0, len(of), 100_000):
            part = vectors[start : start + 100_000]
            part += NOISE * drawn(len(part))
        return unit(vectors)

    return Data(
        around(unique_identities), unique_identities, around(probe_identities), probe_identities
    )


def torch_search(gallery: Floats) -> Search:
    import torch

    vectors = torch.from_numpy(gallery)

    def search(probes: Floats) -> Codes:
        parts = torch.from_numpy(probes).split(BLOCK)
        return torch.cat([(part @ vectors.T).topk(K).indices for part in parts]).numpy()

    return search


def numpy_search(gallery: Floats) -> Search:
    def search(probes: Floats) -> Codes:
        neighbors = np.empty((len(probes), K), np.int64)
        for start in range(0, len(probes), BLOCK):
            scores = probes[start : start + BLOCK] @ gallery.T
            best = np.argpartition(scores, -K, axis=1)[:, -K:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            neighbors[start : start + BLOCK] = np.take_along_axis(best, order, 1)
        return neighbors

    return search


def labels_of(index: Any) -> Search:
    """The search of a FAISS index or of a GalleryIndex."""
    return lambda probes: index.search(probes, K)[1]


def resident() -> float:
    """Memory of this process now, GiB, after what was freed is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def timed(search: Search, probes: Floats) -> tuple[float, Codes]:
    """Seconds, and what was found."""
    started = time.perf_counter()
    neighbors = search(probes)
    return time.perf_counter() - started, neighbors


class Table:
    """Collects rows as they are measured, and prints each."""

    def __init__(self, data: Data, truth: Codes) -> None:
        self.data = data
        self.truth = truth
        self.rows: list[Row] = []
        print(f"{'':26}{'build s':>9}{'GiB':>7}{'probes/s':>11}{'searched':>10}"
              f"{'recall@1':>10}{'recall@10':>11}{'named':>8}", flush=True)  # fmt: skip

    def add(self, name: str, build: float, gib: float, seconds: float, neighbors: Codes) -> None:
        compared = min(len(neighbors), len(self.truth))
        top, truth = neighbors[:compared], self.truth[:compared]
        shared = (top[:, :, None] == truth[:, None, :]).any(2)
        nearest = (
            self.data.identities[neighbors[:, 0]] == self.data.probe_identities[: len(neighbors)]
        )
        row = Row(
            name, build, gib, len(neighbors) / seconds, len(neighbors),
            float((top[:, 0] == truth[:, 0]).mean()), float(shared.mean()), float(nearest.mean()),
        )  # fmt: skip
        self.rows.append(row)
        print(f"{name:26}{build:9.1f}{gib:7.2f}{row.rate:11.1f}{row.searched:10d}"
              f"{row.recall_1:10.4f}{row.recall_10:11.4f}{row.named:8.3f}", flush=True)  # fmt: skip


def exact(data: Data, count: int, blocks: int) -> tuple[Table, float]:
    """Ours and the peers on the first ``count`` probes, in turns.

    Returns:
        The table and the ratio of our rate to torch's, median over blocks.
    """
    from cldmray.gallery.vector_index import VectorIndex

    before, started = resident(), time.perf_counter()
    index = VectorIndex(data.gallery)
    build, gib = time.perf_counter() - started, resident() - before
    searches: dict[str, Search] = {
        "ours (flat)": labels_of(index),
        "torch matmul + topk": torch_search(data.gallery),
    }
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    neighbors: dict[str, list[Codes]] = {name: [] for name in searches}
    for number, part in enumerate(np.array_split(data.probes[:count], blocks)):
        for name in list(searches)[:: 1 if number % 2 == 0 else -1]:
            taken, rows = timed(searches[name], part)
            seconds[name].append(taken)
            neighbors[name].append(rows)
    table = Table(data, np.concatenate(neighbors["ours (flat)"]))
    costs = {"ours (flat)": (build, gib)}
    for name in searches:
        table.add(
            name, *costs.get(name, (0, 0)), sum(seconds[name]), np.concatenate(neighbors[name])
        )
    few = data.probes[: min(count, 2 * BLOCK)]
    table.add("numpy matmul + partition", 0, 0, *timed(numpy_search(data.gallery), few))
    pairs = zip(seconds["ours (flat)"], seconds["torch matmul + topk"], strict=True)
    return table, statistics.median(peer / own for own, peer in pairs)


def approximate(data: Data, table: Table, probes: list[int], efs: list[int]) -> None:
    """IVF at several ``nprobe``, HNSW at several ``efSearch``, on all probes."""
    import faiss

    size = len(data.gallery)
    lists = int(2 ** np.clip(np.round(np.log2(4 * size**0.5)), 4, 16))
    kinds = {f"IVF{lists},Flat": ("nprobe", probes), "HNSW32,Flat": ("efSearch", efs)}
    for kind, (anonymizer, values) in kinds.items():
        before, started = resident(), time.perf_counter()
        index = faiss.index_factory(DIMENSIONS, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(data.gallery[:: max(1, size // (40 * lists))])
        index.add(data.gallery)
        build, gib = time.perf_counter() - started, resident() - before
        for value in values:
            faiss.ParameterSpace().set_index_parameter(index, anonymizer, value)
            seconds, neighbors = timed(labels_of(index), data.probes)
            table.add(f"{kind}, {anonymizer} {value}", build, gib, seconds, neighbors)
        del index


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=1_000_000, help="references")
    parser.add_argument("--probes", type=int, default=100_000)
    parser.add_argument("--exact", type=int, default=20_000, help="probes of exact searches")
    parser.add_argument("--blocks", type=int, default=5, help="in which the exact ones take turns")
    parser.add_argument("--nprobe", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--ef", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"))
    arguments = parser.parse_args()
    environment.enter("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    import threadpoolctl
    import torch

    from cldmray.gallery.vector_index import load_faiss

    load_faiss().omp_set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    threadpoolctl.threadpool_limits(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    data = mixture(arguments.gallery, arguments.probes)
    print(f"{arguments.probes} probes, {arguments.gallery} references, {DIMENSIONS} dimensions, "
          f"{REFERENCES} a person, {arguments.threads} thread(s); drawn in "
          f"{time.perf_counter() - started:.0f} s\n", flush=True)  # fmt: skip
    count = min(arguments.exact, arguments.probes)
    table, ratio = exact(data, count, arguments.blocks)
    approximate(data, table, arguments.nprobe, arguments.ef)
    whole = arguments.probes / table.rows[0].rate
    kind = "measured" if count == arguments.probes else f"EXTRAPOLATED from {count} probes"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nours : torch, probes/s, median of {arguments.blocks} blocks: {ratio:.2f}")
    print(f"all {arguments.probes} probes, exact, ours: {whole:.0f} s ({kind})")
    print(f"most memory: {peak:.1f} GiB")
    report = {
        "probes": arguments.probes,
        "gallery": arguments.gallery,
        "threads": arguments.threads,
        "ours_to_torch": ratio,
        "exact_seconds": whole,
        "exact_is_extrapolated": count < arguments.probes,
        "peak_gib": peak,
        "rows": [row._asdict() for row in table.rows],
    }
    path = arguments.out / "gallery.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(path)


if __name__ == "__main__":
    main()
