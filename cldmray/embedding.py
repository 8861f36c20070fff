"""Trains the attackers' encoders and embeds with them, each stage once."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.inversion.rung import InversionRung
from cldmray.attackers.ladder import EmbeddingRung, TrainedRung
from cldmray.attackers.off_the_shelf import OffTheShelf
from cldmray.attackers.recognizer import Recognizer
from cldmray.attackers.teacher_guided import TaughtRung
from cldmray.config import AuditConfig
from cldmray.engine.attack_data import pair_set, validation_set
from cldmray.engine.attack_training import fit_encoder, learning_curve
from cldmray.engine.embed import embed_views
from cldmray.engine.inversion_data import queried
from cldmray.engine.inversion_loop import Point, check_validation
from cldmray.engine.inversion_training import fit_inverter, inversion_curve
from cldmray.engine.reconstruct import reconstruct
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, SPLITS

Trained = dict[tuple[str, int], StageTable]
"""Encoders that no anonymizer matters for, by rung's name and number of the training."""


def seeded(rung: EmbeddingRung, training: int) -> EmbeddingRung:
    """The rung with the seed of one of its trainings, counted from 0."""
    if isinstance(rung, InversionRung):
        return rung.seeded(training)
    if not isinstance(rung, TrainedRung):
        return rung
    seed = rung.training.seed + training
    return replace(rung, training=replace(rung.training, seed=seed))


class Embedder:
    """Runs the stages that end in embeddings.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        announce: called with lines of progress.

    Attributes:
        embedded: embeddings of every rung that has run, by its name; of those that depend on the
            anonymizer, the last.
        rebuilt: reconstructions of every inversion that has run, by its name and the key of the
            table that was rebuilt.
    """

    def __init__(
        self, config: AuditConfig, stages: Stages, announce: Callable[[str], None]
    ) -> None:
        self.config = config
        self.stages = stages
        self.announce = announce
        self.embedded: dict[str, StageTable] = {}
        self.rebuilt: dict[tuple[str, str], StageTable] = {}
        self._photos: dict[tuple[Recognizer, tuple[str, ...]], StageTable] = {}
        self._people: dict[str, pa.Table] = {}

    def train(
        self,
        rung: TrainedRung,
        faces: StageTable,
        redrawn: StageTable | None,
        start: StageTable | None,
    ) -> StageTable:
        """The rung's encoder, trained on attacker people.

        Args:
            redrawn: table of the anonymizer that it learns from, if it does.
            start: trained encoder that it starts from, if it does.
        """
        taught = self.photos(rung.teacher, faces) if isinstance(rung, TaughtRung) else None
        inputs = [table.key for table in (faces, redrawn, start, taught) if table is not None]
        engine = self.config.engine
        name = f"train-{rung.name}"
        stage = self.stages.run(
            name,
            {"rung": rung},
            inputs,
            lambda folder: fit_encoder(
                rung,
                pair_set(rung, faces, redrawn, taught),
                validation_set(rung, faces, redrawn, taught),
                start,
                engine,
                folder,
            ),
        )
        last = learning_curve(stage)[-1]
        self.announce(
            f"{name}: loss {last['loss']:.3f}, validation rank-1 "
            f"{100 * last['validation_rank_1']:.1f} %"
        )
        return stage

    def invert(
        self, rung: InversionRung, faces: StageTable, redrawn: StageTable
    ) -> tuple[StageTable, list[Point]]:
        """The rung's inverter, which has learnt from attacker people, and its learning curve.

        Args:
            redrawn: table of the anonymizer whose pictures it inverts.
        """
        engine = self.config.engine
        name = f"invert-{rung.inverter.name}"

        def produce(folder: str) -> None:
            validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
            check_validation(validation)
            pairs = queried(faces, redrawn, ATTACKER).within(rung.budget)
            fit_inverter(rung.inverter, pairs, validation, rung.validator, engine, folder)

        settings = {
            "inverter": rung.inverter,
            "validator": rung.validator,
            "budget": rung.budget,
        }
        stage = self.stages.run(name, settings, [faces.key, redrawn.key], produce)
        curve = inversion_curve(stage)
        last = curve[-1]
        self.announce(
            f"{name}: {last['queries']:.0f} queries, validation rank-1 "
            f"{100 * last['validation_rank_1']:.1f} %, cosine {last['validation_cosine']:.3f}"
        )
        return stage, curve

    def photos(
        self, teacher: Recognizer, faces: StageTable, splits: tuple[str, ...] = SPLITS
    ) -> StageTable:
        """A recognizer's embeddings of the photographs, computed once for all rungs."""
        key = teacher, splits
        if key not in self._photos:
            settings: dict[str, Any] = {"teacher": teacher}
            if splits != SPLITS:
                settings["splits"] = splits
            self._photos[key] = self.stages.run(
                f"photos-{teacher.name}",
                settings,
                [faces.key],
                lambda folder: embed_views(
                    OffTheShelf(teacher), None, faces, [], self.config.engine, folder, splits
                ),
            )
        return self._photos[key]

    def embed(
        self,
        rung: EmbeddingRung,
        encoder: StageTable | None,
        faces: StageTable,
        tables: list[StageTable],
        splits: tuple[str, ...] = (EVALUATION,),
    ) -> pa.Table:
        """Embeddings of the people of some splits: photographs, and pictures of every given table.

        A rung embeds both sides itself, but for one with a teacher: its gallery is the teacher's;
        and for an inversion: its judge embeds reconstructions and photographs.
        """
        if isinstance(rung, InversionRung):
            return self._embed_rebuilt(rung, encoder, faces, tables, splits)
        teacher = rung.teacher if isinstance(rung, TaughtRung) else None
        own = faces if teacher is None else None
        settings: dict[str, Any] = {"condition": rung.probe_condition}
        if encoder is None:
            settings = {"rung": rung}
        regions = self.config.audit.regions
        settings |= {"regions": regions, "splits": splits}
        inputs = [table.key for table in (encoder, own, *tables) if table is not None]
        stage = self.stages.run(
            f"embed-{rung.name}",
            settings,
            inputs,
            lambda folder: embed_views(
                rung, encoder, own, tables, self.config.engine, folder, splits, regions
            ),
        )
        self.embedded[rung.name] = stage
        if teacher is None:
            return stage.read()
        gallery = self.of_splits(self.photos(teacher, faces).read(), faces, splits)
        return pa.concat_tables([gallery, stage.read()])

    def of_splits(
        self, embeddings: pa.Table, faces: StageTable, splits: tuple[str, ...]
    ) -> pa.Table:
        """The rows of the people of some splits; who they are is read from the faces once."""
        if faces.key not in self._people:
            self._people[faces.key] = faces.read(["identity", "split"])
        people = self._people[faces.key]
        chosen = people.filter(pc.is_in(people["split"], pa.array(splits)))["identity"]
        return embeddings.filter(pc.is_in(embeddings["identity"], chosen.combine_chunks()))

    def _embed_rebuilt(
        self,
        rung: InversionRung,
        fitted: StageTable | None,
        faces: StageTable,
        tables: list[StageTable],
        splits: tuple[str, ...],
    ) -> pa.Table:
        if fitted is None:
            raise ValueError(f"{rung.name} rebuilds with a fitted inverter, but was given none")
        found = [self.photos(rung.judge, faces, splits).read()]
        audit, engine = self.config.audit, self.config.engine
        for table in tables:
            stage = self.stages.run(
                f"reconstruct-{rung.inverter.name}",
                {
                    "inverter": rung.inverter,
                    "judge": rung.judge,
                    "seed": audit.seed,
                    "regions": audit.regions,
                    "splits": splits,
                },
                [fitted.key, table.key],
                partial(
                    reconstruct,
                    rung,
                    fitted,
                    [table],
                    audit.seed,
                    engine,
                    splits=splits,
                    regions=audit.regions,
                ),
            )
            self.embedded[rung.name] = self.rebuilt[rung.name, table.key] = stage
            found.append(stage.read(found[0].column_names))
        return pa.concat_tables(found)
