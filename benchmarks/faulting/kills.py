"""Who is killed, when, and what came of it."""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from faulting.audit import Driver, kept_files
from faulting.cluster import Cluster, kill

POLL = 0.1
PATIENCE = 1500.0
"""Seconds after which an audit counts as stuck."""
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
    "anonymizer": Target("anonymizer actor", r"anonymize-(blur|cldm)", r"^ray::.*AnonymizerActor"),
    "embedding": Target("embedding actor", r"embed-", r"^ray::.*EmbedActor"),
    "training": Target("training worker", r"train-", r"^ray::.*RayTrainWorker"),
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


class Disturbance:
    """Runs audits, and kills processes of one kind meanwhile.

    Args:
        cluster: to run on.
        target: what to kill.
        start: starts a driver in a folder.
        reference: seconds that each stage of an undisturbed audit takes.
        expected: see :func:`faulting.audit.kept_files`.
        chance: draws stages and moments.
    """

    def __init__(
        self,
        cluster: Cluster,
        target: Target,
        start: Callable[[Path], Driver],
        reference: Mapping[str, float],
        expected: Mapping[str, str],
        chance: random.Random,
    ) -> None:
        self.cluster = cluster
        self.target = target
        self.start = start
        self.reference = reference
        self.expected = expected
        self.chance = chance

    def plan(self, kills: int) -> list[tuple[str, float]]:
        """Stages, in their order, with seconds after the victim's first sight."""
        stages = [name for name in self.reference if re.match(self.target.stages, name)]
        rounds, rest = divmod(kills, len(stages))
        chosen = stages * rounds + self.chance.sample(stages, rest)
        chosen.sort(key=stages.index)
        return [(name, self.chance.uniform(0, SPAN * self.reference[name])) for name in chosen]

    def run(self, folder: Path, kills: int) -> list[Kill]:
        """One audit that is disturbed up to so many times; stages that end too early are spared."""
        driver = self.start(folder)
        done: list[tuple[str, float]] = []
        for stage, delay in self.plan(kills):
            moment = self._strike(driver, stage, delay)
            if moment is None:
                continue
            done.append((stage, moment))
            if self.target is TARGETS["driver"]:
                driver = self.start(folder)
        result = self._result(driver.finish(PATIENCE), folder)
        return [Kill(self.target.name, *kill, result) for kill in done]

    def _strike(self, driver: Driver, stage: str, delay: float) -> float | None:
        """Kill in a stage; returns the seconds into it, or None where it ended before."""
        deadline = time.monotonic() + PATIENCE
        while driver.stage != stage:
            if not driver.running or stage in driver.seconds or time.monotonic() > deadline:
                return None
            time.sleep(POLL)
        for _ in self._while_running(driver, stage):
            if self._victims():
                break
        seen = time.monotonic()
        for _ in self._while_running(driver, stage):
            victims = self._victims()
            if victims and time.monotonic() >= seen + delay:
                moment = time.monotonic() - driver.since
                self._kill(driver, self.chance.choice(victims))
                return moment
        return None

    def _while_running(self, driver: Driver, stage: str) -> Iterator[None]:
        while driver.stage == stage:
            yield
            time.sleep(POLL)

    def _victims(self) -> list[int]:
        """Process ids, or places of nodes; one number for the driver."""
        if self.target is TARGETS["driver"]:
            return [0]
        if self.target.title is None:
            return list(range(len(self.cluster.nodes)))
        pattern = re.compile(self.target.title)
        found = self.cluster.workers().items()
        return sorted(pid for pid, title in found if pattern.match(title))

    def _kill(self, driver: Driver, victim: int) -> None:
        if self.target is TARGETS["driver"]:
            driver.kill()
        elif self.target.title is None:
            self.cluster.nodes[victim].kill()
        else:
            kill(victim)

    def _result(self, status: int, folder: Path) -> str:
        if status:
            return f"exit status {status}"
        found = kept_files(folder)
        wrong = [
            name
            for name in {**self.expected, **found}
            if found.get(name) != self.expected.get(name)
        ]
        return f"{len(wrong)} files differ, as {wrong[0]}" if wrong else "identical"
