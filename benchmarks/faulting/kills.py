"""Who is killed, when, and what came of it."""

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from faulting.audit import Driver, kept_files
from faulting.cluster import Cluster, kill

POLL = 0.1
PATIENCE = 1500.0
"""Seconds after which an audit counts as stuck."""
LAST_LINES = 40
"""Of a failed audit's log, which are printed."""
SPAN = 0.8
"""Share of a stage's undisturbed time, from the victim's first sight, in which kills fall."""


@dataclass(frozen=True)
class Target:
    """What is killed: processes of worker nodes, a whole node, or the driver.

    Attributes:
        name: for the table.
        stages: pattern of the stages in which it is killed.
        title: pattern of the process's title; None for a node and the driver.
    """

    name: str
    stages: str
    title: str | None = None


TARGETS = {
    "anonymizer": Target(
        "anonymizer task", r"anonymize by (blur|cldm)", r"^ray::.*AnonymizerActor"
    ),
    "embedding": Target("embedding task", r"embed by", r"^ray::.*EmbedActor"),
    "training": Target("training task", r"train ", r"^ray::(training_task|.*RayTrainWorker)"),
    "node": Target("worker node", r"."),
    "driver": Target("driver", r"."),
}


@dataclass(frozen=True)
class Kill:
    """One kill -9.

    Attributes:
        target: see :class:`Target`.
        stage: that ran.
        seconds: into it.
        result: of the audit that it disturbed: ``identical`` or what was not.
    """

    target: str
    stage: str
    seconds: float
    result: str


@dataclass(frozen=True)
class Strike:
    """A kill that is planned: ``delay`` seconds after the stage's first sight of a victim."""

    stage: str
    delay: float
    target: Target


class Disturbance:
    """Runs audits, and kills parts of them meanwhile.

    Args:
        cluster: to run on.
        start: starts a driver in a folder.
        reference: seconds that each stage of an undisturbed audit takes; less, as soon as an audit
            has been quicker, since other work of the machine may end.
        expected: see :func:`faulting.audit.kept_files`.
    """

    def __init__(
        self,
        cluster: Cluster,
        start: Callable[[Path], Driver],
        reference: Mapping[str, float],
        expected: Mapping[str, str],
    ) -> None:
        self.cluster = cluster
        self.start = start
        self.reference = dict(reference)
        self.expected = expected

    def plan(self, wanted: Mapping[str, int], chance: random.Random) -> list[Strike]:
        """Strikes in the order of stages and moments; a target's are spread over its stages."""
        strikes = []
        for name, kills in wanted.items():
            target = TARGETS[name]
            stages = [stage for stage in self.reference if re.match(target.stages, stage)]
            rounds, rest = divmod(kills, len(stages))
            for stage in stages * rounds + chance.sample(stages, rest):
                delay = chance.uniform(0, SPAN * self.reference[stage])
                strikes.append(Strike(stage, delay, target))
        order = list(self.reference)
        return sorted(strikes, key=lambda strike: (order.index(strike.stage), strike.delay))

    def run(self, folder: Path, wanted: Mapping[str, int], chance: random.Random) -> list[Kill]:
        """One audit with up to so many kills of each target; what ends too early is spared."""
        driver = self.start(folder)
        done: list[tuple[str, str, float]] = []
        seen: dict[str, float] = {}
        for strike in self.plan(wanted, chance):
            moment = self._strike(driver, strike, seen, chance)
            if moment is None:
                continue
            done.append((strike.target.name, strike.stage, moment))
            if not driver.running:
                driver = self.start(folder)
                seen.clear()
        result = self._result(driver.finish(PATIENCE), folder)
        for stage, seconds in driver.seconds.items():
            self.reference[stage] = min(seconds, self.reference[stage])
        return [Kill(*kill, result) for kill in done]

    def _strike(
        self, driver: Driver, strike: Strike, seen: dict[str, float], chance: random.Random
    ) -> float | None:
        """Kill in a stage; returns the seconds into it, or None where it ended before."""
        deadline = time.monotonic() + PATIENCE
        while strike.stage not in driver.begun:
            if not driver.running or strike.stage in driver.seconds or time.monotonic() > deadline:
                return None
            time.sleep(POLL)
        while begun := driver.begun.get(strike.stage):
            victims = self._victims(strike.target)
            now = time.monotonic()
            if victims and now >= seen.setdefault(strike.stage, now) + strike.delay:
                moment = now - begun
                self._kill(driver, strike.target, chance.choice(victims))
                return moment
            time.sleep(POLL)
        return None

    def _victims(self, target: Target) -> list[int]:
        """Process ids, or places of nodes; one number for the driver."""
        if target is TARGETS["driver"]:
            return [0]
        if target.title is None:
            return list(range(len(self.cluster.nodes)))
        workers = self.cluster.workers().items()
        return sorted(pid for pid, title in workers if re.match(target.title, title))

    def _kill(self, driver: Driver, target: Target, victim: int) -> None:
        if target is TARGETS["driver"]:
            driver.kill()
        elif target.title is None:
            self.cluster.nodes[victim].kill()
        else:
            kill(victim)

    def _result(self, status: int, folder: Path) -> str:
        if status:
            lines = (folder / "log").read_text().splitlines()[-LAST_LINES:]
            print(f"{folder.name} ended with status {status}:", *lines, sep="\n    ", flush=True)
            return f"exit status {status}"
        wrong = sorted({name for name, _ in kept_files(folder).items() ^ self.expected.items()})
        return f"{len(wrong)} files differ, as {wrong[0]}" if wrong else "identical"
