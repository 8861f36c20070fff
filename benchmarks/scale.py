"""Memory and time of an audit's stages at several numbers of images.

    python benchmarks/scale.py [--quick] [--anonymizers no_op cldm] [--images 2000 20000]

Synthetic people are drawn, anonymized, embedded and ranked, at every size in processes of their
own, on Ray's default settings for a laptop. Every second the memory of these processes is
added up: *RSS* counts shared pages once for each process, *PSS* once in all.

- *memory*: the peak at the largest number of images against that at the smallest; it should
  stay flat (goal: at most 1.2).
- *time*: the same ratio of the times, divided by that of the images (goal: at most 1.05). Where
  other work shares the machine, processor seconds tell more than those of the clock.
- *--distinct 10*: drawing people takes more time than handling them. All others look like one of so
  few, but for noise, which leaves the stage of the images without its costs and the others as they
  are.
- *--steps 1*: of the CLDM, saves time and leaves the memory as it is.
- *resume*: list the images, split and hash them, and read the tables that are there (goal: 30 s).
- *an image costs*: what the further images of the largest size took, per image; starting
  processes and loading models is not in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scaling.processes import Memory, Tree
from scaling.table import goals, head, rows, summary

HERE = Path(__file__).resolve().parent
INTERVAL = 1.0
QUICK = (300, 1500)


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Run the stages once; adds processor seconds and the memory of each stage to what they say."""
    with tempfile.TemporaryDirectory(prefix="scale") as folder:
        command = [sys.executable, str(HERE / "scaling" / "stages.py")]
        process = subprocess.Popen(
            [*command, json.dumps({**settings, "folder": folder})],
            env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        tree, stage, done = Tree(process.pid), ["start"], threading.Event()
        memory: dict[str, Memory] = {}
        cpu: dict[str, float] = {}

        def watch() -> None:
            while not done.wait(INTERVAL):
                name, before = stage[0], tree.cpu_seconds()
                memory[name] = memory.get(name, Memory()).peak(tree.sample())
                cpu[name] = cpu.get(name, 0.0) + tree.cpu_seconds() - before

        watcher = threading.Thread(target=watch)
        watcher.start()
        record: dict[str, Any] = {}
        try:
            for line in process.stdout or ():
                message = json.loads(line)
                record, stage[0] = (
                    (message, "end") if "stages" in message else ({}, message["begin"])
                )
        finally:
            done.set()
            watcher.join()
            process.kill()
        if not record:
            raise SystemExit(f"the stages failed: {settings}")
    for name, values in record["stages"].items():
        values["cpu"] = cpu.get(name, 0.0)
        values["memory"] = vars(memory.get(name, Memory()))
    whole = Memory()
    for part in memory.values():
        whole = whole.peak(part)
    return {**settings, **record, "memory": vars(whole)}


def environment() -> dict[str, str]:
    """That of the measured processes: no telemetry, no waiting for less patient workers."""
    fixed = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    fixed["RAY_worker_niceness"] = "0"
    return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ, **fixed}


def show(lines: Iterable[str]) -> None:
    """Print lines at once."""
    for line in lines:
        print(line, flush=True)


def main() -> None:
    """Measure every anonymizer at every size, print tables and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--anonymizers", nargs="+", default=["no_op", "cldm"])
    parser.add_argument("--images", nargs="+", type=int, default=[2000, 20000])
    parser.add_argument("--attacker", default="pretrained")
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    parser.add_argument("--distinct", type=int, help="people drawn; the others look like them")
    parser.add_argument("--steps", type=int, default=8, help="in which the CLDM anonymizes")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} images")
    parser.add_argument("--out", type=Path, help="folder for scale.json")
    arguments = parser.parse_args()
    sizes = sorted(QUICK if arguments.quick else arguments.images)
    report = {}
    for name in arguments.anonymizers:
        settings = {
            "anonymizer": name,
            "attacker": arguments.attacker,
            "size": arguments.size,
            "distinct": arguments.distinct,
            "steps": arguments.steps,
            "engine": {"actors": arguments.actors},
        }
        show(head(name, arguments.attacker))
        runs = []
        for size in sizes:
            runs.append(measure({**settings, "images": size}))
            show(rows(runs[-1]))
        show(summary(runs[0], runs[-1]) if len(runs) > 1 else [])
        report[name] = {"runs": runs, **goals(runs[0], runs[-1])}
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "scale.json").write_text(json.dumps(report, indent=1), "utf-8")
    print(json.dumps({name: goals(r["runs"][0], r["runs"][-1]) for name, r in report.items()}))


if __name__ == "__main__":
    main()
