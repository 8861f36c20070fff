"""The attackers' side of an audit: every attacker is fitted, embeds the images, and is scored."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.base import Attacker, LearningCurve
from cldmray.attackers.data import AttackData, Table
from cldmray.config.audit import AuditConfig, AuditSettings
from cldmray.engine.artifacts import Artifact
from cldmray.engine.attack_context import AttackContext
from cldmray.engine.map_stages.embed import region_view
from cldmray.engine.stages import Stages
from cldmray.engine.tasks import map_in_tasks
from cldmray.errors import BadInputError, CldmrayError
from cldmray.evaluation.diagnostics import attacker_diagnostics
from cldmray.evaluation.identification import (
    AttackResult,
    ProbesAndReferences,
    attacks,
    clean_rank_1,
)
from cldmray.evaluation.utility import inference_rows
from cldmray.faces.records import (
    ATTACKER,
    ATTACKER_VALIDATION,
    EVALUATION,
    ORIGINAL,
    with_content_ids,
)
from cldmray.gallery.scores import kept_if_small
from cldmray.hashing import unit_hash
from cldmray.pipelines.utility import features_attacker
from cldmray.report.formatting import gallery_name, protocol_name
from cldmray.results.audit import AttackerDiagnostics
from cldmray.results.content import InferenceRow

Pair = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""


@dataclass
class AttackResults:
    """What came of the attacks.

    Attributes:
        attacks: every attacker against every anonymizer, in every protocol and gallery.
        curves: learning curve of every training; none for attackers that learn nothing.
        clean: rank-1 rate on clean images, the mean over trainings, of the attackers for which it
            says how well they recognize faces.
        fitted: what the first training of each has left; None for attackers that learn nothing.
            Attackers that combine scores are not in it.
        regions: as ``attacks``, on images of which one of ``audit.regions`` is left.
        weights: of each attacker in a combination, ``<protocol>/<gallery>/<attacker>``.
        queries: anonymized images that one training has learnt from, of attackers with a budget.
        probes: table with the embeddings of the anonymized images, by the last training.
        embeddings: of evaluated identities, by the first training, as ``fitted``.
        inference: attributes that are read from anonymized images, by attackers that depend on no
            anonymizer or learn from its images.
        notes: caveats for the report.
    """

    attacks: list[AttackResult] = field(default_factory=list)
    curves: dict[Pair, list[LearningCurve]] = field(default_factory=dict)
    clean: dict[Pair, float] = field(default_factory=dict)
    fitted: dict[Pair, Table | None] = field(default_factory=dict)
    regions: list[AttackResult] = field(default_factory=list)
    weights: dict[Pair, dict[str, float]] = field(default_factory=dict)
    queries: dict[Pair, int] = field(default_factory=dict)
    probes: dict[Pair, Table] = field(default_factory=dict)
    embeddings: dict[Pair, pa.Table] = field(default_factory=dict)
    inference: list[InferenceRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "AttackResults") -> None:
        """Take over the results of other attacks."""
        self.attacks += other.attacks
        self.inference += other.inference
        self.regions += other.regions
        self.notes += other.notes
        self.curves |= other.curves
        self.clean |= other.clean
        self.fitted |= other.fitted
        self.weights |= other.weights
        self.queries |= other.queries
        self.probes |= other.probes
        self.embeddings |= other.embeddings


@dataclass(frozen=True)
class Attempt:
    """One attacker, fitted as often as the audit asks, and its embeddings.

    Attributes:
        key: of the attacker.
        attacker: as configured.
        anonymizers: keys of the anonymizers that it attacks after one fit.
        fitted: what each training has left.
        embeddings: of each training: evaluated identities.
        validation: of each training: attacker-validation identities; only where needed.
        probes: table of the last training.
        distractors: of each training: originals of identities that are never probed; may be empty.
        references: of each training: images that take the place of the evaluated originals; empty:
            nothing does.
        learnt: embeddings by the last training of attacker people whose attributes are known, see
            :func:`inference_rows`; None where no attribute is to be read.
    """

    key: str
    attacker: Attacker
    anonymizers: list[str]
    fitted: list[Table | None]
    embeddings: list[pa.Table]
    validation: list[pa.Table]
    probes: Table
    distractors: list[pa.Table] = field(default_factory=list)
    references: list[pa.Table] = field(default_factory=list)
    learnt: pa.Table | None = None

    @property
    def galleries(self) -> list[pa.Table]:
        """The embeddings of each training, with its references and distractors."""
        tables = self.embeddings
        if self.references:
            tables = [
                pa.concat_tables([table.filter(pc.not_equal(table["view"], ORIGINAL)), own])
                for table, own in zip(tables, self.references, strict=True)
            ]
        if self.distractors:
            tables = [
                pa.concat_tables([table, others])
                for table, others in zip(tables, self.distractors, strict=True)
            ]
        return tables


class AttackRunner:
    """Lets every attacker attack every anonymizer.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
    """

    def __init__(self, config: AuditConfig, stages: Stages) -> None:
        self.config = config
        self.stages = stages
        self._contexts: dict[str, AttackContext] = {}
        self._content_ids: Mapping[str, str] = {}
        self._reads_attributes = False
        self._distractors: list[tuple[AttackContext, tuple[str, ...]]] = []
        self._references: AttackContext | None = None

    def diagnostics(self, results: AttackResults) -> list[AttackerDiagnostics]:
        """How every attacker did where it should be good."""
        attackers = self.config.attackers.values()
        return attacker_diagnostics(
            results.curves,
            results.clean,
            {attacker.name for attacker in attackers if attacker.learns_from_anonymized},
            self.config.audit.min_clean_rank_1,
        )

    def check(self) -> None:
        """Find out before any work starts whether every attacker has what it needs.

        Raises:
            CldmrayError: one has not; the message begins with its key.
        """
        engine = self.config.engine
        for key, attacker in self.config.attackers.items():
            try:
                attacker.check()
                attacker.check_workers(engine.most_train_workers, engine.gpus_per_train_worker > 0)
            except CldmrayError as error:
                raise type(error)(f"attackers.{key}: {error}") from error

    def run(
        self,
        faces: Artifact,
        anonymized: Mapping[str, Artifact],
        content_ids: Mapping[str, str] | None = None,
    ) -> AttackResults:
        """:meth:`fit` with these arguments, then :meth:`score`."""
        return self.score(self.fit(faces, anonymized, content_ids), anonymized)

    def fit(
        self,
        faces: Artifact,
        anonymized: Mapping[str, Artifact],
        content_ids: Mapping[str, str] | None = None,
        *,
        distractors: Sequence[tuple[Artifact, tuple[str, ...]]] = (),
        references: Artifact | None = None,
        reads_attributes: bool = False,
    ) -> list[Attempt]:
        """Fit every attacker that has scores of its own, and let it embed the images.

        Args:
            faces: the table of originals.
            anonymized: table of each anonymizer, by its key.
            content_ids: of images that have near-duplicates, see
                :func:`cldmray.gallery.near_duplicates.content_ids`; None: none has.
            distractors: tables of originals whose people stand in the galleries and are never
                probed, and which splits of each.
            references: table of images that take the place of the evaluated originals in the
                galleries; None: nothing does.
            reads_attributes: whether attributes are read, too, where the source knows any.
        """
        self._content_ids, self._reads_attributes = content_ids or {}, reads_attributes
        self.context(faces).copies = {
            table.key: self.config.anonymizers[key].name
            for key, table in anonymized.items()
            if self.config.anonymizers[key].unchanged
        }
        self._distractors = [(self.context(table), splits) for table, splits in distractors]
        self._references = None if references is None else self.context(references)
        combiners, others = self._combiners_and_others()
        return self._attempts(
            [
                (key, target)
                for key, attacker in others.items()
                for target in self._targets(attacker, anonymized, [])
            ],
            anonymized,
            self.context(faces),
            with_validation=bool(combiners),
        )

    def score(
        self, attempts: Sequence[Attempt], anonymized: Mapping[str, Artifact]
    ) -> AttackResults:
        """Score what was embedded, each attacker against each anonymizer.

        Args:
            attempts: as :meth:`fit` returned them.
            anonymized: table of each anonymizer, by its key.

        Raises:
            BadInputError: no attack could be run.
        """
        audit, results = self.config.audit, AttackResults()
        combiners, others = self._combiners_and_others()
        for attacker in others.values():
            self._targets(attacker, anonymized, results.notes)
        for attempt in attempts:
            results.add(self._diagnosed(attempt))
            name, tables = attempt.attacker.name, attempt.galleries
            ranked = partial(
                attacks,
                tables,
                attacker=name,
                settings=audit,
                original=ORIGINAL,
                apply=map_in_tasks,
            )
            for anonymizer in (self.config.anonymizers[key].name for key in attempt.anonymizers):
                results.attacks += ranked(anonymizer)
                for view in (region_view(anonymizer, region) for region in audit.regions):
                    results.regions += ranked(view)
        for key, attacker in combiners.items():
            for name in chain(*self._targets(attacker, anonymized, results.notes)):
                results.add(self._combine(key, name, attempts))
        if not results.attacks:
            raise BadInputError("no attack could be run; see the notes: " + " ".join(results.notes))
        return results

    def context(self, faces: Artifact) -> AttackContext:
        """What the engine does for attackers of these faces."""
        if faces.key not in self._contexts:
            audit = self.config.audit
            self._contexts[faces.key] = AttackContext(
                self.stages, self.config.engine, faces, seed=audit.seed, regions=audit.regions
            )
        return self._contexts[faces.key]

    def embeddings(
        self, attacker: Attacker, fitted: Table | None, faces: Artifact, table: Artifact
    ) -> pa.Table:
        """A fitted attacker's embeddings of evaluated identities: originals, and another table."""
        views = attacker.embeddings(fitted, [table], (EVALUATION,), self.context(faces))
        return with_content_ids(views.embeddings, self._content_ids)

    def _combiners_and_others(self) -> tuple[dict[str, Attacker], dict[str, Attacker]]:
        """The attackers that combine scores, and those that have scores of their own, by key."""
        attackers = self.config.attackers
        combiners = {key: attacker for key, attacker in attackers.items() if self._combined(key)}
        return combiners, {key: a for key, a in attackers.items() if key not in combiners}

    def _combined(self, key: str) -> Sequence[str]:
        """Keys of the attackers that one combines; none where it has scores of its own."""
        attackers = self.config.attackers
        return attackers[key].combines([other for other in attackers if other != key])

    def _targets(
        self, attacker: Attacker, anonymized: Mapping[str, Artifact], notes: list[str]
    ) -> list[list[str]]:
        """Keys of the anonymizers that the attacker can attack, those of one fit together."""
        if not attacker.learns_from_anonymized:
            return [list(anonymized)]
        targets = []
        for key, table in anonymized.items():
            anonymizer = self.config.anonymizers[key]
            if not attacker.can_attack(anonymizer):
                continue
            absent = [s for s in (ATTACKER, ATTACKER_VALIDATION) if not table.count(s)]
            if absent:
                notes.append(
                    f"{attacker.name} was not run against {anonymizer.name}: it has no "
                    f"anonymized images of {' and '.join(absent)} people to learn from."
                )
            else:
                targets.append([key])
        return targets

    def _attempts(
        self,
        targets: Sequence[tuple[str, list[str]]],
        anonymized: Mapping[str, Artifact],
        context: AttackContext,
        *,
        with_validation: bool,
    ) -> list[Attempt]:
        """All fits and embeddings, side by side as far as the cluster has room for their stages."""
        futures = [
            _in_thread(partial(self._attempt, key, target, anonymized, context, with_validation))
            for key, target in targets
        ]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            self.stages.stop()
            raise

    def _attempt(
        self,
        key: str,
        target: list[str],
        anonymized: Mapping[str, Artifact],
        context: AttackContext,
        with_validation: bool,
    ) -> Attempt:
        """Fit and embed, once for every training seed."""
        attacker = self.config.attackers[key]
        data = AttackData(context.faces)
        if attacker.learns_from_anonymized:
            (only,) = target
            data = AttackData(context.faces, anonymized[only], self.config.anonymizers[only].name)
        splits = (EVALUATION, ATTACKER_VALIDATION) if with_validation else (EVALUATION,)
        trainings = self.config.audit.n_training_seeds if attacker.has_seed else 1
        fitted: list[Table | None] = []
        tables, distractors, references = [], [], []
        for training in range(trainings):
            seeded = attacker.with_seed(training)
            fitted.append(seeded.fit(data, context))
            views = seeded.embeddings(
                fitted[-1], [anonymized[name] for name in target], splits, context
            )
            tables.append(with_content_ids(views.embeddings, self._content_ids))
            if self._references is not None:
                own = seeded.references(fitted[-1], (EVALUATION,), self._references)
                references.append(with_content_ids(own, self._content_ids))
            if self._distractors:
                others = [
                    seeded.references(fitted[-1], those, strangers)
                    for strangers, those in self._distractors
                ]
                distractors.append(with_content_ids(pa.concat_tables(others), self._content_ids))
        held_out = tables if with_validation else []
        return Attempt(
            key,
            attacker,
            target,
            fitted,
            [_of_split(table, context, EVALUATION) for table in tables],
            [_of_split(table, context, ATTACKER_VALIDATION) for table in held_out],
            views.probes,
            distractors,
            references,
            self._learnt(attacker, fitted[-1], [anonymized[name] for name in target], context),
        )

    def _learnt(
        self,
        attacker: Attacker,
        fitted: Table | None,
        tables: Sequence[Artifact],
        context: AttackContext,
    ) -> pa.Table | None:
        """Embeddings of attacker people from whom classifiers learn attributes."""
        config, groups = self.config, self.config.faces.groups()
        is_asked = self._reads_attributes and reads_attributes(attacker, config)
        tables = [table for table in tables if table.count(ATTACKER)]
        if groups is None or not (is_asked and tables):
            return None
        rows = context.faces.read(["sample_id", "identity"], ATTACKER)
        rows = rows.filter(pc.is_in(rows["identity"], groups["identity"].combine_chunks()))
        order = sorted(
            rows["sample_id"].to_pylist(), key=lambda sample: unit_hash("inference", sample)
        )
        samples = sorted(order[: config.audit.n_inference_images])
        if not samples:
            return None
        return context.embed(attacker, fitted, tables, (ATTACKER,), samples=samples).read()

    def _diagnosed(self, attempt: Attempt) -> AttackResults:
        """What an attacker has learnt, and how well: everything but its attacks."""
        attacker = attempt.attacker
        curves = [
            attacker.learning_curve(fitted) for fitted in attempt.fitted if fitted is not None
        ]
        results = AttackResults()
        for key in attempt.anonymizers:
            pair = self.config.anonymizers[key].name, attacker.name
            results.fitted[pair], results.curves[pair] = attempt.fitted[0], curves
            results.probes[pair] = attempt.probes
            results.embeddings[pair] = attempt.embeddings[0]
            if curves and "queries" in curves[0][-1]:
                results.queries[pair] = int(curves[0][-1]["queries"])
        if attempt.learnt is not None:
            groups = self.config.faces.groups()
            for anonymizer, _ in results.fitted:
                results.inference += inference_rows(
                    anonymizer,
                    attacker.name,
                    attempt.learnt,
                    attempt.embeddings[-1],
                    groups,
                    self.config.audit,
                )
        if attacker.recognizes_clean_faces:
            rate = sum(clean_rank_1(table, ORIGINAL) for table in attempt.embeddings)
            results.clean = {pair: rate / len(attempt.embeddings) for pair in results.fitted}
        return results

    def _combine(self, key: str, target: str, attempts: Sequence[Attempt]) -> AttackResults:
        """An attacker's combination of what the others have reached on one anonymizer."""
        attacker, anonymizer = self.config.attackers[key], self.config.anonymizers[target].name
        keys = self._combined(key)
        parts = [part for part in attempts if part.key in keys and target in part.anonymizers]
        if len(parts) < 2:
            note = (
                f"{attacker.name} was not run against {anonymizer}: fewer than two of its "
                "attackers attacked it."
            )
            return AttackResults(notes=[note])
        return combine(attacker, parts, anonymizer, self.config.audit)


def combine(
    attacker: Attacker, parts: Sequence[Attempt], anonymizer: str, settings: AuditSettings
) -> AttackResults:
    """Combine attackers in every protocol and gallery, each with weights of its own.

    Every training of an attacker counts as an attacker of its own. What could not be combined
    is told in a note.
    """
    results = AttackResults()
    failures: list[str] = []
    weights: dict[str, float] = {}
    evaluated = [_views(table, anonymizer) for part in parts for table in part.galleries]
    held_out: list[ProbesAndReferences] = []
    for protocol, gallery in product(settings.protocols, settings.galleries):
        try:
            held_out = held_out or [
                _views(table, anonymizer) for part in parts for table in part.validation
            ]
            scores, rule = attacker.combine(
                [views.scores(protocol, gallery) for views in evaluated],
                [views.scores(protocol, gallery) for views in held_out],
            )
        except BadInputError as error:
            failures.append(f"{protocol_name(protocol)}, {gallery_name(gallery)}: {error}")
            continue
        owners = [part.attacker.name for part in parts for _ in part.embeddings]
        for owner, weight in zip(owners, rule.tolist(), strict=True):
            place = f"{protocol}/{gallery}/{owner}"
            weights[place] = weights.get(place, 0.0) + weight
        results.attacks.append(
            AttackResult.of(anonymizer, attacker.name, protocol, gallery, kept_if_small(scores))
        )
    if failures:
        results.notes.append(
            f"{attacker.name} was not run against {anonymizer} in {'; '.join(failures)}."
        )
    pair = anonymizer, attacker.name
    results.weights[pair], results.curves[pair] = weights, []
    return results


def _views(embeddings: pa.Table, anonymizer: str) -> ProbesAndReferences:
    return ProbesAndReferences.of(embeddings, anonymizer, ORIGINAL)


def _of_split(embeddings: pa.Table, context: AttackContext, split: str) -> pa.Table:
    """The embeddings of the identities of one split."""
    identities = context.identities_of((split,)).combine_chunks()
    return embeddings.filter(pc.is_in(embeddings["identity"], identities))


def _in_thread(call: Callable[[], Attempt]) -> "Future[Attempt]":
    """Call in a thread that does not keep the process alive, as those of an executor would."""
    future: Future[Attempt] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=settle, daemon=True).start()
    return future


def reads_attributes(attacker: Attacker, config: AuditConfig) -> bool:
    """Whether classifiers on an attacker's embeddings read attributes in an audit.

    Those do whose attacker can query the anonymizer, and the one whose features are compared.
    """
    return (
        config.audit.n_inference_images > 0
        and attacker.embeds_images
        and (attacker.learns_from_anonymized or attacker is features_attacker(config.attackers))
    )
