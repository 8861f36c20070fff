"""The plan of an inversion: search, fit ways back and controls, let the judge name the outcome."""

from collections.abc import Callable

import numpy as np

from cldmray.anonymizers.base import Setting
from cldmray.campaign import Campaign, Findings
from cldmray.engine.inversion_search import Candidate
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError
from cldmray.evaluation import Attack
from cldmray.exposure import Exposure
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.inversion_config import MEAN, RAW, InversionConfig, controls_of
from cldmray.inversion_pictures import Shown, grid, shown
from cldmray.inversion_search import run_search
from cldmray.leak import main_protocol
from cldmray.metrics.confidence import Interval, bootstrap_identities
from cldmray.metrics.identification import chance
from cldmray.metrics.means import bootstrap_mean
from cldmray.metrics.recovery import fidelity, rank_1_gain
from cldmray.report.inversion import SHUFFLED, InversionReport, Learning, Recovery, Row, Search
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
        self.learning: list[Learning] = []
        self.grids: dict[str, Grid] = {}

    def run(self) -> InversionReport:
        """Anonymize, search, learn the way back, and judge.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.audit.Audit.run`.
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
