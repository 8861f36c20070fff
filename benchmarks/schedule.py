"""A simulated schedule of an audit: stages, nodes, spot losses. Takes no cluster, and a minute.

    python benchmarks/schedule.py [--quick] [--nodes 100] [--cores 8] [--losses 0.05]

A stage is a number of equal blocks of work, each a task of one core. It begins when the stages
before it have ended. A free core takes the next block of the first stage that has one; the driver
hands out one block after the other. A stage *of the driver* runs on node 0, the head. Every core
first starts a process. A node other than the head is lost after a random, exponential time: its
blocks in progress are lost and done again, and another node takes its place after a delay and
starts its processes anew. What was written is kept.

The first table lays the simulation beside what was measured on two cores. The others are computed
from constants, of which each says whether it was measured (with the command) or is assumed.
"""

import argparse
import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

BLOCK = 256
"""Images of a block: the default of ``engine.block_rows``."""
LARGE_BLOCK = 4096
"""Images of a larger block, ``engine.block_rows=4096``: the driver hands out 16 times fewer."""
ROWS = (
    (200_000, BLOCK),
    (10_000_000, BLOCK),
    (10_000_000, LARGE_BLOCK),
    (1_000_000_000, LARGE_BLOCK),
)
"""Releases that are simulated: images, and images of a block."""

# Measured, CPU-seconds, on two cores. Where: `audit_time` is `python benchmarks/audit_time.py` on
# the default audit (377 s), `driver` `python benchmarks/driver.py`, `scaling` docs/scaling.md.
ANONYMIZE = 49.6 / 1500
"""An image by ``cldm_canny``, 64 pixels, 5 steps, all included (audit_time)."""
READ = 0.0125
"""An image read, cropped and encoded, all included: 10 to 15 ms (scaling)."""
EMBED = 57.9 / 5082
"""An image by ``pretrained`` (audit_time)."""
LIST = 7e-6
"""An image listed and split, in the driver (scaling)."""
PAIR = 2.5e-9
"""The search for near-duplicates, over the square of the images (driver)."""
HAND_OUT = 0.027
"""A block handed out and taken back by the driver: 25 and 29 ms, on a busy machine (driver)."""
START = 40.8 / 13
"""A worker process until its first block (audit_time)."""
RANK = 0.0044 / 20_000
"""A probe ranked in nine protocols and galleries, over the number of references (scaling)."""

# Assumed.
REPLACE = 180.0
"""Seconds until another node stands in the place of one that was lost."""
EVALUATED = 20_000
"""Images of evaluated people: the audit's sample, whatever else is anonymized."""


@dataclass(frozen=True)
class Stage:
    """Equal pieces of work.

    Attributes:
        name: of the stage.
        blocks: tasks that it consists of, >= 1.
        seconds: of CPU, of each.
        after: names of the stages that it waits for; they stand before it.
        on_head: whether the driver does it.
    """

    name: str
    blocks: int
    seconds: float
    after: tuple[str, ...] = ()
    on_head: bool = False

    @property
    def cpu_seconds(self) -> float:
        """CPU-seconds of all blocks."""
        return self.blocks * self.seconds


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal cores.

    Attributes:
        nodes, cores: number of nodes, and of cores of each.
        start: seconds of a process until its first block, once for each core of a node.
        hand_out: seconds of the driver for each block, one after the other.
        losses: of a node in an hour, on the mean; node 0 is never lost.
        replace: seconds until a lost node has a successor.
        seed: of the losses.
        lost_at: times of losses as ``(seconds, node)``, in place of random ones; of a node once.
    """

    nodes: int
    cores: int
    start: float = 0.0
    hand_out: float = 0.0
    losses: float = 0.0
    replace: float = REPLACE
    seed: int = 0
    lost_at: Sequence[tuple[float, int]] = ()


@dataclass
class Outcome:
    """What a simulated schedule took.

    Attributes:
        wall: seconds.
        repeated: CPU-seconds of blocks that were lost.
        losses: of nodes.
        ends: of each stage, in seconds.
    """

    wall: float = 0.0
    repeated: float = 0.0
    losses: int = 0
    ends: dict[str, float] = field(default_factory=dict)


class Schedule:
    """A schedule while it runs.

    Args:
        stages: each stands after those that it waits for.
        cluster: that does them.
    """

    def __init__(self, stages: Sequence[Stage], cluster: Cluster) -> None:
        self.stages = list(stages)
        self.cluster = cluster
        self.outcome = Outcome()
        places = {stage.name: number for number, stage in enumerate(stages)}
        self._waiting = [len(set(stage.after)) for stage in stages]
        self._next: list[list[int]] = [[] for _ in stages]
        for number, stage in enumerate(stages):
            for name in set(stage.after):
                if places[name] >= number:
                    raise ValueError(f"{stage.name} stands before {name}, which it waits for")
                self._next[places[name]].append(number)
        self._to_start = [stage.blocks for stage in stages]
        self._to_end = [stage.blocks for stage in stages]
        self._open = [number for number, count in enumerate(self._waiting) if not count]
        self._events: list[tuple[float, int, str, int, int, int]] = []
        self._count = 0
        self._rng = np.random.default_rng(cluster.seed)
        self._life = [0] * cluster.nodes
        self._cold = [cluster.cores] * cluster.nodes
        self._busy: list[dict[int, tuple[int, float]]] = [{} for _ in range(cluster.nodes)]
        self._head_idle = cluster.cores
        self._driver_free = 0.0
        self._idle = deque(
            (node, 0) for node in range(1, cluster.nodes) for _ in range(cluster.cores)
        )

    def run(self) -> Outcome:
        """Simulate until the last block has ended."""
        for time, node in self.cluster.lost_at:
            self._push(time, "lost", node)
        for node in range(1, self.cluster.nodes):
            self._draw_loss(0.0, node)
        self._assign(0.0)
        while any(self._to_end):
            time, key, kind, node, life, stage = heapq.heappop(self._events)
            if kind == "returned":
                self._cold[node] = self.cluster.cores
                self._idle.extend([(node, self._life[node])] * self.cluster.cores)
                self._draw_loss(time, node)
            elif life == self._life[node]:
                if kind == "lost":
                    self._lose(time, node)
                else:
                    self._end(time, key, node, stage)
            if not self._events or self._events[0][0] > time:
                self._assign(time)
            self.outcome.wall = time
        return self.outcome

    def _push(self, time: float, kind: str, node: int, stage: int = -1) -> int:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, kind, node, self._life[node], stage))
        return self._count

    def _draw_loss(self, time: float, node: int) -> None:
        if self.cluster.losses:
            mean = 3600 / self.cluster.losses
            self._push(time + self._rng.exponential(mean), "lost", node)

    def _lose(self, time: float, node: int) -> None:
        """Blocks in progress are to be done again, and idle cores are none any more."""
        self._life[node] += 1
        self.outcome.losses += 1
        for stage, begun in self._busy[node].values():
            self._to_start[stage] += 1
            self.outcome.repeated += max(0.0, time - begun)
        self._busy[node].clear()
        self._push(time + self.cluster.replace, "returned", node)

    def _end(self, time: float, key: int, node: int, stage: int) -> None:
        """A block is done; with the last one of a stage others may begin."""
        del self._busy[node][key]
        if node:
            self._idle.append((node, self._life[node]))
        else:
            self._head_idle += 1
        self._to_end[stage] -= 1
        if self._to_end[stage]:
            return
        self.outcome.ends[self.stages[stage].name] = time
        self._open.remove(stage)
        for number in self._next[stage]:
            self._waiting[number] -= 1
            if not self._waiting[number]:
                self._open = sorted([*self._open, number])

    def _assign(self, time: float) -> None:
        """Give blocks of the open stages to the idle cores."""
        for stage in self._open:
            spec = self.stages[stage]
            while self._to_start[stage]:
                node = 0 if spec.on_head and self._head_idle else None
                if not spec.on_head:
                    node = self._idle_node()
                if node is None:
                    break
                if not node:
                    self._head_idle -= 1
                starting = self.cluster.start if self._cold[node] else 0.0
                self._cold[node] = max(0, self._cold[node] - 1)
                self._to_start[stage] -= 1
                begun = time
                if not spec.on_head:
                    begun = self._driver_free = max(time, self._driver_free) + self.cluster.hand_out
                key = self._push(begun + starting + spec.seconds, "ended", node, stage)
                self._busy[node][key] = stage, begun

    def _idle_node(self) -> int | None:
        """A node with an idle core; the head last, which has the driver's work to do."""
        while self._idle:
            node, life = self._idle.popleft()
            if life == self._life[node]:
                return node
        return 0 if self._head_idle else None


def simulate(stages: Sequence[Stage], cluster: Cluster) -> Outcome:
    """The schedule of some stages on a cluster.

    >>> simulate([Stage("read", 4, 3.0)], Cluster(nodes=1, cores=2)).wall
    6.0

    Args:
        stages: each stands after those that it waits for.
        cluster: that does them.

    Raises:
        ValueError: a stage stands before one that it waits for.
    """
    return Schedule(stages, cluster).run()


def default_audit() -> list[Stage]:
    """The default audit, 1,500 images of 250 people, with the work that audit_time measured.

    Its stages of a kind that wait for the same are one here. The work of the driver is divided: its
    start until the first stage, and what follows the last one, are measured on the clock; the
    rest runs beside the stages.
    """
    anonymized = ("baselines", "cldm")
    learnt = ("train clean", "train condition", "train adaptive")
    embedded = ("embed pretrained", "embed clean", "embed condition", "embed adaptive")
    return [
        Stage("start", 1, 21.4, on_head=True),
        Stage("processes", 13, 40.8 / 13, ("start",)),
        Stage("Ray and driver, beside", 24, (19.9 + 79.2 - 21.4 - 31.0) / 24, ("start",)),
        Stage("read", 24, 29.9 / 24, ("start",)),
        Stage("near-duplicates", 1, 0.3, ("read",)),
        Stage("baselines", 72, 6.1 / 72, ("near-duplicates",)),
        Stage("cldm", 72, 131.1 / 72, ("near-duplicates",)),
        Stage("pixels, utility", 56, 19.8 / 56, anonymized),
        Stage("embed pretrained", 80, 86.1 / 80, anonymized),
        Stage("train clean", 1, 21.2, ("near-duplicates",)),
        Stage("train condition", 1, 21.4, ("near-duplicates",)),
        Stage("train adaptive", 5, 109.8 / 5, anonymized),
        Stage("embed clean", 80, 22.9 / 80, ("train clean", *anonymized)),
        Stage("embed condition", 80, 14.2 / 80, ("train condition", *anonymized)),
        Stage("embed adaptive", 100, 19.4 / 100, ("train adaptive",)),
        Stage("swap", 24, 30.0 / 24, learnt),
        Stage("statistics", 30, 36.4 / 30, embedded),
        Stage("report", 1, 31.0, ("statistics", "swap", "pixels, utility"), on_head=True),
    ]


def release(images: int, block: int) -> list[Stage]:
    """All images read and anonymized by one setting, a sample of them attacked by ``pretrained``.

    The search for near-duplicates, which an audit of all images would make in the driver, is left
    out: :func:`tables` prints what it would take.

    Args:
        images: of the release.
        block: images of a block.
    """
    blocks = -(-images // block)
    evaluated = min(images, EVALUATED)
    stages = [
        Stage("list", 1, LIST * images, on_head=True),
        Stage("read", blocks, READ * block, ("list",)),
    ]
    attacked = -(-2 * evaluated // BLOCK)
    return [
        *stages,
        Stage("anonymize", blocks, ANONYMIZE * block, ("read",)),
        Stage("embed", attacked, EMBED * BLOCK, ("anonymize",)),
        Stage("rank", 9, RANK * evaluated**2 / 9, ("embed",)),
    ]


SCALE = (
    ("no_op, pretrained", 300, 1_500, "1.00, 0.64", (0.046, 0.0065, 0.099)),
    ("no_op, condition_match", 500, 5_000, "0.19, 0.21", (0.0125, 0.0065)),
    ("cldm_canny, 8 steps, condition_match", 200, 1_200, "0.43, 0.39", (0.0125, 0.125)),
    ("no_op, condition_match", 2_000, 20_000, "0.33, 0.35", (0.0125, 0.0065)),
)
"""Runs of benchmarks/scale.py: two numbers of images, the measured ratio of their times by the
images (clock, CPU), and CPU-seconds of an image in each stage but the ranking (scaling)."""


def scale_run(images: int, costs: Sequence[float]) -> list[Stage]:
    """A run of benchmarks/scale.py, with the start of processes and Ray that audit_time measured.

    Args:
        images: that are drawn, anonymized, embedded and ranked.
        costs: CPU-seconds of an image in each stage before the ranking.
    """
    blocks = -(-images // 64)
    # Through the two points that scaling has: 1.7 ms an image of 5,000, and 4.4 of 20,000.
    rank = 0.0008 + 0.18e-6 * images
    stages = [Stage("processes", 13, (40.8 + 19.9) / 13)]
    for number, cost in enumerate([*costs, rank]):
        stages.append(Stage(str(number), blocks, cost * images / blocks, (stages[-1].name,)))
    return stages


def duration(seconds: float) -> str:
    """A duration in words.

    >>> duration(90), duration(9000), duration(900000)
    ('90 s', '2.5 h', '10.4 days')
    """
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds < 2 * 365.25 * 86_400:
        return f"{seconds / 86_400:.1f} days"
    return f"{seconds / 365.25 / 86_400:.0f} years"


def measured_points() -> Iterator[str]:
    """The simulation beside what was measured on two cores."""
    yield f"{'two cores':<58}{'measured':>12}{'simulated':>10}"
    two = Cluster(1, 2)
    audit = default_audit()
    total = sum(stage.cpu_seconds for stage in audit)
    yield f"{'default audit, CPU-seconds':<58}{'688':>12}{total:10.0f}"
    yield f"{'default audit, wall, s':<58}{'377':>12}{simulate(audit, two).wall:10.0f}"
    yield "scale.py: ratio of the times of two runs by that of their images (measured: clock, CPU)"
    for name, fewer, more, measured, costs in SCALE:
        few, many = (simulate(scale_run(images, costs), two).wall for images in (fewer, more))
        what = f"  {name}: {fewer:,}, {more:,}"
        yield f"{what:<58}{measured:>12}{many / few * fewer / more:10.2f}"


def tables(
    nodes: int, cores: int, losses: float, releases: Sequence[tuple[int, int]]
) -> Iterator[str]:
    """Releases of several sizes on a cluster, without losses and with them.

    Args:
        nodes, cores: of the cluster.
        losses: of a node in an hour.
        releases: images, and images of a block.
    """
    yield from measured_points()
    yield ""
    yield f"{nodes} nodes of {cores} cores, computed; {losses:g} losses of a node an hour, assumed"
    yield "driver: handing out the blocks; search: for near-duplicates among all images, by one"
    yield "core of the driver, which is not in the wall"
    yield (
        f"{'images':>13}{'block':>7}{'CPU-hours':>11}{'driver':>9}{'wall':>9}{'with losses':>13}"
        f"{'nodes lost':>12}{'repeated, CPU-h':>17}{'search':>10}"
    )
    for images, block in releases:
        stages = release(images, block)
        hours = sum(stage.cpu_seconds for stage in stages) / 3600
        handed_out = sum(stage.blocks for stage in stages if not stage.on_head) * HAND_OUT
        calm = simulate(stages, Cluster(nodes, cores, START, HAND_OUT))
        rough = simulate(stages, Cluster(nodes, cores, START, HAND_OUT, losses))
        yield (
            f"{images:>13,}{block:>7}{hours:11,.1f}{duration(handed_out):>9}"
            f"{duration(calm.wall):>9}{duration(rough.wall):>13}{rough.losses:12,}"
            f"{rough.repeated / 3600:17,.2f}{duration(PAIR * images**2):>10}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--cores", type=int, default=8, help="of a node")
    parser.add_argument("--losses", type=float, default=0.05, help="of a node in an hour")
    parser.add_argument("--quick", action="store_true", help="up to 10 million images")
    arguments = parser.parse_args()
    releases = ROWS[:-1] if arguments.quick else ROWS
    for line in tables(arguments.nodes, arguments.cores, arguments.losses, releases):
        print(line, flush=True)


if __name__ == "__main__":
    main()
