"""The plan of a reconstruction study: search, train models and controls, compare their rates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray.anonymizers.base import Anonymizer
from cldmray.arrays import Images, Interval
from cldmray.attackers.data import Table
from cldmray.config.audit import AuditConfig
from cldmray.config.reconstruction import MEAN, RAW, ReconstructionConfig, controls_of
from cldmray.engine.artifacts import Artifact
from cldmray.engine.stages import Stages
from cldmray.engine.tuning import TrialSpec
from cldmray.errors import BadInputError
from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, decode_images
from cldmray.gallery.protocols import Strings
from cldmray.metrics.confidence import bootstrap_mean
from cldmray.metrics.identification import chance
from cldmray.metrics.rates import rate_interval
from cldmray.metrics.reconstruction import fidelity, rank_1_gain
from cldmray.pipelines.attack_runner import AttackResults, AttackRunner
from cldmray.pipelines.attribution_study import main_protocol
from cldmray.pipelines.data_preparation import DataPreparation
from cldmray.pipelines.reconstruction_search import run_search
from cldmray.report.formatting import percent
from cldmray.report.statements import reconstruction_headline
from cldmray.results.audit import Grid, GridRow
from cldmray.results.reconstruction import (
    SHUFFLED,
    Learning,
    ReconstructionReport,
    ReconstructionRow,
    ReconstructionVerdict,
    Search,
)

MAX_DECIBELS = 100.0
"""Peak signal-to-noise ratio that counts for equal images, whose own is infinite."""


class ReconstructedImages(NamedTuple):
    """Original images of evaluated identities, and reconstructions of them, row by row.

    Attributes:
        samples, identities: shape (P,).
        originals: shape (P, h, w, 3).
        guesses: shape (P, guesses, h, w, 3).
    """

    samples: list[str]
    identities: Strings
    originals: Images
    guesses: npt.NDArray[np.uint8]


def reconstructed_images(faces: Artifact, table: Table, column: str) -> ReconstructedImages:
    """Images of evaluated identities in a table, beside their originals, by rising sample id.

    Args:
        column: ``image``, one encoded image a row, or ``guesses``, a list of them. Only the first
            sample of each is taken, and no views of regions.
    """
    rows = faces.read(["sample_id", "identity", "image"], EVALUATION)
    columns = (rows[name].to_pylist() for name in ("sample_id", "identity", "image"))
    originals = {
        sample: (identity, image) for sample, identity, image in zip(*columns, strict=True)
    }
    guesses = _first_guesses(table.read(), column)
    samples = sorted(sample for sample in guesses if sample in originals)
    flat = decode_images(image for sample in samples for image in guesses[sample])
    return ReconstructedImages(
        samples,
        np.asarray([originals[sample][0] for sample in samples]),
        decode_images(originals[sample][1] for sample in samples),
        flat.reshape(len(samples), -1, *flat.shape[1:]),
    )


def _first_guesses(rows: pa.Table, column: str) -> dict[str, list[bytes]]:
    """The encoded guesses in the first row of each sample that shows the whole image."""
    views = rows["view"].to_pylist() if "view" in rows.column_names else [""] * len(rows)
    guesses: dict[str, list[bytes]] = {}
    for sample, value, view in zip(
        rows["sample_id"].to_pylist(), rows[column].to_pylist(), views, strict=True
    ):
        if sample not in guesses and " region=" not in view:
            guesses[sample] = [value] if column == "image" else value
    return guesses


def grid(images: Mapping[str, ReconstructedImages], models: Sequence[str], count: int) -> Grid:
    """The first image of the first identities, and its reconstructions; at most ``count``.

    The rows are the anonymized images, then each reconstruction model's first guess.
    """
    raw = images[RAW]
    _, rows = np.unique(raw.identities, return_index=True)
    rows = rows[:count]
    return Grid(
        raw.originals[rows],
        [
            GridRow(name, None, images[name].guesses[rows, 0])
            for name in [RAW, *models]
            if images[name].samples == raw.samples
        ],
    )


class ReconstructionStudy:
    """Runs one reconstruction study on the connected cluster.

    Args:
        config: what is tried.
    """

    def __init__(self, config: ReconstructionConfig) -> None:
        self.config = config
        self.stages = Stages(config.audit.cache_dir)

    def run(self) -> ReconstructionReport:
        """Anonymize, search, train reconstruction models, and compare them with their controls.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.pipelines.audit.Audit.run`.
        """
        self.config.check()
        audit = self.config.with_attackers(None)
        preparation = DataPreparation(audit, self.stages)
        preparation.check()
        with self.stages:
            return self._study(audit, preparation)

    def _study(self, audit: AuditConfig, preparation: DataPreparation) -> ReconstructionReport:
        prepared = preparation.run(preparation.listing())
        faces, anonymized, contents = prepared.faces, prepared.anonymized, prepared.content_ids
        raw = AttackRunner(self.config.raw(), self.stages).run(faces, anonymized, contents)
        notes = [*raw.notes, *self.weakness(raw)]
        rows: list[ReconstructionRow] = []
        results: list[ReconstructionVerdict] = []
        learning: list[Learning] = []
        searches: list[Search] = []
        grids: dict[str, Grid] = {}
        for key, anonymizer in audit.anonymizers.items():
            name, table = anonymizer.name, anonymized[key]
            obstacle = self._obstacle(anonymizer, table)
            attacked, best = AttackResults(), None
            if obstacle is None:
                if self.config.reconstruction.search.trials:
                    search, best = run_search(self.config, self.stages, name, faces, table)
                    searches.append(search)
                runner = AttackRunner(self.config.with_attackers(best), self.stages)
                attacked = runner.run(faces, {key: table}, contents)
            notes += [*attacked.notes, *([obstacle] if obstacle else [])]
            learning += [Learning(*pair, curves[0]) for pair, curves in attacked.curves.items()]
            attacks = [attack for attack in raw.attacks if attack.anonymizer == name]
            rates, compared = self.compare([*attacks, *attacked.attacks], attacked.queries, best)
            rows += rates
            results += compared
            tables = {attacker: probes for (_, attacker), probes in attacked.probes.items()}
            images = {RAW: reconstructed_images(faces, table, "image")}
            images |= {
                attacker: reconstructed_images(faces, probes, "guesses")
                for attacker, probes in tables.items()
            }
            rows += self._likeness_rows(name, images, attacked.queries)
            grids[name] = self._grid(images)
        order: list[str] = [*audit.audit.galleries]
        report = ReconstructionReport(
            rows,
            sorted(results, key=lambda result: order.index(result.gallery)),
            learning,
            searches,
            grids,
            list(dict.fromkeys([*prepared.notes, *notes])),
            audit.audit.confidence_level,
            self.config.reconstruction.held_out_recognizer.name,
            faces.manifest.content[:16],
        )
        return replace(report, headline=reconstruction_headline(report))

    def weakness(self, results: AttackResults) -> list[str]:
        """A note where the held-out recognizer does not recognize clean faces well enough."""
        rate = max(results.clean.values(), default=0.0)
        required = self.config.audit.audit.min_clean_rank_1
        if rate >= required:
            return []
        return [
            f"The held-out recognizer, {self.config.reconstruction.held_out_recognizer.name}, "
            f"identifies {percent(rate)} of clean images, less than the {percent(required)} of "
            "audit.min_clean_rank_1: that it identifies nobody is no proof that nobody can be "
            "recognized."
        ]

    def compare(
        self,
        attacks: Sequence[AttackResult],
        queries: Mapping[tuple[str, str], int],
        best: TrialSpec | None,
    ) -> tuple[list[ReconstructionRow], list[ReconstructionVerdict]]:
        """Rates of all attacks on one anonymizer, and each model compared with its controls.

        Args:
            queries: anonymized images that each attacker has learnt from.
            best: candidate of a search.
        """
        settings = self.config.audit.audit
        rows: list[ReconstructionRow] = []
        results: list[ReconstructionVerdict] = []
        models = [candidate.reconstruction for candidate in self.config.attempts(best)]
        for gallery in settings.galleries:
            place = main_protocol(settings), gallery
            by_name = {a.attacker: a for a in attacks if (a.protocol, a.gallery) == place}
            for attack in by_name.values():
                pair = attack.anonymizer, attack.attacker
                rate, level = self._rate(attack), chance(1, attack.ranks.gallery_size)
                rows.append(_row(attack, "rank_1", rate, queries.get(pair, 0), level=level))
            for model in models:
                if model.name in by_name:
                    result = self._compared(by_name, model.name, controls_of(model), queries)
                    gains = {RAW: result.gain_over_raw, **result.gain_over_controls}
                    rows += [
                        _row(by_name[model.name], "rank_1_gain", gain, result.queries, other=other)
                        for other, gain in gains.items()
                    ]
                    results.append(result)
        return rows, results

    def _obstacle(self, anonymizer: Anonymizer, table: Artifact) -> str | None:
        """Why nothing can be learnt from an anonymizer's images; None if something can.

        It is empty where the anonymizer leaves images as they are, which needs no note.
        """
        if anonymizer.unchanged:
            return ""
        if all(table.count(split) for split in (ATTACKER, ATTACKER_VALIDATION)):
            return None
        return (
            f"{anonymizer.name} was not reconstructed: there are no anonymized images of attacker "
            "and validation people to learn from."
        )

    def _grid(self, images: Mapping[str, ReconstructedImages]) -> Grid:
        """Some images side by side, of the models without their controls."""
        controls = {*controls_of(MEAN), *(name for name in images if name.endswith(SHUFFLED))}
        models = [name for name in images if name != RAW and name not in controls]
        return grid(images, models, self.config.reconstruction.n_example_images)

    def _compared(
        self,
        attacks: Mapping[str, AttackResult],
        name: str,
        controls: Sequence[str],
        queries: Mapping[tuple[str, str], int],
    ) -> ReconstructionVerdict:
        """One model's rate, and its gains over the unreconstructed images and over the controls."""
        attack = attacks[name]
        gains = {control: self.gain(attack, attacks[control]) for control in controls}
        return ReconstructionVerdict(
            attack.anonymizer,
            name,
            attack.gallery,
            self._rate(attack),
            self._rate(attacks[RAW]),
            chance(1, attack.ranks.gallery_size),
            self.gain(attack, attacks[RAW]),
            min(gains, key=lambda control: gains[control].value),
            gains,
            queries[attack.anonymizer, name],
        )

    def _rate(self, attack: AttackResult) -> Interval:
        """Rank-1 rate with its interval."""
        settings = self.config.audit.audit
        return rate_interval(
            attack.rank_1,
            attack.ranks.identities,
            samples=attack.ranks.sample_ids,
            confidence_level=settings.confidence_level,
        )

    def gain(self, attack: AttackResult, other: AttackResult) -> Interval:
        """Paired difference of two attacks' rank-1 rates, with its interval.

        Raises:
            BadInputError: they saw different probes.
        """
        if not np.array_equal(attack.ranks.sample_ids, other.ranks.sample_ids):
            raise BadInputError(f"{attack.attacker} and {other.attacker} saw different probes")
        settings = self.config.audit.audit
        return rank_1_gain(
            attack.rank_1,
            other.rank_1,
            attack.ranks.identities,
            **settings.bootstrap,
        )

    def _likeness_rows(
        self,
        anonymizer: str,
        images: Mapping[str, ReconstructedImages],
        queries: Mapping[tuple[str, str], int],
    ) -> list[ReconstructionRow]:
        """How near anonymized images and reconstructions come to the originals."""
        settings = self.config.audit.audit
        rows = []
        for attacker, pairs in images.items():
            likeness = fidelity(pairs.originals, pairs.guesses)
            counts = len(pairs.identities), len(np.unique(pairs.identities))
            for measure, values in (
                ("psnr", np.minimum(likeness.psnr, MAX_DECIBELS)),
                ("ssim", likeness.ssim),
            ):
                interval = bootstrap_mean(
                    values,
                    pairs.identities,
                    **settings.bootstrap,
                )
                asked = queries.get((anonymizer, attacker), 0)
                rows.append(
                    ReconstructionRow(anonymizer, attacker, "", measure, *interval, *counts, asked)
                )
        return rows


def _row(
    attack: AttackResult,
    measure: str,
    interval: Interval,
    queries: int,
    *,
    other: str = "",
    level: float | None = None,
) -> ReconstructionRow:
    identities = attack.ranks.identities
    return ReconstructionRow(
        attack.anonymizer,
        attack.attacker,
        attack.gallery,
        measure,
        *interval,
        len(identities),
        len(np.unique(identities)),
        queries,
        other,
        level,
    )
