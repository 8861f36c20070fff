"""The attackers' side of an audit: every rung learns, embeds and names people."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from cldmray.attackers.fusion import Fusion
from cldmray.attackers.inversion.rung import InversionRung
from cldmray.attackers.ladder import EmbeddingRung, Rung, TrainedRung, training_order
from cldmray.config import AuditConfig
from cldmray.embedding import Embedder, Trained, seeded
from cldmray.engine.attack_training import check_training, learning_curve
from cldmray.engine.embed import ORIGINAL, region_view
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError, CldmrayError
from cldmray.evaluation import Attack, attacks, clear_rank_1
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION
from cldmray.fusing import Part, fuse

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
