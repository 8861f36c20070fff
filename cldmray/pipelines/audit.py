"""The plan of an audit: which stages run, in which order, and what is made of them."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import hashing, storage
from cldmray.config.audit import AuditConfig
from cldmray.engine.artifacts import Artifact, Manifest, commit, read_manifest
from cldmray.engine.source_code import code_fingerprint, package_hash
from cldmray.engine.stages import Stages
from cldmray.engine.tasks import map_in_tasks
from cldmray.evaluation.by_identity.exposed import exposed
from cldmray.evaluation.decision import decide
from cldmray.evaluation.diagnostics import learning_curves, weaknesses
from cldmray.evaluation.gate import check_identities
from cldmray.evaluation.identification import (
    AttackResult,
    anonymizer_risks,
    curve,
    det,
    shown_attacks,
    strongest,
)
from cldmray.evaluation.rows import results_table
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, AUXILIARY, EVALUATION
from cldmray.gallery.identities import gallery_size
from cldmray.pipelines.attack_runner import AttackResults, AttackRunner
from cldmray.pipelines.attribution_study import AttributionAnalysis
from cldmray.pipelines.cost import Estimate
from cldmray.pipelines.data_preparation import DataPreparation, Listing, PreparedImages
from cldmray.pipelines.memorization import (
    check_memorization,
    measure_memorization,
    memorization_notes,
)
from cldmray.pipelines.utility import Utility, UtilityResult, untouched_notes
from cldmray.report.examples import ImageReader, choose_examples, example_grid, leak_evidence
from cldmray.report.formatting import percent
from cldmray.report.statements import (
    convergence_note,
    query_note,
    teacher_note,
    weakness_notes,
)
from cldmray.report.verdict import state_risks, state_verdict
from cldmray.results.attribution import Attribution
from cldmray.results.audit import (
    AnonymizerRisk,
    AuditReport,
    DataSummary,
    Evidence,
    Grid,
    StageRecord,
)
from cldmray.results.content import Memorization
from cldmray.results.files import read_audit, write_audit

logger = logging.getLogger(__name__)

REPORTS = "reports"
"""Folder of the kept reports, beside those of the stages."""
ATTACKS = "attacks.json"
"""File of a kept report: curves, weights and queries of every attack."""
UNDECISIVE = ("output", "cache_dir", "tracking", "engine")
"""Settings that change no number of a report."""


@dataclass(frozen=True)
class AuditOutcome:
    """What came of an audit.

    Attributes:
        report: everything that the page shows.
        results: what came of the attacks; where the report of an earlier audit was found, only
            curves, weights and queries.
    """

    report: AuditReport
    results: AttackResults


class Audit:
    """Runs one audit on the connected cluster.

    Args:
        config: what to audit.
        settings: the same as plain data, for the report.
    """

    def __init__(self, config: AuditConfig, settings: dict[str, Any]) -> None:
        self.config = config
        self.settings = settings
        self.stages = Stages(config.cache_dir)
        self.preparation = DataPreparation(config, self.stages)
        self.runner = AttackRunner(config, self.stages)
        self.utility = Utility(config, self.stages)

    def plan(self) -> Listing:
        """Check everything and log what will be done, at which cost.

        Returns:
            The samples that are used, and caveats.

        Raises:
            BadInputError, CldmrayError: as :meth:`run` says.
        """
        settings = self.config.audit
        self.preparation.check()
        self.runner.check()
        self.utility.check()
        check_memorization(self.config)
        listing = self.preparation.listing()
        samples = listing.samples
        size = gallery_size(self.config.gallery, self.config.faces, samples)
        check_identities(settings.policy.rules, size)
        estimate = Estimate(self.config, self.stages, self.preparation)
        for line in estimate.lines(estimate.steps(samples, always=settings.dry_run)):
            logger.info(line)
        return listing

    def run(self, versions: dict[str, str]) -> AuditOutcome:
        """Read and anonymize the images, attack, measure utility, attribute, and decide.

        Args:
            versions: package versions for the report.

        Raises:
            BadInputError: the data cannot be audited; the message says why.
            CldmrayError: an attacker lacks what it needs, which is found before any work starts.
        """
        listing = self.plan()
        with self.stages:
            images = self.preparation.run(listing)
            training_faces = self.preparation.training_faces()
            measurement = self.utility.start(images.faces, images.anonymized)
            attempts = self.runner.fit(
                images.faces,
                images.anonymized,
                images.content_ids,
                distractors=images.distractors,
                references=images.references,
                reads_attributes=True,
            )
            key = self._report_key([*listing.notes, *images.notes], versions)
            folder = storage.join(self.config.cache_dir, REPORTS, key)
            earlier = self._earlier(folder)
            if earlier is not None:
                return replace(earlier, report=self._dated(earlier.report, versions))
            results = self.runner.score(attempts, images.anonymized)
            embedded = {attacker: table for (_, attacker), table in results.embeddings.items()}
            utility = self.utility.result(measurement, embedded)
            memorized = measure_memorization(self.config, training_faces, self.runner, results)
            attribution = self._attribution(images.faces, results)
        report = self._report(
            listing,
            images,
            results,
            utility,
            memorized=memorized,
            attribution=attribution,
        )
        self._keep(folder, report, results)
        return AuditOutcome(self._dated(report, versions), results)

    def _report_key(self, notes: Sequence[str], versions: Mapping[str, str]) -> str:
        """Hash of all that decides the report once every image is embedded.

        Stages stand for images and embeddings. What is computed from these depends on nearly all
        of cldmray, so that all of its code counts.
        """
        config, groups = self.config, self.config.faces.groups()
        parts = [config.audit, config.gallery, config.report]
        parts += [config.anonymizers, config.attackers]
        decisive = {
            "stages": sorted(self.stages.keys),
            "settings": {k: v for k, v in self.settings.items() if k not in UNDECISIVE},
            "parts": hashing.canonicalize(parts),
            "code": [package_hash(), code_fingerprint(parts)],
            "groups": None if groups is None else groups.to_pylist(),
            "notes": list(notes),
            "versions": {name: v for name, v in versions.items() if name != "commit"},
        }
        return hashing.fingerprint(decisive)

    def _earlier(self, folder: str) -> AuditOutcome | None:
        """What an audit of the same images, settings and code has left; None: there was none."""
        if read_manifest(folder) is None:
            return None
        logger.info("compute the statistics: found")
        outcome = AuditOutcome(read_audit(folder), AttackResults())
        for attack in json.loads(storage.read_bytes(storage.join(folder, ATTACKS))):
            pair = attack["anonymizer"], attack["attacker"]
            outcome.results.curves[pair] = attack["curves"]
            if attack["weights"]:
                outcome.results.weights[pair] = attack["weights"]
            if attack["queries"] is not None:
                outcome.results.queries[pair] = attack["queries"]
        return outcome

    def _keep(self, folder: str, report: AuditReport, results: AttackResults) -> None:
        """Leave the report, and what is recorded of attacks, to later audits."""
        storage.make_folder(folder)
        write_audit(report, folder)
        attacks = [
            {
                "anonymizer": pair[0],
                "attacker": pair[1],
                "curves": curves,
                "weights": results.weights.get(pair),
                "queries": results.queries.get(pair),
            }
            for pair, curves in results.curves.items()
        ]
        storage.write_bytes(storage.join(folder, ATTACKS), json.dumps(attacks).encode())
        commit(folder, Manifest({}))

    def _dated(self, report: AuditReport, versions: dict[str, str]) -> AuditReport:
        """The report with what belongs to this run and not to its images."""
        return replace(
            report,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=self.settings,
            versions=versions,
            stages=[StageRecord(*time) for time in self.stages.times],
        )

    def _attribution(self, faces: Artifact, results: AttackResults) -> Attribution | None:
        """What carries the leak, where the audit asks for it."""
        if not self.config.audit.attribution:
            return None
        return AttributionAnalysis(self.config, self.stages, self.runner).explain(faces, results)

    def _report(
        self,
        listing: Listing,
        images: PreparedImages,
        results: AttackResults,
        utility: UtilityResult,
        *,
        memorized: list[Memorization],
        attribution: Attribution | None,
    ) -> AuditReport:
        """Everything that the report shows, with the decision, but for :meth:`_dated`."""
        config, faces = self.config, images.faces
        groups, group_notes = self.preparation.groups(listing.samples)
        names = [anonymizer.name for anonymizer in config.anonymizers.values()]
        by_name = {name: [a for a in results.attacks if a.anonymizer == name] for name in names}
        diagnostics = self.runner.diagnostics(results)
        weakness = weaknesses(diagnostics, config.audit.min_clean_rank_1)
        attacks = [attack for name in names for attack in by_name[name]]
        risks = anonymizer_risks(attacks, config.audit, weakness)
        ran = {(attack.anonymizer, attack.attacker) for attack in results.attacks}
        missed = {
            name: [a.name for a in config.attackers.values() if (name, a.name) not in ran]
            for name in names
        }
        controls = {item.name for item in config.anonymizers.values() if item.is_control}
        decision = decide(
            risks,
            controls,
            config.audit.policy,
            utility.rows,
            weakness=weakness,
            missed=missed,
        )
        notes = [
            *memorization_notes(config, memorized),
            *untouched_notes(
                utility.untouched, controls - {risk.anonymizer for risk in decision.candidates}
            ),
            *images.notes,
            *group_notes,
            *results.notes,
            *utility.notes,
            convergence_note(diagnostics),
            query_note(results.queries),
            teacher_note(
                config.faces.synthetic,
                any(attacker.has_teacher for attacker in config.attackers.values()),
            ),
            *weakness_notes(diagnostics, weakness),
            *self._nominal_k_notes(by_name),
        ]
        drawn = shown_attacks(risks, results.attacks)
        most_exposed = exposed(results.attacks, config.audit)
        return AuditReport(
            title=config.audit.title,
            created="",
            verdict=state_verdict(decision),
            risks=state_risks(decision),
            results=results_table(results.attacks, risks, config.audit, groups, map_in_tasks),
            curves=[curve(attack) for attack in drawn],
            det=[each for attack in drawn for each in det(attack)],
            grid=self._grid(faces, images.anonymized),
            evidence=self._evidence(images, decision.risks, results.attacks),
            rejected=faces.rejected(),
            n_listed=listing.samples.num_rows,
            settings={},
            versions={},
            stages=[],
            notes=[note for note in notes if note],
            data_fingerprint=faces.manifest.content[:16],
            utility=utility.rows,
            untouched=utility.untouched,
            inference=results.inference,
            memorization=memorized,
            diagnostics=diagnostics,
            attribution=attribution,
            exposed=most_exposed.images,
            exposed_identities=most_exposed.identities,
            data=self._data(faces),
            learning=learning_curves(results.curves),
        )

    def _examples(self, faces: Artifact, anonymized: dict[str, Artifact]) -> list[str]:
        """Samples of the example images; of all images only the ids are read."""
        ids = [table.read(["sample_id"], EVALUATION) for table in anonymized.values()]
        identities = faces.read(["sample_id", "identity"], EVALUATION)
        return choose_examples(identities, ids, self.config.audit.n_example_images)

    def _evidence(
        self, images: PreparedImages, risks: Sequence[AnonymizerRisk], attacks: list[AttackResult]
    ) -> list[Evidence]:
        """What the strongest attacks took images of leaking anonymizers for, if it may be shown."""
        if not self.config.report.shows_evidence(self.config.faces.synthetic):
            return []

        def reader(*tables: Artifact) -> ImageReader:
            return lambda samples: pa.concat_tables(
                table.read_samples(["sample_id", "image"], samples) for table in tables
            )

        return leak_evidence(
            risks,
            attacks,
            reader(*images.originals),
            {
                self.config.anonymizers[key].name: reader(table)
                for key, table in images.anonymized.items()
            },
        )

    def _data(self, faces: Artifact) -> DataSummary:
        """Whose images were audited."""
        rows = faces.read(["identity", "split"])

        def identities_in(*splits: str) -> pa.ChunkedArray:
            return rows.filter(pc.is_in(rows["split"], pa.array(splits)))["identity"]

        source, evaluated = self.config.faces, identities_in(EVALUATION)
        return DataSummary(
            name=source.name,
            synthetic=source.synthetic,
            n_identities=len(evaluated.unique()),
            n_images=len(evaluated),
            n_attacker_identities=len(identities_in(ATTACKER, ATTACKER_VALIDATION).unique()),
            n_auxiliary_identities=len(identities_in(AUXILIARY).unique()),
        )

    def _grid(self, faces: Artifact, anonymized: dict[str, Artifact]) -> Grid:
        """Example images of every anonymizer."""
        examples = self._examples(faces, anonymized)
        columns = ["sample_id", "image"]
        rows = {
            (anonymizer := self.config.anonymizers[key]).name: (
                anonymizer.conditions,
                table.read_samples(columns, examples),
            )
            for key, table in anonymized.items()
        }
        return example_grid(faces.read_samples(columns, examples), rows)

    def _nominal_k_notes(self, by_name: dict[str, list[AttackResult]]) -> list[str]:
        """A test of each method's own k where its promise speaks: with everybody's images known.

        In the smaller galleries only the probed person is sure to be there with the very image,
        which tells the people of a group apart without any help from the image.
        """
        notes = []
        for anonymizer in self.config.anonymizers.values():
            k = anonymizer.nominal_k
            full = [
                attack
                for attack in by_name[anonymizer.name]
                if attack.protocol == "full_ref" and attack.gallery != "anonymized_only"
            ]
            if k is None or not full:
                continue
            risk = strongest(full, self.config.audit, "")
            outcome = (
                f"stands up to k = {risk.k_not_rejected}"
                if risk.k_not_rejected >= k
                else "is rejected"
            )
            notes.append(
                f"{anonymizer.name} promises k = {k} by construction, which {outcome}: with all "
                "images of everybody in the gallery the strongest attack identifies "
                f"{percent(risk.risk)} ({percent(risk.low)} to {percent(risk.high)}), and 1/k is "
                f"{percent(1 / k)}."
            )
        return notes
