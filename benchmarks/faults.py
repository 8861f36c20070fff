"""Kills parts of a cluster while an audit runs, and compares what it finds with an undisturbed run.

    python benchmarks/faults.py [--kills 4] [--seed 0] [--targets driver node ...] [--together]
        [--out DIR]

Starts a head and two worker nodes on this machine and runs a small audit undisturbed; then one in
which tasks that anonymize, embed and train are killed, one in which whole worker nodes are, and one
whose driver is, or one that bears all of that (``--together``): with SIGKILL, in stages and at
moments drawn with the seed. A killed node is replaced by another, a killed driver is started again.
Every image, embedding, encoder and table must be the same, byte by byte.

Writes ``faults.json`` and the table ``faults.md``. Exit status 1: something differed, or stages
ended before enough processes could be killed.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

from faulting.audit import Driver, environment, kept_files
from faulting.cluster import Cluster
from faulting.kills import PATIENCE, TARGETS, Disturbance, Kill

ROUNDS = 6
"""Audits of the same targets at most, until each has been killed often enough."""
TOGETHER = (("anonymizer", "embedding", "training"), ("node",), ("driver",))
"""Targets that one audit has to bear; with ``--together`` it bears all."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=4, help="of each target, at least")
    parser.add_argument("--seed", type=int, default=0, help="of stages and moments")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--together", action="store_true", help="all targets in one audit")
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes")
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    return parser.parse_args()


def table(kills: list[Kill]) -> str:
    """The kills as a table in Markdown."""
    lines = ["| # | killed | in stage | after | the audit's tables |", "|--:|---|---|--:|---|"]
    lines += [
        f"| {number} | {kill.target} | {kill.stage} | {kill.seconds:.1f} s | {kill.result} |"
        for number, kill in enumerate(kills, 1)
    ]
    return "\n".join(lines)


def disturbed(cluster: Cluster, options: argparse.Namespace, folder: Path) -> list[Kill]:
    """The kills of all targets, after an undisturbed run."""
    start = partial(Driver, address=cluster.address, environment=environment())
    undisturbed = start(folder / "undisturbed")
    status = undisturbed.finish(PATIENCE)
    if status:
        sys.exit(f"the undisturbed audit failed; see {undisturbed.folder}/log")
    expected = kept_files(undisturbed.folder)
    seconds = ", ".join(f"{name} {took:.1f} s" for name, took in undisturbed.seconds.items())
    print(f"undisturbed: {len(expected)} files; {seconds}", flush=True)
    disturbance = Disturbance(cluster, start, undisturbed.seconds, expected)
    kills: list[Kill] = []
    for targets in [tuple(TARGETS)] if options.together else TOGETHER:
        scenarios = [name for name in targets if name in options.targets]
        for number in range(ROUNDS):
            done = Counter(kill.target for kill in kills)
            wanted = {name: options.kills - done[TARGETS[name].name] for name in scenarios}
            wanted = {name: count for name, count in wanted.items() if count > 0}
            if not wanted:
                break
            where = folder / f"{'-'.join(wanted)}-{number}"
            chance = random.Random(f"{options.seed} {where.name}")
            for kill in disturbance.run(where, wanted, chance):
                print(kill, flush=True)
                kills.append(kill)
    return kills


def main() -> None:
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    cluster = Cluster(folder / "ray", environment(), options.nodes)
    try:
        kills = disturbed(cluster, options, folder)
    finally:
        cluster.stop()
    text = table(kills)
    print(text)
    (options.out / "faults.md").write_text(text + "\n")
    report = {"seed": options.seed, "kills": [asdict(kill) for kill in kills]}
    (options.out / "faults.json").write_text(json.dumps(report, indent=1) + "\n")
    wanted = options.kills * len(options.targets)
    failed = [kill for kill in kills if kill.result != "identical"]
    if failed or len(kills) < wanted:
        sys.exit(f"{len(failed)} kills did harm; {len(kills)} of {wanted} were done; see {folder}")


if __name__ == "__main__":
    main()
