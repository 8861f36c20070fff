"""The plan of an inversion: search, fit ways back and controls, let the judge name the outcome."""

from collections.abc import Callable

import numpy as np

from cldmray.campaign import Campaign, Findings
from cldmray.config import AuditConfig
from cldmray.engine.inversion_search import Candidate
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError
from cldmray.evaluation import Attack
from cldmray.exposure import Exposure
from cldmray.inversion_config import RAW, InversionConfig, controls_of
from cldmray.inversion_pictures import Shown, grid, shown
from cldmray.inversion_search import run_search
from cldmray.leak import main_protocol
from cldmray.metrics.confidence import Interval, bootstrap_identities
from cldmray.metrics.identification import chance
from cldmray.metrics.means import bootstrap_mean
from cldmray.metrics.recovery import fidelity, rank_1_gain
from cldmray.report.inversion import InversionReport, Recovery, Row, Search
from cldmray.report.model import Grid
from cldmray.report.words import percent

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
        self.grids: dict[str, Grid] = {}

    def run(self) -> InversionReport:
        """Anonymize, search, learn the way back, and judge.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.audit.Audit.run`.
        """
        self.config.check()
        audit = self.config.with_rungs(None)
        exposure = Exposure(audit, self.stages, self.announce)
        faces = exposure.faces(exposure.listing())
        searches: list[Search] = []
        for key, member in audit.anonymizer.items():
            redrawn = exposure.redraw(key, faces)
            best = None
            if self.config.inversion.search.trials and not member.unchanged:
                found, best = run_search(self.config, self.stages, member.name, faces, redrawn)
                searches.append(found)
            self._judge(key, faces, redrawn, best)
        self.notes[:0] = exposure.notes
        order: list[str] = [*audit.audit.galleries]
        self.recoveries.sort(key=lambda one: order.index(one.gallery))
        return InversionReport(
            self.rows,
            self.recoveries,
            searches,
            self.grids,
            list(dict.fromkeys(self.notes)),
            audit.audit.level,
            self.config.inversion.judge.name,
            faces.manifest.content[:16],
        )

    def _judge(
        self, key: str, faces: StageTable, redrawn: StageTable, best: Candidate | None
    ) -> None:
        """Fit and judge every way back from one anonymizer's pictures."""
        audit = self.config.with_rungs(best)
        name = audit.anonymizer[key].name
        campaign = Campaign(audit, self.stages, self.announce, self.notes)
        found = campaign.run(faces, {key: redrawn})
        self._note_weakness(found, audit)
        tried = [one.inversion for one in self.config.attempts(best)]
        protocol = main_protocol(audit.audit)
        for gallery in audit.audit.galleries:
            attacks = {
                one.attacker: one
                for one in found.attacks
                if (one.protocol, one.gallery) == (protocol, gallery)
            }
            for attacker, attack in attacks.items():
                self._add_rate(attack, found.queries.get((name, attacker), 0))
            for inverter in tried:
                if inverter.name in attacks:
                    queries = found.queries[name, inverter.name]
                    self._compare(attacks, inverter.name, controls_of(inverter), queries)
        pictures = {RAW: shown(faces, redrawn, "image")}
        for attacker in audit.attack:
            if (stage := campaign.rebuilt.get((attacker, redrawn.key))) is not None:
                pictures[attacker] = shown(faces, stage, "guesses")
        for attacker, one in pictures.items():
            self._add_likeness(name, attacker, one, found.queries.get((name, attacker), 0))
        names = [inverter.name for inverter in tried if inverter.name in pictures]
        self.grids[name] = grid(pictures, names, self.config.inversion.grid_pictures)

    def _note_weakness(self, found: Findings, audit: AuditConfig) -> None:
        rate = max(found.clear.values(), default=0.0)
        wanted = audit.audit.min_clear_rank_1
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
