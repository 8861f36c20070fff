"""The plan of an audit: which stages run, in which order, and what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cldmray.attackers.ladder import Rung, training_order
from cldmray.config import AuditConfig
from cldmray.engine.attack_data import pair_set, validation_set
from cldmray.engine.attack_training import fit_encoder, learning_curve
from cldmray.engine.embed import ORIGINAL, embed_views
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError
from cldmray.evaluation import Attack, attacks, clear_rank_1, curve, results_table, strongest
from cldmray.exposure import Exposure
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION
from cldmray.report.examples import example_grid
from cldmray.report.model import Report, Stage
from cldmray.report.words import percent
from cldmray.verdict import verdict


@dataclass(frozen=True)
class Trained:
    """A trained rung: its encoder's stage and learning curve."""

    rung: Rung
    stage: StageTable

    @property
    def curve(self) -> list[dict[str, float]]:
        """Points ``step``, ``loss`` and ``validation_rank_1``."""
        return learning_curve(self.stage)


@dataclass(frozen=True)
class Outcome:
    """What an audit found.

    Attributes:
        report: everything that is shown.
        curves: learning curve of each (anonymizer, attacker).
        clear: rank-1 rate on clear photographs of each (anonymizer, attacker).
    """

    report: Report
    curves: dict[tuple[str, str], list[dict[str, float]]]
    clear: dict[tuple[str, str], float]


class Audit:
    """Runs one audit on the connected cluster.

    Args:
        config: what to audit.
        settings: the same as plain data, for the report.
        announce: called with lines of progress.
    """

    def __init__(
        self, config: AuditConfig, settings: dict[str, Any], announce: Callable[[str], None]
    ) -> None:
        self.config = config
        self.settings = settings
        self.announce = announce
        self.stages = Stages(config.work, announce)
        self.exposure = Exposure(config, self.stages, announce)
        self.notes = self.exposure.notes

    def run(self, versions: dict[str, str]) -> Outcome:
        """Anonymize, attack, measure and judge.

        Args:
            versions: package versions for the report.

        Raises:
            BadInputError: the data cannot be audited; the message says why.
        """
        config = self.config
        listing = self.exposure.listing()
        faces = self.exposure.faces(listing)
        redrawn = {key: self.exposure.redraw(key, faces) for key in config.anonymizer}
        every, curves, clear = self.attack(faces, redrawn)
        names = [member.name for member in config.anonymizer.values()]
        note = self._health(clear)
        by_name = {name: [a for a in every if a.anonymizer == name] for name in names}
        risks = [strongest(found, config.audit, note) for found in by_name.values() if found]
        self._check_promises(by_name)
        controls = {m.name for m in config.anonymizer.values() if m.is_control}
        report = Report(
            title=config.audit.title,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=verdict(risks, controls),
            risks=risks,
            results=results_table(every, config.audit),
            curves=[curve(attack) for attack in every],
            grid=example_grid(
                faces.read(split=EVALUATION),
                {
                    config.anonymizer[key].name: (
                        config.anonymizer[key].conditions,
                        table.read(split=EVALUATION),
                    )
                    for key, table in redrawn.items()
                },
                config.audit.grid_pictures,
            ),
            rejected=faces.rejected(),
            n_listed=listing.num_rows,
            settings=self.settings,
            versions=versions,
            stages=[Stage(*time) for time in self.stages.times],
            notes=self.notes,
            data_fingerprint=faces.manifest.content[:16],
        )
        return Outcome(report, curves, clear)

    def attack(
        self, faces: StageTable, redrawn: dict[str, StageTable]
    ) -> tuple[
        list[Attack],
        dict[tuple[str, str], list[dict[str, float]]],
        dict[tuple[str, str], float],
    ]:
        """Train every rung, embed, and rank the probes of every anonymizer."""
        config = self.config
        shared: dict[str, Trained] = {}
        every: list[Attack] = []
        curves: dict[tuple[str, str], list[dict[str, float]]] = {}
        clear: dict[tuple[str, str], float] = {}
        for key in training_order(config.attack):
            rung: Rung = config.attack[key]
            if rung.per_anonymizer:
                targets = [[name] for name in redrawn if self._can_learn(rung, name, redrawn[name])]
            else:
                targets = [list(redrawn)]
            for target in targets:
                source = redrawn[target[0]] if rung.per_anonymizer else None
                trained = self.train(rung, faces, source, shared)
                if not rung.per_anonymizer:
                    shared[rung.name] = trained
                tables = [redrawn[name] for name in target]
                embeddings = self.embed(trained, faces, tables).read()
                rate = clear_rank_1(embeddings, ORIGINAL)
                for name in target:
                    setting = config.anonymizer[name].name
                    every += attacks(embeddings, setting, rung.name, config.audit, ORIGINAL)
                    curves[setting, rung.name] = trained.curve
                    clear[setting, rung.name] = rate
        if not every:
            raise BadInputError("no attack could be run; see the notes: " + " ".join(self.notes))
        return every, curves, clear

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
        rung: Rung,
        faces: StageTable,
        redrawn: StageTable | None,
        shared: dict[str, Trained],
    ) -> Trained:
        """The rung's encoder, trained on attacker people."""
        start = shared[rung.start_from].stage if rung.start_from else None
        inputs = [table.key for table in (faces, redrawn, start) if table is not None]
        workers = self.config.engine.train_workers
        name = f"train-{rung.name}"
        stage = self.stages.run(
            name,
            {"rung": rung, "workers": workers},
            inputs,
            lambda folder: fit_encoder(
                rung,
                pair_set(rung, faces, redrawn),
                validation_set(rung, faces, redrawn),
                start,
                self.config.engine,
                folder,
            ),
        )
        last = learning_curve(stage)[-1]
        self.announce(
            f"{name}: loss {last['loss']:.3f}, validation rank-1 "
            f"{100 * last['validation_rank_1']:.1f} %"
        )
        return Trained(rung, stage)

    def embed(self, trained: Trained, faces: StageTable, tables: list[StageTable]) -> StageTable:
        """Embeddings of the evaluation people by a trained encoder."""
        return self.stages.run(
            f"embed-{trained.rung.name}",
            {"condition": trained.rung.probe_condition},
            [trained.stage.key, faces.key, *(table.key for table in tables)],
            lambda folder: embed_views(
                trained.rung, trained.stage, faces, tables, self.config.engine, folder
            ),
        )

    def _check_promises(self, by_name: dict[str, list[Attack]]) -> None:
        """Test each method's own k where its promise speaks: with everybody's photos known.

        In the smaller galleries only the probed person is sure to be there with the very photo,
        which tells the people of a group apart without any help from the picture.
        """
        for member in self.config.anonymizer.values():
            k = member.promised_k
            full = [a for a in by_name[member.name] if a.protocol == "full_ref"]
            if k is None or not full:
                continue
            risk = strongest(full, self.config.audit, "")
            kept = f"stands up to k = {risk.largest_k}" if risk.largest_k >= k else "is rejected"
            self.notes.append(
                f"{member.name} promises k = {k} by construction, which {kept}: with all photos "
                f"of everybody in the gallery the strongest attack names {percent(risk.risk)} "
                f"({percent(risk.low)} to {percent(risk.high)}), and 1/k is {percent(1 / k)}."
            )

    def _health(self, clear: dict[tuple[str, str], float]) -> str:
        """Why the ladder may be too weak to conclude that nothing leaks; empty if it is not."""
        best = max(clear.values())
        wanted = self.config.audit.min_clear_rank_1
        if best >= wanted:
            return ""
        note = (
            f"attacker too weak to conclude: on clear photographs the best encoder names "
            f"{100 * best:.1f} %, less than the {100 * wanted:.0f} % that "
            "audit.min_clear_rank_1 asks for"
        )
        self.notes.append(note[0].upper() + note[1:] + ".")
        return note
