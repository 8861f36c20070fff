"""The plan of an audit: which stages run, in which order, and what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.config.audit import AuditConfig
from cldmray.engine.artifacts import StageTable, chosen_table
from cldmray.engine.stages import Stages
from cldmray.evaluation.decision import verdict
from cldmray.evaluation.diagnostics import attacker_health, learning_note, query_note
from cldmray.evaluation.gate import check_people
from cldmray.evaluation.identification import Attack, curve, strongest
from cldmray.evaluation.rows import results_table
from cldmray.faces.records import EVALUATION
from cldmray.pipelines.attack_runner import Campaign, Findings
from cldmray.pipelines.attribution_study import Leak
from cldmray.pipelines.cost import Estimate
from cldmray.pipelines.data_preparation import Exposure
from cldmray.pipelines.utility import Utility
from cldmray.report.examples import choose_examples, example_grid
from cldmray.report.formatting import percent
from cldmray.results.audit import AnonymizerRisk, AttackRate, Grid, Report, Stage


@dataclass(frozen=True)
class Outcome:
    """What an audit found.

    Attributes:
        report: everything that is shown.
        found: what the attackers found.
    """

    report: Report
    found: Findings


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
        self.campaign = Campaign(config, self.stages, announce, self.notes)
        self.utility = Utility(config, self.stages, self.notes)

    def plan(self) -> pa.Table:
        """Check everything and tell what will be done, at which cost.

        Returns:
            The photographs that are used: ``records.LISTING`` with their splits.

        Raises:
            BadInputError, CldmrayError: as :meth:`run` says.
        """
        settings = self.config.audit
        self.exposure.check()
        self.campaign.check()
        self.utility.check()
        listing = self.exposure.listing()
        evaluated = listing.filter(pc.equal(listing["split"], EVALUATION))["identity"]
        check_people(settings.terms.rules, pc.count_distinct(evaluated).as_py())
        estimate = Estimate(self.config, self.stages, self.exposure)
        for line in estimate.lines(estimate.steps(listing, always=settings.dry_run)):
            self.announce(line)
        return listing

    def run(self, versions: dict[str, str]) -> Outcome:
        """Anonymize, attack, measure and judge.

        Args:
            versions: package versions for the report.

        Raises:
            BadInputError: the data cannot be audited; the message says why.
            CldmrayError: an attacker lacks what it needs, which is found before any work starts.
        """
        config = self.config
        listing = self.plan()
        groups = self.exposure.groups(listing)
        faces = self.exposure.faces(listing)
        redrawn = {key: self.exposure.redraw(key, faces) for key in config.anonymizer}
        found = self.campaign.run(faces, redrawn)
        every, clear = found.attacks, found.clear
        utility = self.utility.run(faces, redrawn, self.campaign.embedded)
        leak = Leak(config, self.stages, self.campaign)
        attribution = leak.explain(faces, found) if config.audit.attribution else None
        health = attacker_health(found)
        if rising := learning_note(health):
            self.notes.append(rising)
        if asked := query_note(found):
            self.notes.append(asked)
        names = [member.name for member in config.anonymizer.values()]
        note = self._health(clear)
        by_name = {name: [a for a in every if a.anonymizer == name] for name in names}
        risks = [self._risk(named, note) for named in by_name.values() if named]
        self._check_promises(by_name)
        controls = {m.name for m in config.anonymizer.values() if m.is_control}
        rungs = [rung.name for rung in config.attack.values()]
        ran = {(attack.anonymizer, attack.attacker) for attack in every}
        missed = {name: [rung for rung in rungs if (name, rung) not in ran] for name in names}
        report = Report(
            title=config.audit.title,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=verdict(
                risks, controls, config.audit.terms, utility, weakness=note, missed=missed
            ),
            risks=risks,
            results=results_table(every, config.audit, groups),
            curves=[curve(attack) for attack in every],
            grid=self._grid(faces, redrawn),
            rejected=faces.rejected(),
            n_listed=listing.num_rows,
            settings=self.settings,
            versions=versions,
            stages=[Stage(*time) for time in self.stages.times],
            notes=self.notes,
            data_fingerprint=faces.manifest.content[:16],
            utility=utility,
            health=health,
            attribution=attribution,
        )
        return Outcome(report, found)

    def _grid(self, faces: StageTable, redrawn: dict[str, StageTable]) -> Grid:
        """Example pictures; of all others only the ids are read."""
        ids = [table.read(["sample_id"], EVALUATION) for table in redrawn.values()]
        people = faces.read(["sample_id", "identity"], EVALUATION)
        chosen = choose_examples(people, ids, self.config.audit.grid_pictures)
        columns = ["sample_id", "image"]
        members = {key: self.config.anonymizer[key] for key in redrawn}
        rows = {
            members[key].name: (members[key].conditions, chosen_table(table, columns, chosen))
            for key, table in redrawn.items()
        }
        return example_grid(chosen_table(faces, columns, chosen), rows)

    def _risk(self, every: list[Attack], note: str) -> AnonymizerRisk:
        """The strongest attack on one anonymizer, and how well its pictures are linked.

        Linking anonymized pictures with each other names nobody, so it counts as a risk of its own,
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

    def _check_promises(self, by_name: dict[str, list[Attack]]) -> None:
        """Test each method's own k where its promise speaks: with everybody's photos known.

        In the smaller galleries only the probed person is sure to be there with the very photo,
        which tells the people of a group apart without any help from the picture.
        """
        for member in self.config.anonymizer.values():
            k = member.promised_k
            full = [
                attack
                for attack in by_name[member.name]
                if attack.protocol == "full_ref" and attack.gallery != "anonymized_only"
            ]
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
        wanted = self.config.audit.min_clear_rank_1
        best, found = 0.0, "none of the attackers has been tried on clear photographs"
        if clear:
            best, attacker = max((rate, name) for (_, name), rate in clear.items())
            self.notes.append(
                f"Of all attackers {attacker} knows faces best: it names {percent(best)} of clear "
                "photographs (Full-Ref, source excluded)."
            )
            found = (
                f"on clear photographs the best, {attacker}, names {percent(best)}, less than the "
                f"{percent(wanted)} that audit.min_clear_rank_1 asks for"
            )
        if best >= wanted:
            return ""
        note = f"attacker too weak to conclude: {found}"
        self.notes.append(note[0].upper() + note[1:] + ".")
        return note
