"""Memory and processor time of a process and everything below it, read from Linux's ``/proc``."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
FIELDS = {"Rss": "rss", "Pss": "pss", "Pss_Anon": "own", "Pss_Shmem": "store", "Pss_File": "files"}


@dataclass(frozen=True)
class Memory:
    """Memory of a tree of processes at one moment, in MiB.

    Attributes:
        rss: sum of the resident sets; what processes share counts once for each of them.
        pss: the same, with what is shared divided among those who share it.
        own: part of ``pss`` that belongs to one process alone: heaps and stacks.
        store: part of ``pss`` in shared memory, which is Ray's object store.
        files: part of ``pss`` in mapped files: programs and libraries. Other programs on the
            machine that map the same files make it smaller.
    """

    rss: float = 0.0
    pss: float = 0.0
    own: float = 0.0
    store: float = 0.0
    files: float = 0.0

    def peak(self, other: "Memory") -> "Memory":
        """The larger value of each kind."""
        return Memory(*(max(getattr(self, k), getattr(other, k)) for k in FIELDS.values()))


class Tree:
    """The processes below one, however they come and go.

    Args:
        root: id of the process at the top.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self._seconds: dict[tuple[int, str], float] = {}

    def sample(self) -> Memory:
        """Memory now; the processor time used so far is remembered."""
        total = dict.fromkeys(FIELDS.values(), 0.0)
        for pid in self._members():
            try:
                lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(":")
                if name in FIELDS:
                    total[FIELDS[name]] += int(value.split()[0]) / 1024
        return Memory(**total)

    def cpu_seconds(self) -> float:
        """Processor time of all that was ever seen below the root, as of the last sample."""
        return sum(self._seconds.values())

    def _members(self) -> list[int]:
        children: dict[int, list[int]] = defaultdict(list)
        used: dict[int, tuple[str, float]] = {}
        for entry in PROC.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            _, parent, *formatting = stat.rpartition(")")[2].split()
            user, system, started = formatting[9], formatting[10], formatting[17]
            pid = int(entry.name)
            children[int(parent)].append(pid)
            used[pid] = started, (int(user) + int(system)) / TICKS
        anonymizers = [self.root]
        for pid in anonymizers:
            anonymizers += children[pid]
        for pid in anonymizers:
            if pid in used:
                started, seconds = used[pid]
                self._seconds[pid, started] = seconds
        return anonymizers
