"""Exact ranks and measured chance in a large gallery, against a bare matrix product that counts.

    python benchmarks/ranking.py [--identities 1000000] [--references 1] [--probes 2000]

People are those of ``benchmarks/gallery.py``; all probes are from elsewhere, so that everybody has
all of their references in every gallery.

- *ours*: what an audit computes of a recognizer's embeddings, ranks and chance by permuted
  identities (``cldmray.gallery.chance.ranks_and_chance``), in the protocols and galleries asked
  for, from one matrix product. Blocks of probes are shared out among worker processes of one
  thread each.
- *measures*: what the other measures read of the same scores, once more, one core
  (``cldmray.evaluation.measures.collect_comparisons``).
- *bare*: torch multiplies blocks of probes with all references, and counts the scores above the
  probe's own. That is one ranking, without chance and of all references. As many threads as ours
  has workers.

Writes ``ranking.json``.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attacking import environment
from gallery import BLOCK, REFERENCES, Data, mixture

PROTOCOLS = ("full_ref", "few_ref", "single_ref")
GALLERIES = ("source_excluded", "source_included")


def subjects(identities: int, references: int, probes: int) -> Data:
    """The first references of everybody; people are numbered from 0."""
    data = mixture(identities * REFERENCES, probes)
    kept = np.arange(identities * REFERENCES) % REFERENCES < references
    return data._replace(gallery=data.gallery[kept], identities=data.identities[kept])


def attacks(data: Data, places: list[tuple[Any, Any]]) -> list[Any]:
    """Scores of the probes in each protocol and gallery."""
    from cldmray.gallery.protocols import EmbeddingSet
    from cldmray.gallery.scores import EmbeddingScores

    names = np.array([f"{number:07d}" for number in range(int(data.identities.max()) + 1)])
    samples = [
        np.char.add(letter, np.arange(len(own)).astype(str))
        for letter, own in (("p", data.probes), ("r", data.gallery))
    ]
    probes = EmbeddingSet(samples[0], names[data.probe_identities], data.probes)
    references = EmbeddingSet(samples[1], names[data.identities], data.gallery)
    return [EmbeddingScores(probes, references, *place) for place in places]


def ranked(scores: list[Any], apply: Callable[..., Any]) -> list[npt.NDArray[np.int64]]:
    """Higher scores of each probe, (P,), in each protocol and gallery."""
    from cldmray.gallery.chance import ranks_and_chance

    return [ranks.n_higher for ranks, _ in ranks_and_chance(scores, apply)]


def read(scores: list[Any]) -> None:
    """Read the scores as the measures do."""
    from cldmray.evaluation.measures import collect_comparisons

    for each in scores:
        collect_comparisons(each)


def bare(data: Data) -> npt.NDArray[np.int64]:
    """Higher scores of each probe among all references than of the first of its person, (P,)."""
    import torch

    from cldmray.gallery.scores import SAME_SCORE

    vectors = torch.from_numpy(data.gallery)
    own = torch.from_numpy(np.searchsorted(data.identities, data.probe_identities))
    counts = []
    for part, rows in zip(
        torch.from_numpy(data.probes).split(BLOCK), own.split(BLOCK), strict=True
    ):
        scores = part @ vectors.T
        counts.append((scores > scores.gather(1, rows[:, None]) + SAME_SCORE).sum(1))
    return torch.cat(counts).numpy()


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds, and the result."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


CALLS: list[Any] = []
"""What the workers, which are forked, are to compute: nothing large travels to them."""


def _compute(job: tuple[Callable[[Any], Any], int]) -> Any:
    function, number = job
    return function(CALLS[number])


def in_workers(workers: int) -> Callable[..., Iterable[Any]]:
    """``map`` in forked processes; here where there is one."""
    if workers == 1:
        return map

    def apply(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        CALLS[:] = list(values)
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            return pool.map(_compute, [(function, number) for number in range(len(CALLS))], 1)

    return apply


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--identities", type=int, default=1_000_000)
    parser.add_argument("--references", type=int, default=1, choices=range(1, REFERENCES + 1))
    parser.add_argument("--probes", type=int, default=2000)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=["full_ref"])
    parser.add_argument("--galleries", nargs="+", choices=GALLERIES, default=["source_included"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    options = parser.parse_args()
    environment.enter("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    import threadpoolctl
    import torch

    threadpoolctl.threadpool_limits(1)
    options.out.mkdir(parents=True, exist_ok=True)
    data = subjects(options.identities, options.references, options.probes)
    started = time.perf_counter()
    scores = attacks(data, list(product(options.protocols, options.galleries)))
    prepared = time.perf_counter() - started
    report: dict[str, Any] = {
        "identities": options.identities,
        "references": options.references,
        "probes": options.probes,
        "rankings": len(scores),
        "prepared_s": prepared,
    }
    print(f"{options.probes} probes, {options.identities} people with {options.references} "
          f"reference(s) each, {len(scores)} ranking(s), chosen in {prepared:.1f} s",
          flush=True)  # fmt: skip
    cells = len(scores) * options.probes * options.identities
    for workers in options.workers:
        torch.set_num_threads(workers)
        mine, ranks = timed(ranked, scores, in_workers(workers))
        peer, expected = timed(bare, data)
        wrong = int((ranks[-1] != expected).sum()) if options.references == 1 else 0
        if wrong > 0.001 * options.probes:
            raise SystemExit(f"{wrong} of {options.probes} ranks differ from torch's")
        ratio = len(scores) * peer / mine
        report |= {f"ours_s_{workers}": mine, f"bare_s_{workers}": peer}
        report[f"ours_to_bare_{workers}"] = ratio
        print(f"{workers} worker(s): ours {mine:.1f} s, {1e9 * mine * workers / cells:.1f} core-ns "
              f"a probe, person and ranking; bare {peer:.1f} s for one ranking; rankings a second, "
              f"ours : bare {ratio:.2f}", flush=True)  # fmt: skip
    own, _ = timed(read, scores)
    report["measures_s"] = own
    print(f"the other measures read these scores in {own:.1f} s on one core, "
          f"{1e9 * own / cells:.1f} ns a probe, person and ranking", flush=True)  # fmt: skip
    first, last = options.workers[0], options.workers[-1]
    report["speed_up"] = report[f"ours_s_{first}"] / report[f"ours_s_{last}"]
    report["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"from {first} to {last} workers: {report['speed_up']:.2f} times; most memory of this "
        f"process: {report['peak_gib']:.1f} GiB"
    )
    path = options.out / "ranking.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(path)


if __name__ == "__main__":
    main()
