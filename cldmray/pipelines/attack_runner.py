"""Attacks of a fusion: its weights, fitted on validation people, and what comes of them.

Trains the attackers' encoders and embeds with them, each stage once.

The attackers' side of an audit: every rung learns, embeds and names people.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.base import EmbeddingRung, Rung, TrainedRung, training_order
from cldmray.attackers.distilled import TaughtRung
from cldmray.attackers.pretrained import OffTheShelf
from cldmray.attackers.reconstruction.attacker import InversionRung
from cldmray.attackers.score_fusion import Fusion, fit_weights
from cldmray.config.audit import AuditConfig, AuditSettings
from cldmray.engine.artifacts import StageTable
from cldmray.engine.attacker_training import (
    check_training,
    fit_encoder,
    learning_curve,
    pair_set,
    validation_set,
)
from cldmray.engine.embed import embed_views, region_view
from cldmray.engine.reconstruct import reconstruct
from cldmray.engine.reconstruction_training import (
    Point,
    check_validation,
    fit_inverter,
    inversion_curve,
    queried,
)
from cldmray.engine.stages import Stages
from cldmray.errors import BadInputError, CldmrayError
from cldmray.evaluation.identification import Attack, Views, attacks, clear_rank_1
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, ORIGINAL, SPLITS
from cldmray.gallery.fused_scores import FusedScores, stacked
from cldmray.recognizers.base import Recognizer


class Part(NamedTuple):
    """What one rung saw of one anonymizer.

    Attributes:
        key, name: of the rung.
        evaluated, known: embeddings of evaluation and of validation people, one table a training.
    """

    key: str
    name: str
    evaluated: Sequence[pa.Table]
    known: Sequence[pa.Table]


def fuse(
    fusion: Fusion, parts: Sequence[Part], anonymizer: str, settings: AuditSettings
) -> tuple[list[Attack], dict[str, float], str]:
    """Attack one anonymizer in every protocol and gallery, each with weights of its own.

    Every training of a rung counts as a part of its own.

    Returns:
        The attacks; the weights by ``<protocol>/<gallery>/<rung>``, summed over trainings; and a
        note on what could not be fused, empty if all could.
    """
    found: list[Attack] = []
    weights: dict[str, float] = {}
    failed: list[str] = []
    owners = [part.name for part in parts for _ in part.evaluated]
    known = [table for part in parts for table in part.known]
    held_out: list[Views] = []
    evaluated = [
        Views.of(table, anonymizer, ORIGINAL) for part in parts for table in part.evaluated
    ]
    for protocol in settings.protocols:
        for gallery in settings.galleries:
            try:
                held_out = held_out or [Views.of(table, anonymizer, ORIGINAL) for table in known]
                learnt = [views.scores(protocol, gallery) for views in held_out]
                people = len(np.unique(learnt[0].own))
                if people < fusion.people:
                    raise BadInputError(
                        f"{people} validation people can be fitted on, {fusion.name}.people asks "
                        f"for {fusion.people}"
                    )
                rule = fit_weights(stacked(learnt), learnt[0].own, fusion.penalty)
                if not rule.any():
                    raise BadInputError("no attacker tells anything about validation people")
            except BadInputError as error:
                failed.append(f"{protocol}, {gallery}: {error}")
                continue
            for owner, weight in zip(owners, rule.tolist(), strict=True):
                key = f"{protocol}/{gallery}/{owner}"
                weights[key] = weights.get(key, 0.0) + weight
            seen = [views.scores(protocol, gallery) for views in evaluated]
            fused = FusedScores(seen, rule)
            found.append(Attack.of(anonymizer, fusion.name, protocol, gallery, fused))
    note = ""
    if failed:
        note = f"{fusion.name} was not run against {anonymizer} in {'; '.join(failed)}."
    return found, weights, note


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


Pair = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""
LearningCurve = list[dict[str, float]]


@dataclass
class Findings:
    """What the attackers found.

    Attributes:
        attacks: every rung against every anonymizer, in every protocol and gallery.
        curves: learning curve of every training of each; empty for rungs that learn nothing.
        clear: rank-1 rate on clear photographs, the mean over trainings, of those rungs for which
            it says how well they know faces. A rung with a teacher has the teacher's.
        encoders: encoder of the first training of each; None for rungs that learn nothing.
        regions: as ``attacks``, on pictures of which one of ``audit.regions`` is left.
        weights: of each part of a fusion, ``<protocol>/<gallery>/<rung>``.
        queries: of each inversion: anonymized pictures that one training has learnt from.
    """

    attacks: list[Attack] = field(default_factory=list)
    curves: dict[Pair, list[LearningCurve]] = field(default_factory=dict)
    clear: dict[Pair, float] = field(default_factory=dict)
    encoders: dict[Pair, StageTable | None] = field(default_factory=dict)
    regions: list[Attack] = field(default_factory=list)
    weights: dict[Pair, dict[str, float]] = field(default_factory=dict)
    queries: dict[Pair, int] = field(default_factory=dict)


class Campaign(Embedder):
    """Trains every rung, embeds with it, and ranks the probes of every anonymizer.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        announce: called with lines of progress.
        notes: caveats for the report are appended here.
    """

    def __init__(
        self,
        config: AuditConfig,
        stages: Stages,
        announce: Callable[[str], None],
        notes: list[str],
    ) -> None:
        super().__init__(config, stages, announce)
        self.notes = notes
        self._trained: Trained = {}

    def check(self) -> None:
        """Find out before any work starts whether every rung has what it needs.

        Raises:
            CldmrayError: one has not; the message begins with its key.
        """
        for key, rung in self.config.attack.items():
            try:
                rung.check()
                if isinstance(rung, TrainedRung):
                    check_training(rung, self.config.engine)
            except CldmrayError as error:
                raise type(error)(f"attack.{key}: {error}") from error

    def run(self, faces: StageTable, redrawn: dict[str, StageTable]) -> Findings:
        """Let every rung attack every anonymizer.

        Args:
            faces: the faces table.
            redrawn: table of each anonymizer, by its key.

        Raises:
            BadInputError: no attack could be run.
        """
        attack = self.config.attack
        fusions = [rung for rung in attack.values() if isinstance(rung, Fusion)]
        splits = (EVALUATION, ATTACKER_VALIDATION) if fusions else (EVALUATION,)
        found = Findings()
        parts: dict[str, list[Part]] = {key: [] for key in redrawn}
        for key in training_order(attack):
            rung = attack[key]
            if not isinstance(rung, EmbeddingRung):
                continue
            for target in self._targets(rung, redrawn):
                tables = self._embed_all(rung, target, faces, redrawn, splits, found)
                evaluated = [self.of_splits(table, faces, (EVALUATION,)) for table in tables]
                self._judge(rung, target, evaluated, found)
                if fusions:
                    held_out = (ATTACKER_VALIDATION,)
                    known = [self.of_splits(table, faces, held_out) for table in tables]
                    for name in target:
                        parts[name].append(Part(key, rung.name, evaluated, known))
        for fusion in fusions:
            for name, table in redrawn.items():
                if self._can_learn(fusion, name, table):
                    self._fuse(fusion, name, parts[name], found)
        if not found.attacks:
            raise BadInputError("no attack could be run; see the notes: " + " ".join(self.notes))
        return found

    def _embed_all(
        self,
        rung: EmbeddingRung,
        target: list[str],
        faces: StageTable,
        redrawn: dict[str, StageTable],
        splits: tuple[str, ...],
        found: Findings,
    ) -> list[pa.Table]:
        """Embeddings by every training of a rung; its encoders and curves go to the findings."""
        source = redrawn[target[0]] if rung.per_anonymizer else None
        trained = isinstance(rung, TrainedRung) or (
            isinstance(rung, InversionRung) and rung.trained
        )
        tables, curves, encoders = [], [], []
        for training in range(self.config.audit.attacker_seeds if trained else 1):
            one, encoder = seeded(rung, training), None
            if isinstance(one, TrainedRung):
                start = self._trained[one.start_from, training] if one.start_from else None
                encoder = self.train(one, faces, source, start)
                curves.append(learning_curve(encoder))
                if not rung.per_anonymizer:
                    self._trained[rung.name, training] = encoder
            elif isinstance(one, InversionRung) and source is not None:
                encoder, curve = self.invert(one, faces, source)
                curves.append(curve)
            encoders.append(encoder)
            shown = [redrawn[name] for name in target]
            tables.append(self.embed(one, encoder, faces, shown, splits))
        for name in target:
            pair = self.config.anonymizer[name].name, rung.name
            found.encoders[pair], found.curves[pair] = encoders[0], curves
            if isinstance(rung, InversionRung):
                found.queries[pair] = int(curves[0][-1]["queries"])
        return tables

    def _judge(
        self, rung: EmbeddingRung, target: list[str], tables: list[pa.Table], found: Findings
    ) -> None:
        """Attacks of one rung on the anonymizers of one training."""
        audit = self.config.audit
        rate = None
        if rung.knows_clear_faces:
            rate = sum(clear_rank_1(table, ORIGINAL) for table in tables) / len(tables)
        for name in target:
            setting = self.config.anonymizer[name].name
            found.attacks.extend(attacks(tables, setting, rung.name, audit, ORIGINAL))
            for view in (region_view(setting, region) for region in audit.regions):
                found.regions.extend(attacks(tables, view, rung.name, audit, ORIGINAL))
            if rate is not None:
                found.clear[setting, rung.name] = rate

    def _fuse(self, fusion: Fusion, name: str, parts: list[Part], found: Findings) -> None:
        """Attacks of a fusion on one anonymizer, out of what the other rungs saw of it."""
        setting = self.config.anonymizer[name].name
        chosen = [part for part in parts if not fusion.of or part.key in fusion.of]
        if len(chosen) < 2:
            self.notes.append(
                f"{fusion.name} was not run against {setting}: fewer than two of its attackers "
                "attacked it."
            )
            return
        fused, weights, note = fuse(fusion, chosen, setting, self.config.audit)
        if note:
            self.notes.append(note)
        found.attacks.extend(fused)
        pair = setting, fusion.name
        found.weights[pair], found.curves[pair], found.encoders[pair] = weights, [], None

    def _targets(self, rung: Rung, redrawn: dict[str, StageTable]) -> list[list[str]]:
        """Keys of the anonymizers that the rung can attack, those of one training together."""
        if not rung.per_anonymizer:
            return [list(redrawn)]
        return [[key] for key, table in redrawn.items() if self._can_learn(rung, key, table)]

    def _can_learn(self, rung: Rung, key: str, table: StageTable) -> bool:
        setting = self.config.anonymizer[key]
        if setting.unchanged and isinstance(rung, TrainedRung | InversionRung):
            return False
        counts = {split: table.count(split) for split in (ATTACKER, ATTACKER_VALIDATION)}
        absent = [split for split, count in counts.items() if not count]
        if absent:
            self.notes.append(
                f"{rung.name} was not run against {setting.name}: it has no "
                f"anonymized pictures of {' and '.join(absent)} people to learn from."
            )
        return not absent
