"""Attacks of a fusion: its weights, fitted on validation people, and what comes of them.

Trains the attackers' encoders and embeds with them, each stage once.

The attackers' side of an audit: every attacker learns, embeds and names people.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.base import Attacker, EmbeddingAttacker, TrainedAttacker, training_order
from cldmray.attackers.distilled import DistilledAttacker
from cldmray.attackers.nn.training import Curve
from cldmray.attackers.pretrained import Pretrained
from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.score_fusion import ScoreFusion, fit_weights
from cldmray.config.audit import AuditConfig, AuditSettings
from cldmray.engine.artifacts import Artifact
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
    check_validation,
    fit_reconstructor,
    queried,
)
from cldmray.engine.stages import Stages
from cldmray.errors import BadInputError, CldmrayError
from cldmray.evaluation.identification import AttackResult, Views, attacks, clean_rank_1
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, ORIGINAL, SPLITS
from cldmray.gallery.score_fusion import WeightedScores, stack_scores
from cldmray.recognizers.base import Recognizer

logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """What one attacker saw of one anonymizer.

    Attributes:
        key, name: of the attacker.
        evaluated, known: embeddings of evaluation and of validation people, one table a training.
    """

    key: str
    name: str
    evaluated: Sequence[pa.Table]
    known: Sequence[pa.Table]


def fuse(
    fusion: ScoreFusion, parts: Sequence[Part], anonymizer: str, settings: AuditSettings
) -> tuple[list[AttackResult], dict[str, float], str]:
    """Attack one anonymizer in every protocol and gallery, each with weights of its own.

    Every training of an attacker counts as a part of its own.

    Returns:
        The attacks; the weights by ``<protocol>/<gallery>/<attacker>``, summed over trainings; and a
        note on what could not be fused, empty if all could.
    """
    found: list[AttackResult] = []
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
                gallery_identities = len(np.unique(learnt[0].mated_columns))
                if gallery_identities < fusion.min_identities:
                    raise BadInputError(
                        f"{gallery_identities} validation people can be fitted on, {fusion.name}.min_identities asks "
                        f"for {fusion.min_identities}"
                    )
                rule = fit_weights(stack_scores(learnt), learnt[0].mated_columns, fusion.penalty)
                if not rule.any():
                    raise BadInputError("no attacker tells anything about validation people")
            except BadInputError as error:
                failed.append(f"{protocol}, {gallery}: {error}")
                continue
            for owner, weight in zip(owners, rule.tolist(), strict=True):
                key = f"{protocol}/{gallery}/{owner}"
                weights[key] = weights.get(key, 0.0) + weight
            seen = [views.scores(protocol, gallery) for views in evaluated]
            fused = WeightedScores(seen, rule)
            found.append(AttackResult.of(anonymizer, fusion.name, protocol, gallery, fused))
    note = ""
    if failed:
        note = f"{fusion.name} was not run against {anonymizer} in {'; '.join(failed)}."
    return found, weights, note


Trained = dict[tuple[str, int], Artifact]
"""Encoders that no anonymizer matters for, by attacker's name and number of the training."""


def seeded(attacker: EmbeddingAttacker, training: int) -> EmbeddingAttacker:
    """The attacker with the seed of one of its trainings, counted from 0."""
    if isinstance(attacker, ReconstructionAttacker):
        return attacker.seeded(training)
    if not isinstance(attacker, TrainedAttacker):
        return attacker
    seed = attacker.training.seed + training
    return replace(attacker, training=replace(attacker.training, seed=seed))


class Embedder:
    """Runs the stages that end in embeddings.

    Args:
        config: the audit.
        stages: runs and remembers the stages.

    Attributes:
        embedded: embeddings of every attacker that has run, by its name; of those that depend on the
            anonymizer, the last.
        rebuilt: reconstructions of every inversion that has run, by its name and the key of the
            table that was rebuilt.
    """

    def __init__(self, config: AuditConfig, stages: Stages) -> None:
        self.config = config
        self.stages = stages
        self.embedded: dict[str, Artifact] = {}
        self.rebuilt: dict[tuple[str, str], Artifact] = {}
        self._images: dict[tuple[Recognizer, tuple[str, ...]], Artifact] = {}
        self._identities: dict[str, pa.Table] = {}

    def train(
        self,
        attacker: TrainedAttacker,
        faces: Artifact,
        anonymized: Artifact | None,
        start: Artifact | None,
    ) -> Artifact:
        """The attacker's encoder, trained on attacker people.

        Args:
            anonymized: table of the anonymizer that it learns from, if it does.
            start: trained encoder that it starts from, if it does.
        """
        teacher_embeddings = (
            self.images(attacker.teacher, faces)
            if isinstance(attacker, DistilledAttacker)
            else None
        )
        inputs = [
            table.key
            for table in (faces, anonymized, start, teacher_embeddings)
            if table is not None
        ]
        engine = self.config.engine
        name = f"train-{attacker.name}"
        stage = self.stages.run(
            name,
            {"attacker": attacker},
            inputs,
            lambda folder: fit_encoder(
                attacker,
                pair_set(attacker, faces, anonymized, teacher_embeddings),
                validation_set(attacker, faces, anonymized, teacher_embeddings),
                start,
                engine,
                folder,
            ),
        )
        last = learning_curve(stage)[-1]
        logger.info(
            f"{name}: loss {last['loss']:.3f}, validation rank-1 "
            f"{100 * last['validation_rank_1']:.1f} %"
        )
        return stage

    def invert(
        self, attacker: ReconstructionAttacker, faces: Artifact, anonymized: Artifact
    ) -> tuple[Artifact, Curve]:
        """The attacker's reconstruction model, which has learnt from attacker people, and its learning curve.

        Args:
            anonymized: table of the anonymizer whose images it inverts.
        """
        engine = self.config.engine
        name = f"invert-{attacker.model.name}"

        def produce(folder: str) -> None:
            validation = queried(faces, anonymized, ATTACKER_VALIDATION).pairs
            check_validation(validation)
            pairs = queried(faces, anonymized, ATTACKER).within(attacker.budget)
            fit_reconstructor(
                attacker.model, pairs, validation, attacker.validation_recognizer, engine, folder
            )

        settings = {
            "reconstructor": attacker.model,
            "validation_recognizer": attacker.validation_recognizer,
            "budget": attacker.budget,
        }
        stage = self.stages.run(name, settings, [faces.key, anonymized.key], produce)
        curve = learning_curve(stage)
        last = curve[-1]
        logger.info(
            f"{name}: {last['queries']:.0f} queries, validation rank-1 "
            f"{100 * last['validation_rank_1']:.1f} %, cosine {last['validation_cosine']:.3f}"
        )
        return stage, curve

    def images(
        self, teacher: Recognizer, faces: Artifact, splits: tuple[str, ...] = SPLITS
    ) -> Artifact:
        """A recognizer's embeddings of the images, computed once for all attackers."""
        key = teacher, splits
        if key not in self._images:
            settings: dict[str, Any] = {"teacher": teacher}
            if splits != SPLITS:
                settings["splits"] = splits
            self._images[key] = self.stages.run(
                f"images-{teacher.name}",
                settings,
                [faces.key],
                lambda folder: embed_views(
                    Pretrained(teacher), None, faces, [], self.config.engine, folder, splits
                ),
            )
        return self._images[key]

    def embed(
        self,
        attacker: EmbeddingAttacker,
        encoder: Artifact | None,
        faces: Artifact,
        tables: list[Artifact],
        splits: tuple[str, ...] = (EVALUATION,),
    ) -> pa.Table:
        """Embeddings of the people of some splits: images, and images of every given table.

        An attacker embeds both sides itself, but for one with a teacher: its gallery is the teacher's;
        and for an inversion: its judge embeds reconstructions and images.
        """
        if isinstance(attacker, ReconstructionAttacker):
            return self._embed_rebuilt(attacker, encoder, faces, tables, splits)
        teacher = attacker.teacher if isinstance(attacker, DistilledAttacker) else None
        own = faces if teacher is None else None
        settings: dict[str, Any] = {"condition": attacker.probe_condition}
        if encoder is None:
            settings = {"attacker": attacker}
        regions = self.config.audit.regions
        settings |= {"regions": regions, "splits": splits}
        inputs = [table.key for table in (encoder, own, *tables) if table is not None]
        stage = self.stages.run(
            f"embed-{attacker.name}",
            settings,
            inputs,
            lambda folder: embed_views(
                attacker, encoder, own, tables, self.config.engine, folder, splits, regions
            ),
        )
        self.embedded[attacker.name] = stage
        if teacher is None:
            return stage.read()
        gallery = self.of_splits(self.images(teacher, faces).read(), faces, splits)
        return pa.concat_tables([gallery, stage.read()])

    def of_splits(self, embeddings: pa.Table, faces: Artifact, splits: tuple[str, ...]) -> pa.Table:
        """The rows of the people of some splits; who they are is read from the faces once."""
        if faces.key not in self._identities:
            self._identities[faces.key] = faces.read(["identity", "split"])
        gallery_identities = self._identities[faces.key]
        chosen = gallery_identities.filter(pc.is_in(gallery_identities["split"], pa.array(splits)))[
            "identity"
        ]
        return embeddings.filter(pc.is_in(embeddings["identity"], chosen.combine_chunks()))

    def _embed_rebuilt(
        self,
        attacker: ReconstructionAttacker,
        fitted: Artifact | None,
        faces: Artifact,
        tables: list[Artifact],
        splits: tuple[str, ...],
    ) -> pa.Table:
        if fitted is None:
            raise ValueError(
                f"{attacker.name} rebuilds with a fitted reconstruction model, but was given none"
            )
        found = [self.images(attacker.held_out_recognizer, faces, splits).read()]
        audit, engine = self.config.audit, self.config.engine
        for table in tables:
            stage = self.stages.run(
                f"reconstruct-{attacker.model.name}",
                {
                    "reconstructor": attacker.model,
                    "held_out_recognizer": attacker.held_out_recognizer,
                    "seed": audit.seed,
                    "regions": audit.regions,
                    "splits": splits,
                },
                [fitted.key, table.key],
                partial(
                    reconstruct,
                    attacker,
                    fitted,
                    [table],
                    audit.seed,
                    engine,
                    splits=splits,
                    regions=audit.regions,
                ),
            )
            self.embedded[attacker.name] = self.rebuilt[attacker.name, table.key] = stage
            found.append(stage.read(found[0].column_names))
        return pa.concat_tables(found)


Pair = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""
LearningCurve = list[dict[str, float]]


@dataclass
class AttackResults:
    """What the attackers found.

    Attributes:
        attacks: every attacker against every anonymizer, in every protocol and gallery.
        curves: learning curve of every training of each; empty for attackers that learn nothing.
        clear: rank-1 rate on clean images, the mean over trainings, of those attackers for which
            it says how well they know faces. An attacker with a teacher has the teacher's.
        encoders: encoder of the first training of each; None for attackers that learn nothing.
        regions: as ``attacks``, on images of which one of ``audit.regions`` is left.
        weights: of each part of a fusion, ``<protocol>/<gallery>/<attacker>``.
        queries: of each inversion: anonymized images that one training has learnt from.
    """

    attacks: list[AttackResult] = field(default_factory=list)
    curves: dict[Pair, list[LearningCurve]] = field(default_factory=dict)
    clean: dict[Pair, float] = field(default_factory=dict)
    encoders: dict[Pair, Artifact | None] = field(default_factory=dict)
    regions: list[AttackResult] = field(default_factory=list)
    weights: dict[Pair, dict[str, float]] = field(default_factory=dict)
    queries: dict[Pair, int] = field(default_factory=dict)


class AttackRunner(Embedder):
    """Trains every attacker, embeds with it, and ranks the probes of every anonymizer.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        notes: caveats for the report are appended here.
    """

    def __init__(
        self,
        config: AuditConfig,
        stages: Stages,
        notes: list[str],
    ) -> None:
        super().__init__(config, stages)
        self.notes = notes
        self._trained: Trained = {}

    def check(self) -> None:
        """Find out before any work starts whether every attacker has what it needs.

        Raises:
            CldmrayError: one has not; the message begins with its key.
        """
        for key, attacker in self.config.attackers.items():
            try:
                attacker.check()
                if isinstance(attacker, TrainedAttacker):
                    check_training(attacker, self.config.engine)
            except CldmrayError as error:
                raise type(error)(f"attackers.{key}: {error}") from error

    def run(self, faces: Artifact, anonymized: dict[str, Artifact]) -> AttackResults:
        """Let every attacker attack every anonymizer.

        Args:
            faces: the faces table.
            anonymized: table of each anonymizer, by its key.

        Raises:
            BadInputError: no attack could be run.
        """
        attack = self.config.attackers
        fusions = [attacker for attacker in attack.values() if isinstance(attacker, ScoreFusion)]
        splits = (EVALUATION, ATTACKER_VALIDATION) if fusions else (EVALUATION,)
        found = AttackResults()
        parts: dict[str, list[Part]] = {key: [] for key in anonymized}
        for key in training_order(attack):
            attacker = attack[key]
            if not isinstance(attacker, EmbeddingAttacker):
                continue
            for target in self._targets(attacker, anonymized):
                tables = self._embed_all(attacker, target, faces, anonymized, splits, found)
                evaluated = [self.of_splits(table, faces, (EVALUATION,)) for table in tables]
                self._judge(attacker, target, evaluated, found)
                if fusions:
                    held_out = (ATTACKER_VALIDATION,)
                    known = [self.of_splits(table, faces, held_out) for table in tables]
                    for name in target:
                        parts[name].append(Part(key, attacker.name, evaluated, known))
        for fusion in fusions:
            for name, table in anonymized.items():
                if self._can_learn(fusion, name, table):
                    self._fuse(fusion, name, parts[name], found)
        if not found.attacks:
            raise BadInputError("no attack could be run; see the notes: " + " ".join(self.notes))
        return found

    def _embed_all(
        self,
        attacker: EmbeddingAttacker,
        target: list[str],
        faces: Artifact,
        anonymized: dict[str, Artifact],
        splits: tuple[str, ...],
        found: AttackResults,
    ) -> list[pa.Table]:
        """Embeddings by every training of an attacker; its encoders and curves go to the findings."""
        source = anonymized[target[0]] if attacker.per_anonymizer else None
        trained = isinstance(attacker, TrainedAttacker) or (
            isinstance(attacker, ReconstructionAttacker) and attacker.trained
        )
        tables, curves, encoders = [], [], []
        for training in range(self.config.audit.n_training_seeds if trained else 1):
            one, encoder = seeded(attacker, training), None
            if isinstance(one, TrainedAttacker):
                start = self._trained[one.init_from, training] if one.init_from else None
                encoder = self.train(one, faces, source, start)
                curves.append(learning_curve(encoder))
                if not attacker.per_anonymizer:
                    self._trained[attacker.name, training] = encoder
            elif isinstance(one, ReconstructionAttacker) and source is not None:
                encoder, curve = self.invert(one, faces, source)
                curves.append(curve)
            encoders.append(encoder)
            shown = [anonymized[name] for name in target]
            tables.append(self.embed(one, encoder, faces, shown, splits))
        for name in target:
            pair = self.config.anonymizers[name].name, attacker.name
            found.encoders[pair], found.curves[pair] = encoders[0], curves
            if isinstance(attacker, ReconstructionAttacker):
                found.queries[pair] = int(curves[0][-1]["queries"])
        return tables

    def _judge(
        self,
        attacker: EmbeddingAttacker,
        target: list[str],
        tables: list[pa.Table],
        found: AttackResults,
    ) -> None:
        """Attacks of one attacker on the anonymizers of one training."""
        audit = self.config.audit
        rate = None
        if attacker.recognizes_clean_faces:
            rate = sum(clean_rank_1(table, ORIGINAL) for table in tables) / len(tables)
        for name in target:
            anonymizer = self.config.anonymizers[name].name
            found.attacks.extend(attacks(tables, anonymizer, attacker.name, audit, ORIGINAL))
            for view in (region_view(anonymizer, region) for region in audit.regions):
                found.regions.extend(attacks(tables, view, attacker.name, audit, ORIGINAL))
            if rate is not None:
                found.clean[anonymizer, attacker.name] = rate

    def _fuse(
        self, fusion: ScoreFusion, name: str, parts: list[Part], found: AttackResults
    ) -> None:
        """Attacks of a fusion on one anonymizer, out of what the other attackers saw of it."""
        anonymizer = self.config.anonymizers[name].name
        chosen = [part for part in parts if not fusion.of or part.key in fusion.of]
        if len(chosen) < 2:
            self.notes.append(
                f"{fusion.name} was not run against {anonymizer}: fewer than two of its attackers "
                "attacked it."
            )
            return
        fused, weights, note = fuse(fusion, chosen, anonymizer, self.config.audit)
        if note:
            self.notes.append(note)
        found.attacks.extend(fused)
        pair = anonymizer, fusion.name
        found.weights[pair], found.curves[pair], found.encoders[pair] = weights, [], None

    def _targets(self, attacker: Attacker, anonymized: dict[str, Artifact]) -> list[list[str]]:
        """Keys of the anonymizers that the attacker can attack, those of one training together."""
        if not attacker.per_anonymizer:
            return [list(anonymized)]
        return [[key] for key, table in anonymized.items() if self._can_learn(attacker, key, table)]

    def _can_learn(self, attacker: Attacker, key: str, table: Artifact) -> bool:
        anonymizer = self.config.anonymizers[key]
        if anonymizer.unchanged and isinstance(attacker, TrainedAttacker | ReconstructionAttacker):
            return False
        counts = {split: table.count(split) for split in (ATTACKER, ATTACKER_VALIDATION)}
        absent = [split for split, count in counts.items() if not count]
        if absent:
            self.notes.append(
                f"{attacker.name} was not run against {anonymizer.name}: it has no "
                f"anonymized images of {' and '.join(absent)} people to learn from."
            )
        return not absent
