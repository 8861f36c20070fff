"""Evaluation people's images beside their images: anonymized ones and reconstructions.

Searches of better reconstruction models, one for each anonymizer, and what is made of them.

The plan of an inversion: search, fit reconstruction models and controls, let the judge name the outcome.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from cldmray.anonymizers.base import AnonymizerBase
from cldmray.arrays import Images, Interval
from cldmray.config.reconstruction import (
    MEAN,
    RAW,
    ReconstructionConfig,
    candidate_of,
    controls_of,
    settings_of,
)
from cldmray.engine.artifacts import Artifact
from cldmray.engine.reconstruction_training import check_validation, queried
from cldmray.engine.stages import Stages
from cldmray.engine.tuning import Candidate, Dimension, Material, read_trials, search
from cldmray.errors import BadInputError
from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, decode_images
from cldmray.gallery.protocols import Strings
from cldmray.metrics.confidence import bootstrap_identities, bootstrap_mean
from cldmray.metrics.identification import chance
from cldmray.metrics.pareto import pareto_front
from cldmray.metrics.reconstruction import fidelity, rank_1_gain
from cldmray.pipelines.attack_runner import AttackResults, AttackRunner
from cldmray.pipelines.attribution_study import main_protocol
from cldmray.pipelines.data_preparation import DataPreparation
from cldmray.report.formatting import percent
from cldmray.report.statements import reconstruction_headline
from cldmray.results.audit import Grid, GridRow
from cldmray.results.reconstruction import (
    SHUFFLED,
    Learning,
    ReconstructionReport,
    ReconstructionResult,
    ReconstructionRow,
    Search,
    Trial,
)


class Shown(NamedTuple):
    """Images of evaluation people beside their images, row by row.

    Attributes:
        samples, people: shape (P,).
        images: shape (P, h, w, 3).
        guesses: shape (P, guesses, h, w, 3).
    """

    samples: list[str]
    identities: Strings
    originals: Images
    guesses: npt.NDArray[np.uint8]


def shown(faces: Artifact, table: Artifact, column: str) -> Shown:
    """Evaluation people's images of a table beside their images, by rising sample id.

    Args:
        column: ``image``, one encoded image a row, or ``guesses``, a list of them; only the first
            draw, and no views of regions, are taken.
    """
    originals = faces.read(["sample_id", "identity", "image"], EVALUATION)
    columns = (originals[name].to_pylist() for name in ("sample_id", "identity", "image"))
    known = {sample: (identity, image) for sample, identity, image in zip(*columns, strict=True)}
    images: dict[str, list[bytes]] = {}
    rows: pa.Table = table.read()
    views = rows["view"].to_pylist() if "view" in rows.column_names else [""] * len(rows)
    for sample, found, view in zip(
        rows["sample_id"].to_pylist(), rows[column].to_pylist(), views, strict=True
    ):
        if sample in known and sample not in images and " region=" not in view:
            images[sample] = [found] if column == "image" else found
    samples = sorted(images)
    flat = decode_images(image for sample in samples for image in images[sample])
    guesses = flat.reshape(len(samples), -1, *flat.shape[1:])
    return Shown(
        samples,
        np.asarray([known[sample][0] for sample in samples]),
        decode_images(known[sample][1] for sample in samples),
        guesses,
    )


def grid(images: dict[str, Shown], reconstructors: list[str], count: int) -> Grid:
    """The first image of the first people, and what became of it; no more than ``count``.

    The rows are the anonymized images, then each reconstruction model's first guess.
    """
    raw = images[RAW]
    _, rows = np.unique(raw.identities, return_index=True)
    chosen = rows[:count]
    return Grid(
        raw.originals[chosen],
        [
            GridRow(name, None, images[name].guesses[chosen, 0])
            for name in [RAW, *reconstructors]
            if images[name].samples == raw.samples
        ],
    )


TUNED = "tuned"
"""Ends the name of the reconstruction model that a search has found."""


def run_search(
    config: ReconstructionConfig, stages: Stages, name: str, faces: Artifact, anonymized: Artifact
) -> tuple[Search, Candidate]:
    """Search an reconstruction model of one anonymizer's images; the stage is found again if it has run.

    Args:
        name: of the anonymizer.
        anonymized: its table.

    Returns:
        All trials, and the best candidate, named after the one that was varied.

    Raises:
        BadInputError: no validation person can be named.
        CldmrayError: every trial failed.
    """
    settings = config.reconstruction
    space = settings.search

    def produce(folder: str) -> None:
        validation = queried(faces, anonymized, ATTACKER_VALIDATION).pairs
        check_validation(validation)
        material = Material(
            queried(faces, anonymized, ATTACKER), validation, settings.validation_recognizer
        )
        search(material, config.make, longest(config), space, config.audit.engine, folder)

    decides = {
        "reconstructor": settings.searched,
        "validation_recognizer": settings.validation_recognizer,
        "budget": settings.budget,
        "search": replace(space, max_concurrent_trials=1, cpus=1.0, gpus=0.0),
        "concurrent": space.max_concurrent_trials,
    }
    stage = stages.run(f"search-{name}", decides, [faces.key, anonymized.key], produce)
    table = read_trials(stage)
    trials = told(table, space.space)
    found = best_candidate(config, trials[0])
    key = (
        "reconstruction_best"
        if single(config)
        else f"inversion_best_{re.sub(r'[^A-Za-z0-9]', '_', name)}"
    )
    return Search(name, space.objective, trials, key, as_attack(config, found, key)), found


def single(config: ReconstructionConfig) -> bool:
    """Whether one anonymizer alone is inverted."""
    return len(config.audit.anonymizers) == 1


def longest(config: ReconstructionConfig) -> int:
    """Steps of the longest training that a trial may take."""
    settings = config.reconstruction
    dimension = settings.search.space.get("training.max_steps")
    return max([settings.searched.max_steps] if dimension is None else dimension.extremes)


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


def best_candidate(config: ReconstructionConfig, trial: Trial) -> Candidate:
    """What the best trial has tried, named after the reconstruction model that was varied."""
    settings = config.reconstruction
    made = candidate_of(settings.searched, settings.budget, trial.settings)
    label = f"{settings.searched.name}-{TUNED}"
    return Candidate(replace(made.reconstruction, label=label), made.budget)


def as_attack(config: ReconstructionConfig, found: Candidate, key: str) -> str:
    """A candidate as a file of the Hydra group ``attack``."""
    attacker: dict[str, Any] = settings_of(config.attacker(*found))
    attacker["label"] = key
    attacker["model"]["label"] = None
    text: str = yaml.safe_dump(attacker, sort_keys=False, allow_unicode=True)
    return (
        f"# @package attackers.{key}\n# The best reconstruction model of a search. With the folder above "
        f"this one's folder as --config-dir:\n#   attackers=[pretrained,{key}]\n{text}"
    )


MOST_DECIBELS = 100.0
"""Peak signal-to-noise ratio that counts for equal images, whose own is infinite."""


class ReconstructionStudy:
    """Runs one inversion on the connected cluster.

    Args:
        config: what is tried.
    """

    def __init__(self, config: ReconstructionConfig) -> None:
        self.config = config
        self.stages = Stages(config.audit.cache_dir)
        self.notes: list[str] = []
        self.rows: list[ReconstructionRow] = []
        self.results: list[ReconstructionResult] = []
        self.learning: list[Learning] = []
        self.grids: dict[str, Grid] = {}

    def run(self) -> ReconstructionReport:
        """Anonymize, search, learn the reconstruction, and judge.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.pipelines.audit.Audit.run`.
        """
        self.config.check()
        audit = self.config.with_attackers(None)
        preparation = DataPreparation(audit, self.stages)
        preparation.check()
        faces = preparation.faces(preparation.listing())
        anonymized = {key: preparation.anonymize(key, faces) for key in audit.anonymizers}
        raw = AttackRunner(self.config.raw(), self.stages, self.notes).run(faces, anonymized)
        self._note_weakness(raw)
        searches: list[Search] = []
        for key, anonymizer in audit.anonymizers.items():
            table = anonymized[key]
            best, found, rebuilt = None, AttackResults(), {}
            if self._can_learn(anonymizer, table):
                if self.config.reconstruction.search.trials:
                    done, best = run_search(self.config, self.stages, anonymizer.name, faces, table)
                    searches.append(done)
                runner = AttackRunner(self.config.with_attackers(best), self.stages, self.notes)
                found = runner.run(faces, {key: table})
                rebuilt = {name: stage for (name, _), stage in runner.rebuilt.items()}
            self.learning += [Learning(*who, curve) for who, (curve, *_) in found.curves.items()]
            found.attacks[:0] = [one for one in raw.attacks if one.anonymizer == anonymizer.name]
            self._judge(anonymizer.name, found, best)
            self._show(anonymizer.name, faces, {RAW: table, **rebuilt}, found)
        self.notes[:0] = preparation.notes
        order: list[str] = [*audit.audit.galleries]
        self.results.sort(key=lambda one: order.index(one.gallery))
        report = ReconstructionReport(
            self.rows,
            self.results,
            self.learning,
            searches,
            self.grids,
            list(dict.fromkeys(self.notes)),
            audit.audit.confidence_level,
            self.config.reconstruction.held_out_recognizer.name,
            faces.manifest.content[:16],
        )
        return replace(report, headline=reconstruction_headline(report))

    def _can_learn(self, anonymizer: AnonymizerBase, table: Artifact) -> bool:
        """Whether the attacker has images of a setting that differ from the images."""
        if anonymizer.unchanged:
            return False
        if all(table.count(split) for split in (ATTACKER, ATTACKER_VALIDATION)):
            return True
        self.notes.append(
            f"{anonymizer.name} was not turned back: there are no anonymized images of attacker and "
            "validation people to learn from."
        )
        return False

    def _judge(self, name: str, found: AttackResults, best: Candidate | None) -> None:
        """Rates of everything that was tried on one anonymizer, and the verdicts."""
        settings = self.config.audit.audit
        tried = [one.reconstruction for one in self.config.attempts(best)]
        for gallery in settings.galleries:
            place = main_protocol(settings), gallery
            attacks = {
                one.attacker: one for one in found.attacks if (one.protocol, one.gallery) == place
            }
            for attacker, attack in attacks.items():
                self._add_rate(attack, found.queries.get((name, attacker), 0))
            for reconstructor in tried:
                if reconstructor.name in attacks:
                    queries = found.queries[name, reconstructor.name]
                    self._compare(attacks, reconstructor.name, controls_of(reconstructor), queries)

    def _show(
        self, name: str, faces: Artifact, tables: dict[str, Artifact], found: AttackResults
    ) -> None:
        """How near the images come to the images, and some of them side by side."""
        images = {
            attacker: shown(faces, table, "image" if attacker == RAW else "guesses")
            for attacker, table in tables.items()
        }
        for attacker, one in images.items():
            self._add_likeness(name, attacker, one, found.queries.get((name, attacker), 0))
        controls = {*controls_of(MEAN), *(one for one in images if one.endswith(SHUFFLED))}
        names = [one for one in images if one != RAW and one not in controls]
        self.grids[name] = grid(images, names, self.config.reconstruction.n_example_images)

    def _note_weakness(self, found: AttackResults) -> None:
        rate = max(found.clean.values(), default=0.0)
        wanted = self.config.audit.audit.min_clean_rank_1
        if rate < wanted:
            self.notes.append(
                f"The judge, {self.config.reconstruction.held_out_recognizer.name}, names {percent(rate)} of clean "
                f"images, less than the {percent(wanted)} of audit.min_clean_rank_1: that it "
                "names nobody is no proof that nobody can be recognised."
            )

    def _add_rate(self, attack: AttackResult, queries: int) -> None:
        interval = self._interval(attack)
        guess = chance(1, attack.ranks.gallery_size)
        self._add(attack, "rank_1", interval, queries, guess=guess)

    def _compare(
        self, attacks: dict[str, AttackResult], name: str, controls: list[str], queries: int
    ) -> None:
        attack = attacks[name]
        gains = {other: self._gain(attack, attacks[other]) for other in [RAW, *controls]}
        for other, gain in gains.items():
            self._add(attack, "rank_1_gain", gain, queries, other)
        raw = gains.pop(RAW)
        self.results.append(
            ReconstructionResult(
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

    def _interval(self, attack: AttackResult) -> Interval:
        settings = self.config.audit.audit
        return bootstrap_identities(
            attack.rank_1,
            attack.ranks.identities,
            settings.confidence_level,
            settings.n_bootstrap,
            settings.seed,
        )

    def _gain(self, attack: AttackResult, other: AttackResult) -> Interval:
        if not np.array_equal(attack.ranks.sample_ids, other.ranks.sample_ids):
            raise BadInputError(f"{attack.attacker} and {other.attacker} saw different probes")
        settings = self.config.audit.audit
        return rank_1_gain(
            attack.rank_1,
            other.rank_1,
            attack.ranks.identities,
            settings.confidence_level,
            settings.n_bootstrap,
            settings.seed,
        )

    def _add(
        self,
        attack: AttackResult,
        measure: str,
        interval: Interval,
        queries: int,
        other: str = "",
        guess: float | None = None,
    ) -> None:
        identities = attack.ranks.identities
        self.rows.append(
            ReconstructionRow(
                attack.anonymizer,
                attack.attacker,
                attack.gallery,
                measure,
                *interval,
                len(identities),
                len(np.unique(identities)),
                queries,
                other,
                guess,
            )
        )

    def _add_likeness(self, anonymizer: str, attacker: str, one: Shown, queries: int) -> None:
        settings = self.config.audit.audit
        found = fidelity(one.originals, one.guesses)
        counts = len(one.identities), len(np.unique(one.identities))
        for measure, values in (
            ("psnr", np.minimum(found.psnr, MOST_DECIBELS)),
            ("ssim", found.ssim),
        ):
            interval = bootstrap_mean(
                values,
                one.identities,
                settings.confidence_level,
                settings.n_bootstrap,
                settings.seed,
            )
            self.rows.append(
                ReconstructionRow(anonymizer, attacker, "", measure, *interval, *counts, queries)
            )
