"""The plan of an audit: which stages run, in which order, and what is made of them."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.config.audit import AuditConfig
from cldmray.engine.artifacts import Artifact, chosen_table
from cldmray.engine.stages import Stages
from cldmray.evaluation.decision import decide
from cldmray.evaluation.diagnostics import attacker_diagnostics
from cldmray.evaluation.gate import check_identities
from cldmray.evaluation.identification import AttackResult, curve, strongest
from cldmray.evaluation.rows import results_table
from cldmray.faces.records import EVALUATION
from cldmray.pipelines.attack_runner import AttackResults, AttackRunner
from cldmray.pipelines.attribution_study import AttributionAnalysis
from cldmray.pipelines.cost import Estimate
from cldmray.pipelines.data_preparation import DataPreparation
from cldmray.pipelines.utility import Utility
from cldmray.report.examples import ImageReader, choose_examples, example_grid, leak_evidence
from cldmray.report.formatting import percent
from cldmray.report.statements import convergence_note, query_note
from cldmray.report.verdict import state_verdict
from cldmray.results.audit import (
    AnonymizerRisk,
    AttackRate,
    AuditReport,
    Evidence,
    Grid,
    StageRecord,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditOutcome:
    """What an audit found.

    Attributes:
        report: everything that is shown.
        found: what the attackers found.
    """

    report: AuditReport
    found: AttackResults


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
        self.notes = self.preparation.notes
        self.runner = AttackRunner(config, self.stages)
        self.utility = Utility(config, self.stages, self.notes)

    def plan(self) -> pa.Table:
        """Check everything and tell what will be done, at which cost.

        Returns:
            The images that are used: ``records.LISTING`` with their splits.

        Raises:
            BadInputError, CldmrayError: as :meth:`run` says.
        """
        settings = self.config.audit
        self.preparation.check()
        self.runner.check()
        self.utility.check()
        listing = self.preparation.listing()
        evaluated = listing.filter(pc.equal(listing["split"], EVALUATION))["identity"]
        check_identities(settings.policy.rules, pc.count_distinct(evaluated).as_py())
        estimate = Estimate(self.config, self.stages, self.preparation)
        for line in estimate.lines(estimate.steps(listing, always=settings.dry_run)):
            logger.info(line)
        return listing

    def run(self, versions: dict[str, str]) -> AuditOutcome:
        """Anonymize, attack, measure and judge.

        Args:
            versions: package versions for the report.

        Raises:
            BadInputError: the data cannot be audited; the message says why.
            CldmrayError: an attacker lacks what it needs, which is found before any work starts.
        """
        config = self.config
        listing = self.plan()
        groups = self.preparation.groups(listing)
        faces = self.preparation.faces(listing)
        anonymized = self.preparation.anonymize_all(faces)
        found = self.runner.run(faces, anonymized)
        self.notes += found.notes
        every, clean = found.attacks, found.clean
        embedded = {attacker: table for (_, attacker), table in found.probes.items()}
        utility = self.utility.run(faces, anonymized, embedded)
        leak = AttributionAnalysis(config, self.stages, self.runner)
        attribution = leak.explain(faces, found) if config.audit.attribution else None
        diagnostics = attacker_diagnostics(found.curves, found.clean)
        if rising := convergence_note(diagnostics):
            self.notes.append(rising)
        if asked := query_note(found.queries):
            self.notes.append(asked)
        names = [anonymizer.name for anonymizer in config.anonymizers.values()]
        note = self._health(clean)
        by_name = {name: [a for a in every if a.anonymizer == name] for name in names}
        risks = [self._risk(named, note) for named in by_name.values() if named]
        self._check_nominal_k(by_name)
        controls = {m.name for m in config.anonymizers.values() if m.is_control}
        attackers = [attacker.name for attacker in config.attackers.values()]
        ran = {(attack.anonymizer, attack.attacker) for attack in every}
        missed = {
            name: [attacker for attacker in attackers if (name, attacker) not in ran]
            for name in names
        }
        report = AuditReport(
            title=config.audit.title,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=state_verdict(
                decide(risks, controls, config.audit.policy, utility, weakness=note, missed=missed)
            ),
            risks=risks,
            results=results_table(every, config.audit, groups),
            curves=[curve(attack) for attack in every],
            grid=self._grid(faces, anonymized),
            evidence=self._evidence(faces, anonymized, risks, every),
            rejected=faces.rejected(),
            n_listed=listing.num_rows,
            settings=self.settings,
            versions=versions,
            stages=[StageRecord(*time) for time in self.stages.times],
            notes=self.notes,
            data_fingerprint=faces.manifest.content[:16],
            utility=utility,
            diagnostics=diagnostics,
            attribution=attribution,
        )
        return AuditOutcome(report, found)

    def _examples(self, faces: Artifact, anonymized: dict[str, Artifact]) -> list[str]:
        """Samples of the example images; of all images only the ids are read."""
        ids = [table.read(["sample_id"], EVALUATION) for table in anonymized.values()]
        identities = faces.read(["sample_id", "identity"], EVALUATION)
        return choose_examples(identities, ids, self.config.audit.n_example_images)

    def _evidence(
        self,
        faces: Artifact,
        anonymized: dict[str, Artifact],
        risks: list[AnonymizerRisk],
        attacks: list[AttackResult],
    ) -> list[Evidence]:
        """Best matches of the example images of anonymizers that leak."""

        def reader(table: Artifact) -> ImageReader:
            return lambda samples: chosen_table(table, ["sample_id", "image"], samples)

        return leak_evidence(
            risks,
            attacks,
            self._examples(faces, anonymized),
            reader(faces),
            {self.config.anonymizers[key].name: reader(table) for key, table in anonymized.items()},
        )

    def _grid(self, faces: Artifact, anonymized: dict[str, Artifact]) -> Grid:
        """Example images of every anonymizer."""
        chosen = self._examples(faces, anonymized)
        columns = ["sample_id", "image"]
        anonymizers = {key: self.config.anonymizers[key] for key in anonymized}
        rows = {
            anonymizers[key].name: (
                anonymizers[key].conditions,
                chosen_table(table, columns, chosen),
            )
            for key, table in anonymized.items()
        }
        return example_grid(chosen_table(faces, columns, chosen), rows)

    def _risk(self, every: list[AttackResult], note: str) -> AnonymizerRisk:
        """The strongest attack on one anonymizer, and how well its images are linked.

        Linking anonymized images with each other names nobody, so it counts as a risk of its own,
        unless nothing else was measured.
        """
        linked = [attack for attack in every if attack.gallery == "anonymized_only"]
        named = [attack for attack in every if attack.gallery != "anonymized_only"]
        risk = strongest(named or linked, self.config.audit, note)
        if not (named and linked):
            return risk
        worst = strongest(linked, self.config.audit, "")
        rate = AttackRate(
            worst.attacker, worst.protocol, worst.gallery, worst.risk, worst.low, worst.high
        )
        return replace(risk, linkage=rate)

    def _check_nominal_k(self, by_name: dict[str, list[AttackResult]]) -> None:
        """Test each method's own k where its promise speaks: with everybody's images known.

        In the smaller galleries only the probed person is sure to be there with the very image,
        which tells the people of a group apart without any help from the image.
        """
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
            kept = (
                f"stands up to k = {risk.k_not_rejected}"
                if risk.k_not_rejected >= k
                else "is rejected"
            )
            self.notes.append(
                f"{anonymizer.name} promises k = {k} by construction, which {kept}: with all "
                "images of everybody in the gallery the strongest attack identifies "
                f"{percent(risk.risk)} ({percent(risk.low)} to {percent(risk.high)}), and 1/k is {percent(1 / k)}."
            )

    def _health(self, clean: dict[tuple[str, str], float]) -> str:
        """Why the ladder may be too weak to conclude that nothing leaks; empty if it is not."""
        wanted = self.config.audit.min_clean_rank_1
        best, found = 0.0, "none of the attackers has been tried on clean images"
        if clean:
            best, attacker = max((rate, name) for (_, name), rate in clean.items())
            self.notes.append(
                f"Of all attackers {attacker} knows faces best: it names {percent(best)} of clean "
                "images (Full-Ref, source excluded)."
            )
            found = (
                f"on clean images the best, {attacker}, names {percent(best)}, less than the "
                f"{percent(wanted)} that audit.min_clean_rank_1 asks for"
            )
        if best >= wanted:
            return ""
        note = f"attacker too weak to conclude: {found}"
        self.notes.append(note[0].upper() + note[1:] + ".")
        return note
