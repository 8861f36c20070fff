"""Where the time of an audit goes: each stage's work beside its wall time, and what was start-up.

    python benchmarks/audit_time.py --out DIR [--repository REPOSITORY] [override ...]
    python benchmarks/audit_time.py --compare BEFORE AFTER

The first form runs ``jobs/full_audit.py`` of a checkout with a cache of its own and prints a
table; ``DIR/times.json`` keeps it. ``--again`` uses the cache that is there: what a second audit
takes. ``--cache-key`` is the setting of the cache's folder, which older commits called otherwise.
The second form lays two such folders side by side, for example those of two commits::

    git worktree add ../before eb4deac
    python benchmarks/audit_time.py --out runs/before --repository ../before --cache-key work
    python benchmarks/audit_time.py --out runs/after
    python benchmarks/audit_time.py --compare runs/before runs/after

- *wall*: from a stage's first line in the log to its last.
- *work*: CPU-seconds (user and system) of the processes that bear the stage's kind in their title
  while it runs, from ``/proc`` twice a second. Stages of one kind that run at once share it evenly.
- *start-up*: CPU-seconds of workers before and between their tasks: Python, Ray, imports.
- *ideal*: all work on all cores without start-up and without waiting.

CPU-seconds hardly depend on what else runs on the machine; the wall time does, so that the share
of other processes stands beside it. Needs Linux.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.5
TICKS = os.sysconf("SC_CLK_TCK")
KINDS = {
    "read": r"\(load\)",
    "find near-duplicates": r"_hashed",
    "anonymize": r"Anonymize|\((encode|merge|features|label)\)|HashShuffle",
    "swap": r"Anonymize|swap|\((encode|label)\)|HashShuffle",
    "embed": r"Embed|\((anonymized_rows|original|views)\)",
    "train": r"[Tt]rain|Synchronization|PlacementGroupCleaner",
    "measure utility": r"Utility|\(read\)",
    "compare pixels": r"compare",
}
"""Titles of the processes that work for a stage, by the beginning of its own title."""
STARTED = re.compile(r"^(.*\S) \.\.\.$")
ENDED = re.compile(r"^(.*): \d+ rows, ([\d.]+) s$")


@dataclass
class StageUse:
    """What one stage took.

    Attributes:
        title: as in the log.
        start, wall: seconds since the start of the audit, and until the stage's end.
        seconds: of CPU.
    """

    title: str
    start: float
    wall: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class AuditTime:
    """What an audit took.

    Attributes:
        stages: in the order of their start.
        wall: seconds.
        driver, ray, startup, tasks: CPU-seconds of the driver, of Ray's services, of workers
            outside of tasks, and of tasks of no stage.
        workers: processes that Ray started for work.
        others: CPU-seconds that other processes of the machine took meanwhile.
        cores: of the machine.
    """

    stages: list[StageUse]
    wall: float
    driver: float
    ray: float
    startup: float
    tasks: float
    workers: int
    others: float
    cores: int

    @property
    def useful(self) -> float:
        """CPU-seconds without start-up and Ray's services."""
        return sum(stage.seconds for stage in self.stages) + self.driver + self.tasks

    @property
    def total(self) -> float:
        """All CPU-seconds."""
        return self.useful + self.ray + self.startup

    @property
    def ideal(self) -> float:
        """Seconds that the work alone would take on all cores."""
        return self.useful / self.cores


class ProcessUse:
    """CPU-seconds of a process and its descendants, by process and title.

    Args:
        root: process id.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.totals: dict[tuple[int, int], float] = {}

    def sample(self) -> list[tuple[str, float]]:
        """Title and CPU-seconds since the last sample of every process that is there."""
        parents, rows = {}, {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            pid = int(folder.name)
            parents[pid] = int(status[1])
            seconds = (int(status[11]) + int(status[12])) / TICKS
            rows[pid] = (int(status[19]), title, seconds)
        used = []
        for pid, (born, title, seconds) in rows.items():
            if (pid, born) not in self.totals and not self._descends(pid, parents):
                continue
            before = self.totals.get((pid, born), 0.0)
            self.totals[pid, born] = seconds
            used.append((title, seconds - before))
        return used

    def _descends(self, pid: int, parents: Mapping[int, int]) -> bool:
        while pid and pid != self.root:
            pid = parents.get(pid, 0)
        return pid == self.root


def kind_of(title: str, running: Sequence[StageUse]) -> list[StageUse]:
    """The running stages that a process of this title works for."""
    return [
        stage
        for stage in running
        for beginning, pattern in KINDS.items()
        if stage.title.startswith(beginning) and re.search(pattern, title)
    ]


def measure(
    out: Path, repository: Path, overrides: Sequence[str], cache_key: str = "cache_dir"
) -> AuditTime:
    """Run an audit and watch it."""
    command = [
        sys.executable,
        "jobs/full_audit.py",
        f"output={out}/report",
        f"{cache_key}={out}/cache",
    ]
    command += [f"tracking.uri=sqlite:///{out}/mlflow.db", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    busy_before, began = _busy(), time.monotonic()
    process = subprocess.Popen(
        command, cwd=repository, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    stages: list[StageUse] = []
    running: dict[str, StageUse] = {}

    def read() -> None:
        assert process.stdout is not None
        with (out / "log").open("w", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                now = time.monotonic() - began
                if match := STARTED.match(line):
                    running[match[1]] = StageUse(match[1], now)
                    stages.append(running[match[1]])
                elif (match := ENDED.match(line)) and match[1] in running:
                    stage = running.pop(match[1])
                    stage.wall = now - stage.start

    reader = threading.Thread(target=read)
    reader.start()
    use, sums, recent = ProcessUse(process.pid), Counter[str](), list[StageUse]()
    workers: set[tuple[int, int]] = set()
    while process.poll() is None:
        here = list(running.values())
        for title, seconds in use.sample():
            # A stage's last share is seen after its end.
            served = kind_of(title, here) or kind_of(title, recent)
            for stage in served:
                stage.seconds += seconds / len(served)
            if not served:
                sums[_part(title)] += seconds
        recent = here or recent
        workers |= _workers(use.totals)
        time.sleep(POLL)
    reader.join()
    if process.returncode not in (0, 3):
        raise SystemExit(f"the audit ended with status {process.returncode}; see {out}/log")
    own = sum(sums.values()) + sum(stage.seconds for stage in stages)
    return AuditTime(
        stages, time.monotonic() - began, sums["driver"], sums["ray"], sums["startup"],
        sums["tasks"], len(workers), max(0.0, _busy() - busy_before - own), os.cpu_count() or 1,
    )  # fmt: skip


def _workers(processes: Mapping[tuple[int, int], float]) -> set[tuple[int, int]]:
    """Those of the processes that are Ray's workers."""
    workers = set()
    for pid, born in processes:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") or b"default_worker.py" in title:
            workers.add((pid, born))
    return workers


def _part(title: str) -> str:
    """Which part of an audit a process of this title is, beside its stages."""
    if "full_audit.py" in title:
        return "driver"
    if title.startswith("ray::IDLE") or "_worker.py" in title:
        return "startup"
    if re.match(r"ray::(_StatsActor|_Autoscaling|Dashboard|RuntimeEnv|Actor)", title):
        return "ray"
    return "tasks" if title.startswith("ray::") else "ray"


def _busy() -> float:
    """CPU-seconds that the machine has worked since its start."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICKS


def report(taken: AuditTime) -> str:
    """The table of an audit."""
    lines = [f"{'stage':<44}{'start':>8}{'wall, s':>9}{'work, s':>9}"]
    lines += [
        f"{stage.title[:43]:<44}{stage.start:8.1f}{stage.wall:9.1f}{stage.seconds:9.1f}"
        for stage in taken.stages
    ]
    for name in ("driver", "tasks", "startup", "ray"):
        lines.append(f"{name:<61}{getattr(taken, name):9.1f}")
    lines += [
        f"{taken.workers} worker processes; {taken.total:.0f} CPU-seconds, of which "
        f"{taken.useful:.0f} are work",
        f"wall {taken.wall:.0f} s on {taken.cores} cores, of which other processes took "
        f"{taken.others:.0f} CPU-seconds; ideal {taken.ideal:.0f} s, of which the wall time is "
        f"{taken.wall / taken.ideal:.2f} times",
    ]
    return "\n".join(lines)


def compare(before: AuditTime, after: AuditTime) -> str:
    """Two audits side by side."""
    lines = [f"{'CPU-seconds':<44}{'before':>9}{'after':>9}{'ratio':>8}"]
    for name in ("useful", "driver", "startup", "ray", "total", "workers", "wall"):
        first, second = float(getattr(before, name)), float(getattr(after, name))
        ratio = f"{second / first:8.2f}" if first else ""
        lines.append(f"{name:<44}{first:9.1f}{second:9.1f}{ratio}")
    return "\n".join(lines)


def load(folder: Path) -> AuditTime:
    """What :func:`measure` has kept in a folder."""
    record = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    return AuditTime(**{**record, "stages": [StageUse(**stage) for stage in record["stages"]]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder of the audit and its times")
    parser.add_argument("--repository", type=Path, default=ROOT, help="checkout to run")
    parser.add_argument("--again", action="store_true", help="with the cache that is there")
    parser.add_argument("--cache-key", default="cache_dir", help="setting of the cache's folder")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    arguments, overrides = parser.parse_known_args()
    if arguments.compare:
        print(compare(*map(load, arguments.compare)))
        return
    if arguments.out is None:
        parser.error("--out is needed, or --compare")
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if (out / "cache").exists() and not arguments.again:
        parser.error(f"{out}/cache is there already; give --again or another folder")
    taken = measure(out, arguments.repository.resolve(), overrides, arguments.cache_key)
    (out / "times.json").write_text(json.dumps(asdict(taken)), encoding="utf-8")
    print(report(taken))


if __name__ == "__main__":
    main()
