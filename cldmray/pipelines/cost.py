"""What an audit will do and cost, told before it starts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.base import Anonymizer
from cldmray.attackers.base import EmbeddingRung, TrainedRung
from cldmray.attackers.reconstruction.attacker import InversionRung
from cldmray.attackers.score_fusion import Fusion
from cldmray.config.audit import AuditConfig
from cldmray.engine.cost import Cost, calibrate
from cldmray.engine.stages import Stages
from cldmray.faces.records import ATTACKER_VALIDATION, EVALUATION
from cldmray.pipelines.data_preparation import Exposure

WORTH_TRYING = 1000
"""Pictures from which on an audit tries an anonymizer for the sake of the estimate."""
COLUMNS = "{:32}{:>10}{:>8}{:>11}{:>11}{:>10}"


@dataclass(frozen=True)
class Step:
    """One row of the plan; None stands for what is not estimated.

    Attributes:
        name: of the stage or attacker.
        pictures: to be read, redrawn or embedded; of a training, in all its steps.
        steps: of the diffusion of one picture, or of all trainings.
        cost: of one picture.
        on_gpu: whether a GPU does it.
        found: whether an earlier audit has done it, which makes it free.
    """

    name: str
    pictures: int
    steps: int | None = None
    cost: Cost | None = None
    on_gpu: bool = False
    found: bool = False

    @property
    def hours(self) -> float | None:
        """Of one actor's processor or GPU."""
        if self.found:
            return 0.0
        return None if self.cost is None else self.pictures * self.cost.seconds / 3600

    @property
    def mib(self) -> float | None:
        """Storage that is needed in addition."""
        if self.found:
            return 0.0
        return None if self.cost is None else self.pictures * self.cost.size / 2**20

    def __str__(self) -> str:
        hours = "-" if self.hours is None else f"{self.hours:.3f}"
        cpu, gpu = ("-", hours) if self.on_gpu else (hours, "-")
        mib = "-" if self.mib is None else f"{self.mib:.0f}"
        name = f"{self.name}, found" if self.found else self.name
        steps = "-" if self.steps is None else str(self.steps)
        return COLUMNS.format(name, self.pictures, steps, cpu, gpu, mib).rstrip()


class Estimate:
    """The plan of an audit.

    Args:
        config: the audit.
        stages: know which work is done already.
        exposure: of the audit.
    """

    def __init__(self, config: AuditConfig, stages: Stages, exposure: Exposure) -> None:
        self.config = config
        self.stages = stages
        self.exposure = exposure

    def steps(self, listing: pa.Table, always: bool) -> list[Step]:
        """The rows of the plan: photographs, anonymizers, attackers.

        Args:
            listing: the photographs that are used, with their splits.
            always: whether anonymizers are tried for fewer than :data:`WORTH_TRYING` pictures.

        Raises:
            CldmrayError: an anonymizer cannot be opened.
        """
        config = self.config
        work = self.exposure.faces_work(listing)
        faces = self.stages.place(work)[0]
        members = {}
        for key, member in config.anonymizer.items():
            redraw = self.exposure.redraw_work(key, faces)
            count, steps = self._pictures(member, listing), getattr(member, "steps", None)
            found = self.stages.finished(redraw)
            members[key] = Step(redraw.name, count, steps, on_gpu=self._on_gpu(member), found=found)
        tried = {
            key: member
            for key, member in config.anonymizer.items()
            if isinstance(member, Anonymizer)
            and not members[key].found
            and (always or members[key].pictures >= WORTH_TRYING)
        }
        costs = calibrate(config.faces, list(tried.values()), listing, config.engine)
        for key, (_, cost) in zip(tried, costs, strict=True):
            members[key] = replace(members[key], cost=cost)
        reading = costs[0][0] if costs else None
        done = self.stages.finished(work)
        first = Step(work.name, listing.num_rows, None, reading, found=done)
        return [first, *members.values(), *self._attacks(listing)]

    def lines(self, steps: list[Step]) -> Iterator[str]:
        """The plan as a table of at most 82 columns, and what it sums up to."""
        yield COLUMNS.format(
            "what will be done", "pictures", "steps", "CPU-hours", "GPU-hours", "MiB"
        )
        yield from map(str, steps)
        known = [step for step in steps if step.hours is not None]
        hours = {
            unit: sum(step.hours or 0.0 for step in known if step.on_gpu == on_gpu)
            for unit, on_gpu in (("CPU-hours", False), ("GPU-hours", True))
        }
        told = " and ".join(f"{value:.3f} {unit}" for unit, value in hours.items() if value)
        left = [step.name for step in steps if step.hours is None]
        yield (
            f"estimated: {told or 'nothing'} over {self.config.engine.actors} actors, "
            f"{sum(step.mib or 0.0 for step in known):.0f} MiB in {self.config.work}"
            + (f"; not estimated: {', '.join(left)}" if left else "")
        )

    def _pictures(self, member: object, listing: pa.Table) -> int:
        """Pictures that an anonymizer will draw; a group anonymizer draws each once."""
        total = 0
        for split, draws in self.exposure.draws.items():
            rows = listing.filter(pc.equal(listing["split"], split))
            if isinstance(member, Anonymizer):
                total += draws * int(member.select(rows["sample_id"].to_pylist()).sum())
            elif draws:
                total += rows.num_rows
        return total

    def _on_gpu(self, member: object) -> bool:
        own = member.resources.get("GPU", 0.0) if isinstance(member, Anonymizer) else 0.0
        return isinstance(member, Anonymizer) and (own or self.config.engine.gpus_per_actor) > 0

    def _attacks(self, listing: pa.Table) -> Iterator[Step]:
        """What attackers learn and embed; how long that takes depends on too much to be told."""
        config = self.config
        fused = any(isinstance(rung, Fusion) for rung in config.attack.values())
        splits = [EVALUATION, ATTACKER_VALIDATION] if fused else [EVALUATION]
        people = listing.filter(pc.is_in(listing["split"], pa.array(splits)))
        on_gpu = config.engine.gpus_per_actor > 0
        for rung in config.attack.values():
            if not isinstance(rung, EmbeddingRung):
                continue
            learnt = isinstance(rung, TrainedRung | InversionRung)
            members = [m for m in config.anonymizer.values() if not (learnt and m.unchanged)]
            if not rung.per_anonymizer:
                members = list(config.anonymizer.values())
            trainings = config.audit.attacker_seeds if learnt else 1
            targets = len(members) if rung.per_anonymizer else 1
            steps = None
            if isinstance(rung, TrainedRung):
                steps = rung.training.steps * trainings * targets
            elif isinstance(rung, InversionRung):
                steps = rung.inverter.steps * trainings * targets
            views = trainings * (len(members) + targets)
            yield Step(f"attack-{rung.name}", people.num_rows * views, steps, on_gpu=on_gpu)
