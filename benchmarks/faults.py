"""Kills parts of a cluster while an audit runs, and compares what it finds with an undisturbed run.

    python benchmarks/faults.py [--kills 4] [--seed 0] [--targets driver node ...] [--out DIR]

Starts a head and two worker nodes on this machine, runs a small audit undisturbed, and then once
for each target: an anonymizer actor, an embedding actor, a training worker, a whole worker node and
the driver, each killed with SIGKILL at moments drawn with the seed; a killed node is replaced by
another, a killed driver is started again. Every picture, embedding, encoder and table must be the
same, byte by byte.

Writes ``faults.json`` and the table ``faults.md``. Exit status 1: something differed, or stages
ended before enough processes could be killed.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

from faulting.audit import Driver, environment, kept_files
from faulting.cluster import Cluster
from faulting.kills import PATIENCE, TARGETS, Disturbance, Kill

ROUNDS = 3
"""Audits of one target at most, until it has been killed often enough."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=4, help="of each target, at least")
    parser.add_argument("--seed", type=int, default=0, help="of stages and moments")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
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
    kills: list[Kill] = []
    for name in options.targets:
        own: list[Kill] = []
        for number in range(ROUNDS):
            disturbance = Disturbance(
                cluster, TARGETS[name], start, undisturbed.seconds, expected,
                random.Random(f"{options.seed} {name} {number}"),
            )  # fmt: skip
            own += disturbance.run(folder / f"{name}-{number}", options.kills - len(own))
            if len(own) >= options.kills:
                break
        for kill in own:
            print(f"{kill.target}: {kill.stage}, {kill.seconds:.1f} s: {kill.result}", flush=True)
        kills += own
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
