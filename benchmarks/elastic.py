"""Runs an audit on a cluster that begins with no CPU at all, and tells which nodes came and went.

    python benchmarks/elastic.py [--nodes 2] [--idle 20] [--out DIR]

The head has no CPUs; Ray's autoscaler starts worker nodes with its provider for tests, whose nodes
are processes of this machine, and ends those that are idle. Then the same audit runs on a local
cluster. Tables that no training matters for must be the same byte by byte, and all their measures
the same. Of a trained attacker the rank-1 rates must agree within one image: its training is
rounded differently where workers join, which may swap two ranks.

Runs itself in a process namespace of its own (``unshare`` of util-linux), since the provider's
nodes outlive their head. Writes ``elastic.json``: the number of worker nodes at each moment that it
changed, and what differed. Exit status 1: no node came, one stayed, or something differed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from faulting.audit import Driver, environment, kept_files, measures
from faulting.cluster import ElasticHead

PATIENCE = 1500.0
"""Seconds that an audit may take, and idle nodes to go away."""
ELASTIC = (
    "engine.actors=1",
    "engine.max_actors=3",
    "engine.train_workers=1",
    "engine.max_train_workers=2",
)
PRECISE = (
    "attackers.clean_trained.training.precision=fp32",
    "attackers.clean_trained.training.learning_rate=1e-4",
)
"""What keeps the rounding of a training small."""
ONE_IMAGE = 1 / 24
"""Of the audit's 24 probes."""
TRAINED = "_trained"
INSIDE = "--inside"


class Census:
    """Counts the worker nodes of a cluster twice a second; each change is one row of ``seen``.

    Attributes:
        seen: seconds since the beginning, worker nodes.
    """

    def __init__(self, address: str) -> None:
        import ray

        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
        self.nodes = ray.nodes
        self.began = time.monotonic()
        self.seen: list[tuple[float, int]] = [(0.0, 0)]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            alive = [node for node in self.nodes() if node["Alive"]]
            if len(alive) - 1 != self.seen[-1][1]:
                self.seen.append((round(time.monotonic() - self.began, 1), len(alive) - 1))
                print(f"{self.seen[-1][0]:6.1f} s: {self.seen[-1][1]} worker nodes", flush=True)
            time.sleep(0.5)

    @property
    def now(self) -> int:
        """Worker nodes at this moment."""
        return self.seen[-1][1]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes at most, of two CPUs")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds until a node is idle")
    parser.add_argument("--out", type=Path, default=Path("runs/elastic"))
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def grown(folder: Path, options: argparse.Namespace) -> tuple[Driver, Census]:
    """An audit on the elastic cluster that has ended, after its worker nodes have gone."""
    os.environ.update(environment())
    head = ElasticHead(folder / "ray", environment(), options.nodes, options.idle)
    census = Census(head.address)
    driver = Driver(folder / "elastic", head.address, environment(), *ELASTIC, *PRECISE)
    if status := driver.finish(PATIENCE):
        sys.exit(f"the audit on the elastic cluster ended with {status}; see {driver.folder}/log")
    print(f"{time.monotonic() - census.began:6.1f} s: the audit has finished", flush=True)
    deadline = time.monotonic() + PATIENCE
    while census.now and time.monotonic() < deadline:
        time.sleep(0.5)
    return driver, census


def compared(elastic: Path, fixed: Path) -> list[str]:
    """What differs: tables without a training in them by their bytes, measures by their values."""
    tables = [
        {name: content for name, content in kept_files(folder).items() if TRAINED not in name}
        for folder in (elastic, fixed)
    ]
    wrong = sorted({name for name, _ in tables[0].items() ^ tables[1].items()})
    wrong = [name for name in wrong if name != "out/results.parquet"]
    measured, expected = measures(elastic), measures(fixed)
    rows = [row for row in sorted(measured.keys() | expected.keys()) if is_compared(row)]
    return wrong + [
        f"{' '.join(row)}: {measured.get(row)} instead of {expected.get(row)}"
        for row in rows
        if row not in measured
        or row not in expected
        or not alike(measured[row], expected[row], ONE_IMAGE if TRAINED in row[1] else 0.0)
    ]


def is_compared(row: tuple[str, ...]) -> bool:
    """Whether the measure of a row has to agree; see :func:`faulting.audit.measures`."""
    return TRAINED not in row[1] or row[-3:] == ("image", "all", "rank_1")


def alike(value: float | None, other: float | None, tolerance: float) -> bool:
    """Whether two values of a measure agree; None is one that could not be measured."""
    if value is None or other is None:
        return value is other
    return abs(value - other) <= tolerance + 1e-9


def inside(options: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(prefix="elastic-"))
    driver, census = grown(folder, options)
    fixed = Driver(folder / "fixed", "local", environment(), *PRECISE)
    if status := fixed.finish(PATIENCE):
        sys.exit(f"the audit on a local cluster ended with {status}; see {fixed.folder}/log")
    wrong = compared(driver.folder, fixed.folder)
    report = {"nodes": census.seen, "files": len(kept_files(driver.folder)), "differences": wrong}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "elastic.json").write_text(json.dumps(report, indent=1) + "\n")
    most = max(count for _, count in census.seen)
    print(f"worker nodes: at most {most}, in the end {census.now}; {len(wrong)} differences")
    print("\n".join(wrong))
    if wrong or not most or census.now:
        sys.exit(1)


def main() -> None:
    options = parsed()
    if options.inside:
        return inside(options)
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid():
        command.append("--map-root-user")
    sys.exit(subprocess.call([*command, sys.executable, *sys.argv, INSIDE]))


if __name__ == "__main__":
    main()
