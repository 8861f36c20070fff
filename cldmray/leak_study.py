"""The plan of an attribution: many settings attacked, conditions swapped, the boundary searched."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cldmray.attackers.ladder import EmbeddingRung
from cldmray.attribution import swap_rows
from cldmray.attribution_config import AttributionConfig
from cldmray.boundary import Point, boundary_sentence, search_point
from cldmray.campaign import Campaign, Findings
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.evaluation import Attack
from cldmray.exposure import Exposure
from cldmray.families import conditioned
from cldmray.leak import Leak, main_protocol
from cldmray.metrics.identification import chance
from cldmray.report.attribution import Attribution, Row
from cldmray.report.model import UtilityRow
from cldmray.report.words import percent
from cldmray.utility import Utility


@dataclass(frozen=True)
class Study:
    """What an attribution found.

    Attributes:
        attribution: rows and sentences.
        notes: caveats for the reader.
        data_fingerprint: hash of the photographs.
    """

    attribution: Attribution
    notes: list[str]
    data_fingerprint: str


class LeakStudy:
    """Runs one attribution on the connected cluster.

    Args:
        config: what is tried.
        announce: called with lines of progress.
    """

    def __init__(self, config: AttributionConfig, announce: Callable[[str], None]) -> None:
        self.config = config
        audit = config.audit
        self.stages = Stages(audit.work, announce)
        self.exposure = Exposure(audit, self.stages, announce)
        self.notes = self.exposure.notes
        self.campaign = Campaign(audit, self.stages, announce, self.notes)
        self.leak = Leak(audit, self.stages, self.campaign)
        measured = replace(
            audit.audit,
            utility=["ssim", "edge_f1"],
            utility_pictures=config.boundary.pictures,
        )
        self.utility = Utility(replace(audit, audit=measured), self.stages, self.notes)

    def run(self) -> Study:
        """Anonymize, attack, swap and compare.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.audit.Audit.run`.
        """
        audit = self.config.audit
        self.exposure.check()
        self.campaign.check()
        if self.config.searched:
            self.utility.check()
        faces = self.exposure.faces(self.exposure.listing())
        redrawn = {key: self.exposure.redraw(key, faces) for key in audit.anonymizer}
        found = self.campaign.run(faces, redrawn)
        self._note_weakness(found)
        rows = self._swap_rows(faces, found)
        statements = []
        if self.config.searched:
            points, boundary = self._search(faces, redrawn, found)
            rows += boundary
            statements = [
                boundary_sentence(
                    points,
                    self.config.boundary.target_k,
                    self.config.boundary.utility,
                    audit.audit.level,
                )
            ]
        whole = self.leak.attribution(found, rows, statements)
        return Study(whole, self.notes, faces.manifest.content[:16])

    def _note_weakness(self, found: Findings) -> None:
        best = max(found.clear.values(), default=0.0)
        wanted = self.config.audit.audit.min_clear_rank_1
        if best < wanted:
            self.notes.append(
                f"Attackers too weak to conclude that a setting protects: on clear photographs the "
                f"best names {percent(best)}, less than the {percent(wanted)} of "
                "audit.min_clear_rank_1. Shares are of the leak that these attackers find."
            )

    def _swap_rows(self, faces: StageTable, found: Findings) -> list[Row]:
        """Of every attacker that knows the setting without swaps, whose rate is the control."""
        audit = self.config.audit
        rungs = {rung.name: rung for rung in audit.attack.values()}
        members = {member.name: member for member in conditioned(audit.anonymizer).values()}
        rows = []
        for name in self.config.swapped:
            tried = [
                (rung, found.encoders[name, key])
                for key, rung in rungs.items()
                if isinstance(rung, EmbeddingRung) and (name, key) in found.encoders
            ]
            for swap in self.leak.swaps(faces, members[name], tried):
                rows += swap_rows(swap, audit.audit)
        return rows

    def _search(
        self, faces: StageTable, redrawn: dict[str, StageTable], found: Findings
    ) -> tuple[list[Point], list[Row]]:
        config = self.config
        tables = {
            key: redrawn[key]
            for key, member in config.audit.anonymizer.items()
            if member.name in config.searched
        }
        useful = self.utility.run(faces, tables, {})
        points, rows = [], []
        for name in config.searched:
            attacks = [
                attack
                for attack in found.attacks
                if attack.anonymizer == name
                and attack.gallery == config.boundary.gallery
                and attack.protocol == main_protocol(config.audit.audit)
            ]
            if not attacks:
                continue
            own = {row.measure: row for row in useful if row.anonymizer == name}
            asked = own.get(config.boundary.utility)
            utility = math.nan if asked is None else asked.value
            point = search_point(attacks, len(config.searched), utility, config.audit.audit)
            points.append(point)
            rows += _boundary_rows(point, attacks[0], own.values())
        return points, rows


def _boundary_rows(point: Point, attack: Attack, useful: Iterable[UtilityRow]) -> list[Row]:
    name, guess = point.anonymizer, chance(1, attack.ranks.gallery_size)
    risk = Row(
        "boundary",
        name,
        point.attacker,
        attack.protocol,
        attack.gallery,
        "rank_1",
        point.value,
        point.low,
        point.high,
        point.n_probes,
        chance=guess,
    )
    return [
        risk,
        *(
            Row("boundary", name, "", "", "", u.measure, u.value, u.low, u.high, u.n_pictures)
            for u in useful
        ),
    ]
