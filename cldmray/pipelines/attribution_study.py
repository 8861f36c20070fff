"""Finding out what carries the leak: swapped conditions, and what attacks tell together.

The plan of an attribution: many settings attacked, conditions swapped, the boundary searched.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.diffusion.settings import Diffusion
from cldmray.attackers.base import EmbeddingAttacker
from cldmray.config.attribution import AttributionConfig
from cldmray.config.audit import AuditConfig, AuditSettings
from cldmray.engine.artifacts import Artifact
from cldmray.engine.stages import Stages
from cldmray.engine.swap import swap_conditions
from cldmray.evaluation.ablation import ablation_grids, conditioned, with_init_image
from cldmray.evaluation.attribution import Swap, ablation_rows, proxy_rows, region_rows, swap_rows
from cldmray.evaluation.identification import AttackResult, view_of
from cldmray.evaluation.operating_points import (
    OperatingPoint,
    candidate_point,
)
from cldmray.faces.records import ORIGINAL
from cldmray.gallery.protocols import EmbeddingSet, Protocol
from cldmray.gallery.ranking import rank_claimed
from cldmray.metrics.identification import chance, success_at_rank
from cldmray.pipelines.attack_runner import AttackResults, AttackRunner
from cldmray.pipelines.data_preparation import DataPreparation
from cldmray.pipelines.utility import Utility
from cldmray.report.formatting import percent
from cldmray.report.statements import (
    attribution_headline,
    operating_point_sentence,
    scale_statements,
)
from cldmray.results.attribution import Attribution, AttributionRow
from cldmray.results.audit import UtilityRow

STRENGTH = 0.8
"""At which settings that start from noise are started from the image instead."""


def main_protocol(settings: AuditSettings) -> Protocol:
    """Full-Ref, or the first where that is not measured."""
    return "full_ref" if "full_ref" in settings.protocols else settings.protocols[0]


class AttributionAnalysis:
    """Explains the leak that a campaign found.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        campaign: of the audit; embeds the swapped images as it embeds all others.
    """

    def __init__(self, config: AuditConfig, stages: Stages, runner: AttackRunner) -> None:
        self.config = config
        self.stages = stages
        self.runner = runner

    def explain(self, faces: Artifact, found: AttackResults) -> Attribution | None:
        """The attribution of an audit: its own settings compared, and one swap of conditions.

        The conditions are swapped in the conditioned setting that leaks most, against the
        strongest attacker that learnt from that setting's images. Where the setting starts from
        noise, the swapped images start from images (:data:`STRENGTH`), which that attacker
        has not seen.

        Returns:
            None where no setting has a condition, or none was attacked.
        """
        chosen = self._strongest(found)
        if chosen is None:
            return None
        key, attacker = chosen
        anonymizer = conditioned(self.config.anonymizers)[key]
        strength = STRENGTH if anonymizer.num_inference_steps * STRENGTH >= 1 else 1.0
        start = with_init_image(anonymizer, strength if anonymizer.mode == "text2img" else None)
        swaps = self.swaps(
            faces, start, [(attacker, found.encoders[anonymizer.name, attacker.name])]
        )
        rows = [row for one in swaps for row in swap_rows(one, self.config.audit)]
        return self.attribution(found, rows)

    def attribution(
        self, found: AttackResults, rows: list[AttributionRow], statements: Sequence[str] = ()
    ) -> Attribution:
        """Rows of swaps and others, beside what the attacks on several settings tell together."""
        settings = self.config.audit
        protocol = main_protocol(settings)
        every = [attack for attack in found.attacks if attack.protocol == protocol]
        groups = ablation_grids(self.config.anonymizers.values())
        names = [one.name for one in conditioned(self.config.anonymizers).values()]
        ablated = ablation_rows(every, groups, settings)
        parts = [attack for attack in found.regions if attack.protocol == protocol]
        whole = [
            *rows,
            *ablated,
            *proxy_rows(every, names, settings),
            *region_rows(parts, settings),
        ]
        told = [*scale_statements(ablated, groups), *statements]
        return Attribution(attribution_headline(whole), whole, told, settings.confidence_level)

    def swaps(
        self,
        faces: Artifact,
        anonymizer: Diffusion,
        attackers: Sequence[tuple[EmbeddingAttacker, Artifact | None]],
    ) -> list[Swap]:
        """Swap conditions under a setting, and let attackers name the people.

        Args:
            setting: must start from the image (``img2img`` or ``inpaint``).
            attackers: the attackers and their encoders.
        """
        seed = self.config.audit.seed
        table = self.stages.run(
            f"swap-{anonymizer.name}",
            {"anonymizer": anonymizer, "seed": seed},
            [faces.key],
            lambda folder: swap_conditions(faces, anonymizer, seed, self.config.engine, folder),
        )
        origins = table.read()
        return [
            swap
            for attacker, encoder in attackers
            for swap in swap_outcomes(
                self.runner.embed(attacker, encoder, faces, [table]),
                origins,
                anonymizer.name,
                attacker.name,
                self.config.audit.galleries,
            )
        ]

    def _strongest(self, found: AttackResults) -> tuple[str, EmbeddingAttacker] | None:
        """Key of the conditioned setting that leaks most, and the attacker to try on its swaps."""
        attackers = {
            attacker.name: attacker
            for attacker in self.config.attackers.values()
            if isinstance(attacker, EmbeddingAttacker)
        }
        keys = {one.name: key for key, one in conditioned(self.config.anonymizers).items()}
        tried = [
            attack
            for attack in found.attacks
            if attack.anonymizer in keys and attack.attacker in attackers
        ]
        learnt = [attack for attack in tried if attackers[attack.attacker].per_anonymizer]
        if not tried:
            return None
        best = max(learnt or tried, key=_success)
        return keys[best.anonymizer], attackers[best.attacker]


def _success(attack: AttackResult) -> tuple[bool, float]:
    return attack.gallery == "source_excluded", float(attack.rank_1.mean())


def swap_outcomes(
    embeddings: pa.Table,
    origins: pa.Table,
    anonymizer: str,
    attacker: str,
    galleries: Sequence[str],
) -> list[Swap]:
    """Rank both people of every swapped image against all images.

    Args:
        embeddings: of one attacker, with the views ``original`` and ``anonymizer``.
        origins: table of schema ``engine.swap.SWAPPED``.
        galleries: ``source_excluded`` leaves both images behind an image out of the gallery,
            ``source_included`` none; others are passed over.
    """
    images, probes = view_of(embeddings, ORIGINAL), view_of(embeddings, anonymizer)
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
        gallery_identities = (columns["condition_identity"], probes.identities)
        ranks = [
            rank_claimed(EmbeddingSet(probes.sample_ids, named, probes.vectors), images, left_out)
            for named in gallery_identities
        ]
        kept, first, second = np.intersect1d(
            ranks[0].sample_ids, ranks[1].sample_ids, return_indices=True
        )
        condition, start = (success_at_rank(one.n_higher, one.n_tied, 1) for one in ranks)
        pairs = columns["pair"][np.searchsorted(columns["sample_id"], kept)]
        size = ranks[0].gallery_size
        swaps.append(
            Swap(anonymizer, attacker, gallery, condition[first], start[second], pairs, size)
        )
    return swaps


@dataclass(frozen=True)
class StudyResult:
    """What an attribution found.

    Attributes:
        attribution: rows and sentences.
        notes: caveats for the reader.
        data_fingerprint: hash of the images.
    """

    attribution: Attribution
    notes: list[str]
    data_fingerprint: str


class AttributionStudy:
    """Runs one attribution on the connected cluster.

    Args:
        config: what is tried.
    """

    def __init__(self, config: AttributionConfig) -> None:
        self.config = config
        audit = config.audit
        self.stages = Stages(audit.cache_dir)
        self.preparation = DataPreparation(audit, self.stages)
        self.notes = self.preparation.notes
        self.runner = AttackRunner(audit, self.stages, self.notes)
        self.leak = AttributionAnalysis(audit, self.stages, self.runner)
        measured = replace(
            audit.audit,
            utility=["ssim", "edge_f1"],
            n_utility_images=config.operating_point.n_images,
        )
        self.utility = Utility(replace(audit, audit=measured), self.stages, self.notes)

    def run(self) -> StudyResult:
        """Anonymize, attack, swap and compare.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.pipelines.audit.Audit.run`.
        """
        audit = self.config.audit
        self.preparation.check()
        self.runner.check()
        if self.config.searched:
            self.utility.check()
        faces = self.preparation.faces(self.preparation.listing())
        anonymized = {key: self.preparation.anonymize(key, faces) for key in audit.anonymizers}
        found = self.runner.run(faces, anonymized)
        self._note_weakness(found)
        rows = self._swap_rows(faces, found)
        statements = []
        if self.config.searched:
            points, operating_point = self._search(faces, anonymized, found)
            rows += operating_point
            statements = [
                operating_point_sentence(
                    points,
                    self.config.operating_point.target_k,
                    self.config.operating_point.utility,
                    audit.audit.confidence_level,
                )
            ]
        whole = self.leak.attribution(found, rows, statements)
        return StudyResult(whole, self.notes, faces.manifest.content[:16])

    def _note_weakness(self, found: AttackResults) -> None:
        best = max(found.clean.values(), default=0.0)
        wanted = self.config.audit.audit.min_clean_rank_1
        if best < wanted:
            self.notes.append(
                f"Attackers too weak to conclude that a setting protects: on clean images the "
                f"best names {percent(best)}, less than the {percent(wanted)} of "
                "audit.min_clean_rank_1. Shares are of the leak that these attackers find."
            )

    def _swap_rows(self, faces: Artifact, found: AttackResults) -> list[AttributionRow]:
        """Of every attacker that knows the setting without swaps, whose rate is the control."""
        audit = self.config.audit
        attackers = {attacker.name: attacker for attacker in audit.attackers.values()}
        anonymizers = {
            anonymizer.name: anonymizer for anonymizer in conditioned(audit.anonymizers).values()
        }
        rows = []
        for name in self.config.swapped:
            tried = [
                (attacker, found.encoders[name, key])
                for key, attacker in attackers.items()
                if isinstance(attacker, EmbeddingAttacker) and (name, key) in found.encoders
            ]
            for swap in self.leak.swaps(faces, anonymizers[name], tried):
                rows += swap_rows(swap, audit.audit)
        return rows

    def _search(
        self, faces: Artifact, anonymized: dict[str, Artifact], found: AttackResults
    ) -> tuple[list[OperatingPoint], list[AttributionRow]]:
        config = self.config
        tables = {
            key: anonymized[key]
            for key, anonymizer in config.audit.anonymizers.items()
            if anonymizer.name in config.searched
        }
        useful = self.utility.run(faces, tables, {})
        points, rows = [], []
        for name in config.searched:
            attacks = [
                attack
                for attack in found.attacks
                if attack.anonymizer == name
                and attack.gallery == config.operating_point.gallery
                and attack.protocol == main_protocol(config.audit.audit)
            ]
            if not attacks:
                continue
            own = {row.measure: row for row in useful if row.anonymizer == name}
            asked = own.get(config.operating_point.utility)
            utility = math.nan if asked is None else asked.value
            point = candidate_point(attacks, len(config.searched), utility, config.audit.audit)
            points.append(point)
            rows += _operating_point_rows(point, attacks[0], own.values())
        return points, rows


def _operating_point_rows(
    point: OperatingPoint, attack: AttackResult, useful: Iterable[UtilityRow]
) -> list[AttributionRow]:
    name, guess = point.anonymizer, chance(1, attack.ranks.gallery_size)
    risk = AttributionRow(
        "operating_point",
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
            AttributionRow(
                "operating_point", name, "", "", "", u.measure, u.value, u.low, u.high, u.n_images
            )
            for u in useful
        ),
    ]
