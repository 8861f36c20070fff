"""The attackers' side of an audit: every rung learns, embeds and names people."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from cldmray.attackers.ladder import Rung, TrainedRung, training_order
from cldmray.attackers.off_the_shelf import OffTheShelf
from cldmray.attackers.recognizer import Recognizer
from cldmray.attackers.teacher_guided import TaughtRung
from cldmray.config import AuditConfig
from cldmray.engine.attack_data import pair_set, validation_set
from cldmray.engine.attack_training import fit_encoder, learning_curve
from cldmray.engine.embed import ORIGINAL, embed_views, region_view
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError, CldmrayError
from cldmray.evaluation import Attack, attacks, clear_rank_1
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION

Pair = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""


class Findings(NamedTuple):
    """What the attackers found.

    Attributes:
        attacks: every rung against every anonymizer, in every protocol and gallery.
        curves: learning curve of each; empty for rungs that learn nothing.
        clear: rank-1 rate on clear photographs of those rungs for which it says how well they know
            faces. A rung with a teacher has the teacher's.
        encoders: trained encoder of each; None for rungs that learn nothing.
        regions: as ``attacks``, on pictures of which one of ``audit.regions`` is left.
    """

    attacks: list[Attack]
    curves: dict[Pair, list[dict[str, float]]]
    clear: dict[Pair, float]
    encoders: dict[Pair, StageTable | None]
    regions: list[Attack]


class Campaign:
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
        self.config = config
        self.stages = stages
        self.announce = announce
        self.notes = notes
        self._photos: dict[tuple[Recognizer, tuple[str, ...]], StageTable] = {}

    def check(self) -> None:
        """Find out before any work starts whether every rung has what it needs.

        Raises:
            CldmrayError: one has not; the message begins with its key.
        """
        for key, rung in self.config.attack.items():
            try:
                rung.check()
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
        config = self.config
        shared: dict[str, StageTable] = {}
        found = Findings([], {}, {}, {}, [])
        for key in training_order(config.attack):
            rung = config.attack[key]
            for target in self._targets(rung, redrawn):
                source = redrawn[target[0]] if rung.per_anonymizer else None
                encoder = None
                if isinstance(rung, TrainedRung):
                    encoder = self.train(rung, faces, source, shared)
                    if not rung.per_anonymizer:
                        shared[rung.name] = encoder
                tables = [redrawn[name] for name in target]
                embeddings = self.embed(rung, encoder, faces, tables)
                rate = clear_rank_1(embeddings, ORIGINAL) if rung.knows_clear_faces else None
                for name in target:
                    setting = config.anonymizer[name].name
                    pair = setting, rung.name
                    found.attacks.extend(attacks(embeddings, *pair, config.audit, ORIGINAL))
                    for view in (region_view(setting, region) for region in config.audit.regions):
                        found.regions.extend(
                            attacks(embeddings, view, rung.name, config.audit, ORIGINAL)
                        )
                    found.encoders[pair] = encoder
                    found.curves[pair] = [] if encoder is None else learning_curve(encoder)
                    if rate is not None:
                        found.clear[pair] = rate
        if not found.attacks:
            raise BadInputError("no attack could be run; see the notes: " + " ".join(self.notes))
        return found

    def _targets(self, rung: Rung, redrawn: dict[str, StageTable]) -> list[list[str]]:
        """Keys of the anonymizers that the rung can attack, those of one training together."""
        if not rung.per_anonymizer:
            return [list(redrawn)]
        return [[key] for key, table in redrawn.items() if self._can_learn(rung, key, table)]

    def _can_learn(self, rung: Rung, key: str, table: StageTable) -> bool:
        counts = {split: table.count(split) for split in (ATTACKER, ATTACKER_VALIDATION)}
        absent = [split for split, count in counts.items() if not count]
        if absent:
            self.notes.append(
                f"{rung.name} was not run against {self.config.anonymizer[key].name}: it has no "
                f"anonymized pictures of {' and '.join(absent)} people to learn from."
            )
        return not absent

    def train(
        self,
        rung: TrainedRung,
        faces: StageTable,
        redrawn: StageTable | None,
        shared: dict[str, StageTable],
    ) -> StageTable:
        """The rung's encoder, trained on attacker people.

        Args:
            redrawn: table of the anonymizer that it learns from, if it does.
            shared: encoders of the rungs that are trained already, by name.
        """
        start = shared[rung.start_from] if rung.start_from else None
        taught = None
        if isinstance(rung, TaughtRung):
            taught = self.photos(rung.teacher, faces, (*rung.training_splits, ATTACKER_VALIDATION))
        inputs = [table.key for table in (faces, redrawn, start, taught) if table is not None]
        engine = self.config.engine
        name = f"train-{rung.name}"
        stage = self.stages.run(
            name,
            {"rung": rung, "workers": engine.train_workers},
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

    def photos(self, teacher: Recognizer, faces: StageTable, splits: tuple[str, ...]) -> StageTable:
        """A teacher's embeddings of the photographs of some splits, computed once for all rungs."""
        if (teacher, splits) not in self._photos:
            self._photos[teacher, splits] = self.stages.run(
                f"photos-{teacher.name}",
                {"teacher": teacher, "splits": splits},
                [faces.key],
                lambda folder: embed_views(
                    OffTheShelf(teacher), None, faces, [], self.config.engine, folder, splits
                ),
            )
        return self._photos[teacher, splits]

    def embed(
        self,
        rung: Rung,
        encoder: StageTable | None,
        faces: StageTable,
        tables: list[StageTable],
    ) -> pa.Table:
        """Embeddings of the evaluation people: photographs, and pictures of every given table.

        A rung embeds both sides itself, but for one with a teacher: its gallery is the teacher's.
        """
        teacher = rung.teacher if isinstance(rung, TaughtRung) else None
        own = faces if teacher is None else None
        settings: dict[str, Any] = {"condition": rung.probe_condition}
        if encoder is None:
            settings = {"rung": rung}
        regions = self.config.audit.regions
        if regions:
            settings["regions"] = regions
        inputs = [table.key for table in (encoder, own, *tables) if table is not None]
        stage = self.stages.run(
            f"embed-{rung.name}",
            settings,
            inputs,
            lambda folder: embed_views(
                rung, encoder, own, tables, self.config.engine, folder, regions=regions
            ),
        )
        if teacher is None:
            return stage.read()
        gallery = self.photos(teacher, faces, (EVALUATION,))
        return pa.concat_tables([gallery.read(), stage.read()])
