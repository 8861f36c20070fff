"""Evaluation people's pictures beside their photographs: anonymized ones and reconstructions.

Searches of better inverters, one for each anonymizer, and what is made of them.

The plan of an inversion: search, fit ways back and controls, let the judge name the outcome.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from cldmray.anonymizers.base import Setting
from cldmray.arrays import Pictures
from cldmray.config.reconstruction import (
    MEAN,
    RAW,
    InversionConfig,
    candidate_of,
    controls_of,
    settings_of,
)
from cldmray.engine.artifacts import StageTable
from cldmray.engine.reconstruction_training import check_validation, queried
from cldmray.engine.stages import Stages
from cldmray.engine.tuning import Candidate, Dimension, Material, read_trials, search
from cldmray.errors import BadInputError
from cldmray.evaluation.identification import Attack
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, decode_pictures
from cldmray.gallery.protocols import Strings
from cldmray.metrics.confidence import Interval, bootstrap_identities, bootstrap_mean
from cldmray.metrics.identification import chance
from cldmray.metrics.pareto import pareto_front
from cldmray.metrics.reconstruction import fidelity, rank_1_gain
from cldmray.pipelines.attack_runner import Campaign, Findings
from cldmray.pipelines.attribution_study import main_protocol
from cldmray.pipelines.data_preparation import Exposure
from cldmray.report.formatting import percent
from cldmray.results.audit import Grid, GridRow
from cldmray.results.reconstruction import (
    SHUFFLED,
    InversionReport,
    Learning,
    Recovery,
    Row,
    Search,
    Trial,
)


class Shown(NamedTuple):
    """Pictures of evaluation people beside their photographs, row by row.

    Attributes:
        samples, people: shape (P,).
        photos: shape (P, h, w, 3).
        guesses: shape (P, guesses, h, w, 3).
    """

    samples: list[str]
    people: Strings
    photos: Pictures
    guesses: npt.NDArray[np.uint8]


def shown(faces: StageTable, table: StageTable, column: str) -> Shown:
    """Evaluation people's pictures of a table beside their photographs, by rising sample id.

    Args:
        column: ``image``, one encoded picture a row, or ``guesses``, a list of them; only the first
            draw, and no views of regions, are taken.
    """
    photos = faces.read(["sample_id", "identity", "image"], EVALUATION)
    columns = (photos[name].to_pylist() for name in ("sample_id", "identity", "image"))
    known = {sample: (person, image) for sample, person, image in zip(*columns, strict=True)}
    pictures: dict[str, list[bytes]] = {}
    rows: pa.Table = table.read()
    views = rows["view"].to_pylist() if "view" in rows.column_names else [""] * len(rows)
    for sample, found, view in zip(
        rows["sample_id"].to_pylist(), rows[column].to_pylist(), views, strict=True
    ):
        if sample in known and sample not in pictures and " region=" not in view:
            pictures[sample] = [found] if column == "image" else found
    samples = sorted(pictures)
    flat = decode_pictures(image for sample in samples for image in pictures[sample])
    guesses = flat.reshape(len(samples), -1, *flat.shape[1:])
    return Shown(
        samples,
        np.asarray([known[sample][0] for sample in samples]),
        decode_pictures(known[sample][1] for sample in samples),
        guesses,
    )


def grid(pictures: dict[str, Shown], inverters: list[str], count: int) -> Grid:
    """The first photograph of the first people, and what became of it; no more than ``count``.

    The rows are the anonymized pictures, then each inverter's first guess.
    """
    raw = pictures[RAW]
    _, rows = np.unique(raw.people, return_index=True)
    chosen = rows[:count]
    return Grid(
        raw.photos[chosen],
        [
            GridRow(name, None, pictures[name].guesses[chosen, 0])
            for name in [RAW, *inverters]
            if pictures[name].samples == raw.samples
        ],
    )


TUNED = "tuned"
"""Ends the name of the inverter that a search has found."""


def run_search(
    config: InversionConfig, stages: Stages, name: str, faces: StageTable, redrawn: StageTable
) -> tuple[Search, Candidate]:
    """Search an inverter of one anonymizer's pictures; the stage is found again if it has run.

    Args:
        name: of the anonymizer.
        redrawn: its table.

    Returns:
        All trials, and the best candidate, named after the one that was varied.

    Raises:
        BadInputError: no validation person can be named.
        CldmrayError: every trial failed.
    """
    settings = config.inversion
    space = settings.search

    def produce(folder: str) -> None:
        validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        check_validation(validation)
        material = Material(queried(faces, redrawn, ATTACKER), validation, settings.validator)
        search(material, config.make, longest(config), space, config.audit.engine, folder)

    decides = {
        "inverter": settings.searched,
        "validator": settings.validator,
        "budget": settings.budget,
        "search": replace(space, concurrent=1, cpus=1.0, gpus=0.0),
        "concurrent": space.concurrent,
    }
    stage = stages.run(f"search-{name}", decides, [faces.key, redrawn.key], produce)
    table = read_trials(stage)
    trials = told(table, space.space)
    found = best_candidate(config, trials[0])
    key = (
        "inversion_best"
        if single(config)
        else f"inversion_best_{re.sub(r'[^A-Za-z0-9]', '_', name)}"
    )
    return Search(name, space.objective, trials, key, as_attack(config, found, key)), found


def single(config: InversionConfig) -> bool:
    """Whether one anonymizer alone is inverted."""
    return len(config.audit.anonymizer) == 1


def longest(config: InversionConfig) -> int:
    """Steps of the longest training that a trial may take."""
    settings = config.inversion
    dimension = settings.search.space.get("training.steps")
    return max([settings.searched.steps] if dimension is None else dimension.extremes)


def told(table: pa.Table, space: Mapping[str, Dimension]) -> list[Trial]:
    """The trials of a search's table; failed ones are neither the best nor optimal."""
    rows = table.to_pylist()
    ended = [row for row in rows if row["status"] != "failed"]
    front = pareto_front(
        [row["queries"] for row in ended], [_rate(row["validation_rank_1"]) for row in ended]
    )
    optimal = {row["trial"] for row, kept in zip(ended, front, strict=True) if kept}
    best = ended[0]["trial"] if ended else ""
    trials = []
    for row in rows:
        drawn = json.loads(row["settings"])
        trials.append(
            Trial(
                trial=row["trial"],
                status=row["status"],
                settings={key: space[key].value(value) for key, value in drawn.items()},
                queries=row["queries"],
                steps=row["steps"],
                objective=row["objective"],
                validation_rank_1=_rate(row["validation_rank_1"]),
                validation_cosine=_rate(row["validation_cosine"]),
                seconds=_rate(row["seconds"]),
                curve=json.loads(row["curve"]),
                best=row["trial"] == best,
                optimal=row["trial"] in optimal,
            )
        )
    return trials


def _rate(value: float | None) -> float:
    return 0.0 if value is None or not np.isfinite(value) else value


def best_candidate(config: InversionConfig, trial: Trial) -> Candidate:
    """What the best trial has tried, named after the inverter that was varied."""
    settings = config.inversion
    made = candidate_of(settings.searched, settings.budget, trial.settings)
    label = f"{settings.searched.name}-{TUNED}"
    return Candidate(replace(made.inversion, label=label), made.budget)


def as_attack(config: InversionConfig, found: Candidate, key: str) -> str:
    """A candidate as a file of the Hydra group ``attack``."""
    rung: dict[str, Any] = settings_of(config.rung(*found))
    rung["label"] = key
    rung["inverter"]["label"] = None
    text: str = yaml.safe_dump(rung, sort_keys=False, allow_unicode=True)
    return (
        f"# @package attack.{key}\n# The best inverter of a search. With the folder above "
        f"this one's folder as --config-dir:\n#   attack=[off_the_shelf,{key}]\n{text}"
    )


MOST_DECIBELS = 100.0
"""Peak signal-to-noise ratio that counts for equal pictures, whose own is infinite."""


class InversionStudy:
    """Runs one inversion on the connected cluster.

    Args:
        config: what is tried.
        announce: called with lines of progress.
    """

    def __init__(self, config: InversionConfig, announce: Callable[[str], None]) -> None:
        self.config = config
        self.announce = announce
        self.stages = Stages(config.audit.work, announce)
        self.notes: list[str] = []
        self.rows: list[Row] = []
        self.recoveries: list[Recovery] = []
        self.learning: list[Learning] = []
        self.grids: dict[str, Grid] = {}

    def run(self) -> InversionReport:
        """Anonymize, search, learn the way back, and judge.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.pipelines.audit.Audit.run`.
        """
        self.config.check()
        audit = self.config.with_rungs(None)
        exposure = Exposure(audit, self.stages, self.announce)
        exposure.check()
        faces = exposure.faces(exposure.listing())
        redrawn = {key: exposure.redraw(key, faces) for key in audit.anonymizer}
        raw = Campaign(self.config.raw(), self.stages, self.announce, self.notes).run(
            faces, redrawn
        )
        self._note_weakness(raw)
        searches: list[Search] = []
        for key, member in audit.anonymizer.items():
            table = redrawn[key]
            best, found, rebuilt = None, Findings(), {}
            if self._can_learn(member, table):
                if self.config.inversion.search.trials:
                    done, best = run_search(self.config, self.stages, member.name, faces, table)
                    searches.append(done)
                campaign = Campaign(
                    self.config.with_rungs(best), self.stages, self.announce, self.notes
                )
                found = campaign.run(faces, {key: table})
                rebuilt = {name: stage for (name, _), stage in campaign.rebuilt.items()}
            self.learning += [Learning(*who, curve) for who, (curve, *_) in found.curves.items()]
            found.attacks[:0] = [one for one in raw.attacks if one.anonymizer == member.name]
            self._judge(member.name, found, best)
            self._show(member.name, faces, {RAW: table, **rebuilt}, found)
        self.notes[:0] = exposure.notes
        order: list[str] = [*audit.audit.galleries]
        self.recoveries.sort(key=lambda one: order.index(one.gallery))
        return InversionReport(
            self.rows,
            self.recoveries,
            self.learning,
            searches,
            self.grids,
            list(dict.fromkeys(self.notes)),
            audit.audit.level,
            self.config.inversion.judge.name,
            faces.manifest.content[:16],
        )

    def _can_learn(self, member: Setting, table: StageTable) -> bool:
        """Whether the attacker has pictures of a setting that differ from the photographs."""
        if member.unchanged:
            return False
        if all(table.count(split) for split in (ATTACKER, ATTACKER_VALIDATION)):
            return True
        self.notes.append(
            f"{member.name} was not turned back: there are no anonymized pictures of attacker and "
            "validation people to learn from."
        )
        return False

    def _judge(self, name: str, found: Findings, best: Candidate | None) -> None:
        """Rates of everything that was tried on one anonymizer, and the verdicts."""
        settings = self.config.audit.audit
        tried = [one.inversion for one in self.config.attempts(best)]
        for gallery in settings.galleries:
            place = main_protocol(settings), gallery
            attacks = {
                one.attacker: one for one in found.attacks if (one.protocol, one.gallery) == place
            }
            for attacker, attack in attacks.items():
                self._add_rate(attack, found.queries.get((name, attacker), 0))
            for inverter in tried:
                if inverter.name in attacks:
                    queries = found.queries[name, inverter.name]
                    self._compare(attacks, inverter.name, controls_of(inverter), queries)

    def _show(
        self, name: str, faces: StageTable, tables: dict[str, StageTable], found: Findings
    ) -> None:
        """How near the pictures come to the photographs, and some of them side by side."""
        pictures = {
            attacker: shown(faces, table, "image" if attacker == RAW else "guesses")
            for attacker, table in tables.items()
        }
        for attacker, one in pictures.items():
            self._add_likeness(name, attacker, one, found.queries.get((name, attacker), 0))
        controls = {*controls_of(MEAN), *(one for one in pictures if one.endswith(SHUFFLED))}
        names = [one for one in pictures if one != RAW and one not in controls]
        self.grids[name] = grid(pictures, names, self.config.inversion.grid_pictures)

    def _note_weakness(self, found: Findings) -> None:
        rate = max(found.clear.values(), default=0.0)
        wanted = self.config.audit.audit.min_clear_rank_1
        if rate < wanted:
            self.notes.append(
                f"The judge, {self.config.inversion.judge.name}, names {percent(rate)} of clear "
                f"photographs, less than the {percent(wanted)} of audit.min_clear_rank_1: that it "
                "names nobody is no proof that nobody can be recognised."
            )

    def _add_rate(self, attack: Attack, queries: int) -> None:
        interval = self._interval(attack)
        guess = chance(1, attack.ranks.gallery_size)
        self._add(attack, "rank_1", interval, queries, guess=guess)

    def _compare(
        self, attacks: dict[str, Attack], name: str, controls: list[str], queries: int
    ) -> None:
        attack = attacks[name]
        gains = {other: self._gain(attack, attacks[other]) for other in [RAW, *controls]}
        for other, gain in gains.items():
            self._add(attack, "rank_1_gain", gain, queries, other)
        raw = gains.pop(RAW)
        self.recoveries.append(
            Recovery(
                attack.anonymizer,
                name,
                attack.gallery,
                self._interval(attack),
                self._interval(attacks[RAW]),
                chance(1, attack.ranks.gallery_size),
                raw,
                min(gains, key=lambda control: gains[control].value),
                gains,
                queries,
            )
        )

    def _interval(self, attack: Attack) -> Interval:
        settings = self.config.audit.audit
        return bootstrap_identities(
            attack.rank_1,
            attack.ranks.identities,
            settings.level,
            settings.resamples,
            settings.seed,
        )

    def _gain(self, attack: Attack, other: Attack) -> Interval:
        if not np.array_equal(attack.ranks.sample_ids, other.ranks.sample_ids):
            raise BadInputError(f"{attack.attacker} and {other.attacker} saw different probes")
        settings = self.config.audit.audit
        return rank_1_gain(
            attack.rank_1,
            other.rank_1,
            attack.ranks.identities,
            settings.level,
            settings.resamples,
            settings.seed,
        )

    def _add(
        self,
        attack: Attack,
        measure: str,
        interval: Interval,
        queries: int,
        other: str = "",
        guess: float | None = None,
    ) -> None:
        people = attack.ranks.identities
        self.rows.append(
            Row(
                attack.anonymizer,
                attack.attacker,
                attack.gallery,
                measure,
                *interval,
                len(people),
                len(np.unique(people)),
                queries,
                other,
                guess,
            )
        )

    def _add_likeness(self, anonymizer: str, attacker: str, one: Shown, queries: int) -> None:
        settings = self.config.audit.audit
        found = fidelity(one.photos, one.guesses)
        counts = len(one.people), len(np.unique(one.people))
        for measure, values in (
            ("psnr", np.minimum(found.psnr, MOST_DECIBELS)),
            ("ssim", found.ssim),
        ):
            interval = bootstrap_mean(
                values, one.people, settings.level, settings.resamples, settings.seed
            )
            self.rows.append(Row(anonymizer, attacker, "", measure, *interval, *counts, queries))
