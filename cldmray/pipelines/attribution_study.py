"""Finding out what carries the leak: swapped conditions, and what attacks tell together.

The plan of an attribution: many settings attacked, conditions swapped, the boundary searched.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.diffusion.settings import Diffusion
from cldmray.attackers.base import EmbeddingRung
from cldmray.config.attribution import AttributionConfig
from cldmray.config.audit import AuditConfig, AuditSettings
from cldmray.engine.artifacts import StageTable
from cldmray.engine.stages import Stages
from cldmray.engine.swap import swap_conditions
from cldmray.evaluation.ablation import conditioned, families, started
from cldmray.evaluation.attribution import Swap, ablation_rows, proxy_rows, region_rows, swap_rows
from cldmray.evaluation.identification import Attack, view_of
from cldmray.evaluation.operating_points import Point, boundary_sentence, search_point
from cldmray.faces.records import ORIGINAL
from cldmray.gallery.protocols import Embedded, Protocol
from cldmray.gallery.ranking import rank_named
from cldmray.metrics.identification import chance, success_at_rank
from cldmray.pipelines.attack_runner import Campaign, Findings
from cldmray.pipelines.data_preparation import Exposure
from cldmray.pipelines.utility import Utility
from cldmray.report.attribution_statements import headline, scale_statements
from cldmray.report.formatting import percent
from cldmray.results.attribution import Attribution, Row
from cldmray.results.audit import UtilityRow

STRENGTH = 0.8
"""At which settings that start from noise are started from the photograph instead."""


def main_protocol(settings: AuditSettings) -> Protocol:
    """Full-Ref, or the first where that is not measured."""
    return "full_ref" if "full_ref" in settings.protocols else settings.protocols[0]


class Leak:
    """Explains the leak that a campaign found.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        campaign: of the audit; embeds the swapped pictures as it embeds all others.
    """

    def __init__(self, config: AuditConfig, stages: Stages, campaign: Campaign) -> None:
        self.config = config
        self.stages = stages
        self.campaign = campaign

    def explain(self, faces: StageTable, found: Findings) -> Attribution | None:
        """The attribution of an audit: its own settings compared, and one swap of conditions.

        The conditions are swapped in the conditioned setting that leaks most, against the
        strongest attacker that learnt from that setting's pictures. Where the setting starts from
        noise, the swapped pictures start from photographs (:data:`STRENGTH`), which that attacker
        has not seen.

        Returns:
            None where no setting has a condition, or none was attacked.
        """
        chosen = self._strongest(found)
        if chosen is None:
            return None
        key, rung = chosen
        setting = conditioned(self.config.anonymizer)[key]
        strength = STRENGTH if setting.steps * STRENGTH >= 1 else 1.0
        start = started(setting, strength if setting.mode == "text2img" else None)
        swaps = self.swaps(faces, start, [(rung, found.encoders[setting.name, rung.name])])
        rows = [row for one in swaps for row in swap_rows(one, self.config.audit)]
        return self.attribution(found, rows)

    def attribution(
        self, found: Findings, rows: list[Row], statements: Sequence[str] = ()
    ) -> Attribution:
        """Rows of swaps and others, beside what the attacks on several settings tell together."""
        settings = self.config.audit
        protocol = main_protocol(settings)
        every = [attack for attack in found.attacks if attack.protocol == protocol]
        groups = families(self.config.anonymizer.values())
        names = [one.name for one in conditioned(self.config.anonymizer).values()]
        ablated = ablation_rows(every, groups, settings)
        parts = [attack for attack in found.regions if attack.protocol == protocol]
        whole = [
            *rows,
            *ablated,
            *proxy_rows(every, names, settings),
            *region_rows(parts, settings),
        ]
        told = [*scale_statements(ablated, groups), *statements]
        return Attribution(headline(whole), whole, told, settings.level)

    def swaps(
        self,
        faces: StageTable,
        setting: Diffusion,
        rungs: Sequence[tuple[EmbeddingRung, StageTable | None]],
    ) -> list[Swap]:
        """Swap conditions under a setting, and let attackers name the people.

        Args:
            setting: must start from the photograph (``img2img`` or ``inpaint``).
            rungs: the attackers and their encoders.
        """
        seed = self.config.audit.seed
        table = self.stages.run(
            f"swap-{setting.name}",
            {"anonymizer": setting, "seed": seed},
            [faces.key],
            lambda folder: swap_conditions(faces, setting, seed, self.config.engine, folder),
        )
        origins = table.read()
        return [
            swap
            for rung, encoder in rungs
            for swap in swap_outcomes(
                self.campaign.embed(rung, encoder, faces, [table]),
                origins,
                setting.name,
                rung.name,
                self.config.audit.galleries,
            )
        ]

    def _strongest(self, found: Findings) -> tuple[str, EmbeddingRung] | None:
        """Key of the conditioned setting that leaks most, and the attacker to try on its swaps."""
        rungs = {
            rung.name: rung
            for rung in self.config.attack.values()
            if isinstance(rung, EmbeddingRung)
        }
        keys = {one.name: key for key, one in conditioned(self.config.anonymizer).items()}
        tried = [
            attack
            for attack in found.attacks
            if attack.anonymizer in keys and attack.attacker in rungs
        ]
        learnt = [attack for attack in tried if rungs[attack.attacker].per_anonymizer]
        if not tried:
            return None
        best = max(learnt or tried, key=_success)
        return keys[best.anonymizer], rungs[best.attacker]


def _success(attack: Attack) -> tuple[bool, float]:
    return attack.gallery == "source_excluded", float(attack.rank_1.mean())


def swap_outcomes(
    embeddings: pa.Table,
    origins: pa.Table,
    anonymizer: str,
    attacker: str,
    galleries: Sequence[str],
) -> list[Swap]:
    """Rank both people of every swapped picture against all photographs.

    Args:
        embeddings: of one attacker, with the views ``original`` and ``anonymizer``.
        origins: table of schema ``engine.swap.SWAPPED``.
        galleries: ``source_excluded`` leaves both photographs behind a picture out of the gallery,
            ``source_included`` none; others are passed over.
    """
    photos, probes = view_of(embeddings, ORIGINAL), view_of(embeddings, anonymizer)
    ordered = origins.take(pc.sort_indices(origins["sample_id"]))
    columns: dict[str, Any] = {
        name: np.asarray(ordered[name].to_pylist())
        for name in ("sample_id", "condition_id", "condition_identity", "pair")
    }
    both = list(zip(columns["sample_id"].tolist(), columns["condition_id"].tolist(), strict=True))
    swaps = []
    for gallery in galleries:
        if gallery not in ("source_excluded", "source_included"):
            continue
        left_out = both if gallery == "source_excluded" else None
        people = (columns["condition_identity"], probes.identities)
        ranks = [
            rank_named(Embedded(probes.sample_ids, named, probes.vectors), photos, left_out)
            for named in people
        ]
        kept, first, second = np.intersect1d(
            ranks[0].sample_ids, ranks[1].sample_ids, return_indices=True
        )
        condition, start = (success_at_rank(one.better, one.ties, 1) for one in ranks)
        pairs = columns["pair"][np.searchsorted(columns["sample_id"], kept)]
        size = ranks[0].gallery_size
        swaps.append(
            Swap(anonymizer, attacker, gallery, condition[first], start[second], pairs, size)
        )
    return swaps


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
            BadInputError, CldmrayError: see :meth:`cldmray.pipelines.audit.Audit.run`.
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
