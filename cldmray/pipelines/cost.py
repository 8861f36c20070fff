"""What an audit will do and cost, estimated before it starts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.base import Anonymizer
from cldmray.attackers.base import Attacker
from cldmray.config.audit import AuditConfig
from cldmray.engine.map_stages.cost import AttackCost, Cost, calibrate, calibrate_attackers
from cldmray.engine.stages import Stages
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION
from cldmray.pipelines.attack_runner import reads_attributes
from cldmray.pipelines.data_preparation import DataPreparation

WORTH_TRYING = 1000
"""Images from which on an audit tries an anonymizer for the sake of the estimate."""
COLUMNS = "{:32}{:>10}{:>8}{:>11}{:>11}{:>10}"


@dataclass(frozen=True)
class Step:
    """One row of the plan; None stands for what is not estimated.

    Attributes:
        name: of the stage or attacker.
        images: to be read, anonymized or embedded; of a training, in all its steps.
        steps: of the diffusion of one image, or of all trainings.
        cost: of one image.
        step_seconds: of one step of the trainings; 0 where the steps are those of one image.
        on_gpu: whether a GPU does it.
        reused: whether an earlier audit has done it, which makes it free.
    """

    name: str
    images: int
    steps: int | None = None
    cost: Cost | None = None
    step_seconds: float = 0.0
    on_gpu: bool = False
    reused: bool = False

    @property
    def hours(self) -> float | None:
        """Of one core or GPU."""
        if self.reused:
            return 0.0
        if self.cost is None:
            return None
        return (self.images * self.cost.seconds + (self.steps or 0) * self.step_seconds) / 3600

    @property
    def mib(self) -> float | None:
        """Storage that is needed in addition."""
        if self.reused:
            return 0.0
        return None if self.cost is None else self.images * self.cost.size / 2**20

    def __str__(self) -> str:
        hours = "-" if self.hours is None else f"{self.hours:.3f}"
        cpu, gpu = ("-", hours) if self.on_gpu else (hours, "-")
        mib = "-" if self.mib is None else f"{self.mib:.0f}"
        name = f"{self.name}, found" if self.reused else self.name
        steps = "-" if self.steps is None else str(self.steps)
        return COLUMNS.format(name, self.images, steps, cpu, gpu, mib).rstrip()


class Estimate:
    """The plan of an audit.

    Args:
        config: the audit.
        stages: know which work is done already.
        preparation: of the audit.
    """

    def __init__(self, config: AuditConfig, stages: Stages, preparation: DataPreparation) -> None:
        self.config = config
        self.stages = stages
        self.preparation = preparation

    def steps(self, listing: pa.Table, always: bool) -> list[Step]:
        """The rows of the plan: images, anonymizers, what is measured of them, attackers.

        Args:
            listing: the images that are used, with their splits.
            always: whether anonymizers are tried for fewer than :data:`WORTH_TRYING` images, and
                attackers at all.

        Raises:
            CldmrayError: an anonymizer cannot be opened, or an attacker lacks what it needs.
        """
        config = self.config
        faces = self.stages.plan(self.preparation.faces_stage(listing))
        anonymizers = {}
        for key, anonymizer in config.anonymizers.items():
            anonymize = self.stages.plan(self.preparation.anonymize_stage(key, faces))
            count, steps = (
                self._images(anonymizer, listing),
                anonymizer.n_steps,
            )
            anonymizers[key] = Step(
                anonymize.spec.name,
                count,
                steps,
                on_gpu=self._on_gpu(anonymizer),
                reused=anonymize.exists,
            )
        tried = {
            key: anonymizer
            for key, anonymizer in config.anonymizers.items()
            if anonymizer.grouping is None
            and not anonymizers[key].reused
            and (always or anonymizers[key].images >= WORTH_TRYING)
        }
        costs = calibrate(config.faces, list(tried.values()), listing, config.engine)
        for key, (_, cost) in zip(tried, costs, strict=True):
            anonymizers[key] = replace(anonymizers[key], cost=cost)
        reading = costs[0][0] if costs else None
        first = Step(faces.spec.name, listing.num_rows, None, reading, reused=faces.exists)
        return [
            first,
            Step("near-duplicates", listing.num_rows),
            *anonymizers.values(),
            *self._measurements(listing),
            *self._attacks(listing, always),
        ]

    def lines(self, steps: list[Step]) -> Iterator[str]:
        """The plan as a table of at most 82 columns, and what it sums up to."""
        yield COLUMNS.format(
            "what will be done", "images", "steps", "CPU-hours", "GPU-hours", "MiB"
        )
        yield from map(str, steps)
        estimated = [step for step in steps if step.hours is not None]
        hours = {
            unit: sum(step.hours or 0.0 for step in estimated if step.on_gpu == on_gpu)
            for unit, on_gpu in (("CPU-hours", False), ("GPU-hours", True))
        }
        sums = " and ".join(f"{value:.3f} {unit}" for unit, value in hours.items() if value)
        left = [step.name for step in steps if step.hours is None]
        yield (
            f"estimated: {sums or 'nothing'}, "
            f"{sum(step.mib or 0.0 for step in estimated):.0f} MiB in {self.config.cache_dir}"
            + (f"; not estimated: {', '.join(left)}" if left else "")
        )

    def _images(self, anonymizer: Anonymizer, listing: pa.Table) -> int:
        """Images that an anonymizer will make; one that forms groups makes each once."""
        total = 0
        for split, samples in self.preparation.samples.items():
            rows = listing.filter(pc.equal(listing["split"], split))
            if anonymizer.grouping is None:
                total += samples * int(anonymizer.select(rows["sample_id"].to_pylist()).sum())
            elif samples:
                total += rows.num_rows
        return total

    def _on_gpu(self, anonymizer: Anonymizer) -> bool:
        return anonymizer.gpus_per_actor(self.config.engine.gpus_per_actor) > 0

    def _measurements(self, listing: pa.Table) -> Iterator[Step]:
        """Evaluated images that are compared with their originals, and measured for utility."""
        settings, n_anonymizers = self.config.audit, len(self.config.anonymizers)
        count = pc.sum(pc.equal(listing["split"], EVALUATION)).as_py() or 0
        yield Step("pixels", count * n_anonymizers)
        if settings.utility:
            yield Step("utility", min(settings.n_utility_images, count) * (n_anonymizers + 1))
        if (training := self.preparation.training_listing()) is not None:
            yield Step("memorization", training.num_rows)

    def _attacks(self, listing: pa.Table, tried: bool) -> Iterator[Step]:
        """What attackers learn and embed, all of it as if no earlier audit had done any.

        Args:
            tried: whether to find out how long it takes.
        """
        config = self.config
        attackers = {
            repr(attacker.without_labels()): attacker
            for listed in config.attackers.values()
            for attacker in (listed, *listed.prerequisites)
        }
        costs = [AttackCost()] * len(attackers)
        if tried:
            some = list(attackers.values())
            costs = calibrate_attackers(config.faces, some, listing, config.engine)
        cost_of = dict(zip(attackers, costs, strict=True))
        keys = list(config.attackers)
        combiners = {
            key
            for key, attacker in config.attackers.items()
            if attacker.combines([other for other in keys if other != key])
        }
        splits = [EVALUATION, ATTACKER_VALIDATION] if combiners else [EVALUATION]
        identities = listing.filter(pc.is_in(listing["split"], pa.array(splits)))
        trained = [attacker.without_labels() for attacker in config.attackers.values()]
        for key, attacker in config.attackers.items():
            if key in combiners:
                continue
            anonymizers = [m for m in config.anonymizers.values() if attacker.can_attack(m)]
            trainings = config.audit.n_training_seeds if attacker.has_seed else 1
            targets = len(anonymizers) if attacker.learns_from_anonymized else 1
            steps = None
            if attacker.max_steps is not None:
                steps = attacker.max_steps * trainings * targets
            for start in attacker.prerequisites:
                if not any(start.without_labels() == other for other in trained):
                    trained.append(start.without_labels())
                    learning = cost_of[repr(start.without_labels())]
                    yield Step(
                        f"train-{start.name}",
                        0,
                        (start.max_steps or 0) * trainings,
                        None if learning.step is None else Cost(0.0, 0.0),
                        learning.step or 0.0,
                        on_gpu=start.gpus_per_actor(config.engine.gpus_per_actor) > 0,
                    )
            views = len(anonymizers) + targets
            cost = cost_of[repr(attacker.without_labels())]
            embedding = Step(
                f"attack-{attacker.name}",
                identities.num_rows * trainings * views,
                steps,
                cost.embedding,
                cost.step or 0.0,
                on_gpu=attacker.gpus_per_actor(config.engine.gpus_per_actor) > 0,
            )
            yield embedding
            if count := self._inference_images(attacker, listing):
                name = f"inference-{attacker.name}"
                yield replace(embedding, name=name, images=count * views, steps=None)

    def _inference_images(self, attacker: Attacker, listing: pa.Table) -> int:
        """Images of attacker people from which classifiers on its embeddings learn attributes."""
        config = self.config
        is_anonymized = self.preparation.samples.get(ATTACKER, 0) > 0
        if not (is_anonymized and reads_attributes(attacker, config)) or not config.faces.groups():
            return 0
        count = pc.sum(pc.equal(listing["split"], ATTACKER)).as_py() or 0
        return min(config.audit.n_inference_images, count)
