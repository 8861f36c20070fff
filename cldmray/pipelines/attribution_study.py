"""Attribution: what carries the leak, by swapped conditions, ablations and operating points."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.base import Anonymizer
from cldmray.attackers.base import Attacker
from cldmray.attackers.data import Table
from cldmray.config.attribution import AttributionConfig
from cldmray.config.audit import AuditConfig, AuditSettings
from cldmray.engine.artifacts import Artifact
from cldmray.engine.map_stages.swap import swap_conditions
from cldmray.engine.stages import Stages
from cldmray.evaluation.attribution import (
    Swap,
    ablation_grids,
    ablation_rows,
    conditioned,
    proxy_rows,
    region_rows,
    swap_rows,
)
from cldmray.evaluation.diagnostics import weaknesses
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
from cldmray.report.statements import (
    attribution_headline,
    operating_point_sentence,
    scale_statements,
    teacher_note,
    weakness_notes,
)
from cldmray.results.attribution import Attribution, AttributionRow
from cldmray.results.audit import UtilityRow

STRENGTH = 0.8
"""Strength at which anonymizers that start from noise start from the image instead."""


def main_protocol(settings: AuditSettings) -> Protocol:
    """Full-Ref, or the first where that is not measured."""
    return "full_ref" if "full_ref" in settings.protocols else settings.protocols[0]


class AttributionAnalysis:
    """Explains what carries the leak that the attacks have shown.

    Args:
        config: the audit.
        stages: runs and remembers the stages.
        runner: of the audit; its attackers embed the swapped images as they embed all others.
    """

    def __init__(self, config: AuditConfig, stages: Stages, runner: AttackRunner) -> None:
        self.config = config
        self.stages = stages
        self.runner = runner

    def explain(self, faces: Artifact, results: AttackResults) -> Attribution | None:
        """The attribution of an audit: its anonymizers compared, and one swap of conditions.

        The conditions are swapped in the conditioned anonymizer that leaks most, against the
        strongest attacker that learnt from its images. Where the anonymizer starts from noise, the
        swapped images start from originals (:data:`STRENGTH`), which that attacker has not seen.

        Returns:
            None where no anonymizer has a condition, or none was attacked.
        """
        strongest = self._strongest(results)
        if strongest is None:
            return None
        key, attacker = strongest
        anonymizer = conditioned(self.config.anonymizers)[key]
        swapped = anonymizer.started_from_image(STRENGTH)
        fitted = results.fitted[anonymizer.name, attacker.name]
        swaps = self.swaps(faces, swapped, [(attacker, fitted)])
        rows = [row for swap in swaps for row in swap_rows(swap, self.config.audit)]
        return self.attribution(results, rows)

    def attribution(
        self,
        results: AttackResults,
        rows: list[AttributionRow],
        statements: Sequence[str] = (),
    ) -> Attribution:
        """Rows of swaps and others, beside what attacks on several anonymizers show together."""
        settings = self.config.audit
        protocol = main_protocol(settings)
        attacks = [attack for attack in results.attacks if attack.protocol == protocol]
        regions = [attack for attack in results.regions if attack.protocol == protocol]
        grids = ablation_grids(self.config.anonymizers.values())
        names = [anonymizer.name for anonymizer in conditioned(self.config.anonymizers).values()]
        ablated = ablation_rows(attacks, grids, settings)
        all_rows = [
            *rows,
            *ablated,
            *proxy_rows(attacks, names, settings),
            *region_rows(regions, settings),
        ]
        sentences = [*scale_statements(ablated, grids), *statements]
        return Attribution(
            attribution_headline(all_rows), all_rows, sentences, settings.confidence_level
        )

    def swaps(
        self,
        faces: Artifact,
        anonymizer: Anonymizer,
        attackers: Sequence[tuple[Attacker, Table | None]],
    ) -> list[Swap]:
        """Swap conditions in an anonymizer, and let attackers identify the persons.

        Args:
            anonymizer: must start from the image (``img2img`` or ``inpaint``).
            attackers: each with what it has learnt.
        """
        seed = self.config.audit.seed
        engine = self.config.engine
        table = self.stages.run(
            f"swap-{anonymizer.name}",
            {"anonymizer": anonymizer, "seed": seed},
            [faces],
            lambda folder: swap_conditions(faces, anonymizer, seed, engine, folder),
            title=f"swap conditions of {anonymizer.name}",
            resources=engine.pool_stage(anonymizer.gpus_per_actor(engine.gpus_per_actor)),
        )
        origins = table.read()
        return [
            swap
            for attacker, fitted in attackers
            for swap in swap_outcomes(
                self.runner.embeddings(attacker, fitted, faces, table),
                origins,
                anonymizer.name,
                attacker.name,
                galleries=self.config.audit.galleries,
            )
        ]

    def _strongest(self, results: AttackResults) -> tuple[str, Attacker] | None:
        """Key of the conditioned anonymizer that leaks most, and the attacker for its swaps."""
        attackers = {attacker.name: attacker for attacker in self.config.attackers.values()}
        keys = {item.name: key for key, item in conditioned(self.config.anonymizers).items()}
        attacks = [
            attack
            for attack in results.attacks
            if attack.anonymizer in keys
            and attack.attacker in attackers
            and (attack.anonymizer, attack.attacker) in results.fitted
        ]
        if not attacks:
            return None
        adapted = [a for a in attacks if attackers[a.attacker].learns_from_anonymized]
        strongest = max(adapted or attacks, key=_success)
        return keys[strongest.anonymizer], attackers[strongest.attacker]


def _success(attack: AttackResult) -> tuple[bool, float]:
    return attack.gallery == "source_excluded", float(attack.rank_1.mean())


def swap_outcomes(
    embeddings: pa.Table,
    origins: pa.Table,
    anonymizer: str,
    attacker: str,
    *,
    galleries: Sequence[str],
) -> list[Swap]:
    """Rank both identities of every swapped image against all originals.

    Args:
        embeddings: of one attacker, with the views ``original`` and ``anonymizer``.
        origins: table of schema ``engine.map_stages.swap.SWAPPED``.
        galleries: ``source_excluded`` leaves both originals behind a swapped image out of the
            gallery, ``source_included`` none. Others are passed over.
    """
    originals, probes = view_of(embeddings, ORIGINAL), view_of(embeddings, anonymizer)
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
        left_out = copies_of(both, originals) if gallery == "source_excluded" else None
        # Ranks of the condition's identity, and of the one whose image it starts from.
        ranks = [
            rank_claimed(
                EmbeddingSet(probes.sample_ids, claimed, probes.vectors), originals, left_out
            )
            for claimed in (columns["condition_identity"], probes.identities)
        ]
        kept, first, second = np.intersect1d(
            ranks[0].sample_ids, ranks[1].sample_ids, return_indices=True
        )
        condition, start = (success_at_rank(r.n_higher, r.n_tied, 1) for r in ranks)
        pairs = columns["pair"][np.searchsorted(columns["sample_id"], kept)]
        size = ranks[0].gallery_size
        swaps.append(
            Swap(anonymizer, attacker, gallery, condition[first], start[second], pairs, size)
        )
    return swaps


def copies_of(groups: Sequence[Sequence[str]], images: EmbeddingSet) -> list[list[str]]:
    """The images of each group, and their near-duplicates.

    Args:
        groups: sample ids of some of the images.
    """
    contents = images.contents.tolist()
    content_of = dict(zip(images.sample_ids.tolist(), contents, strict=True))
    alike: dict[str, list[str]] = {}
    for sample, content in content_of.items():
        alike.setdefault(content, []).append(sample)
    return [
        sorted({same for sample in group for same in alike[content_of[sample]]}) for group in groups
    ]


@dataclass(frozen=True)
class StudyResult:
    """What an attribution study has shown.

    Attributes:
        attribution: rows and sentences.
        notes: caveats for the reader.
        data_fingerprint: hash of the images.
    """

    attribution: Attribution
    notes: list[str]
    data_fingerprint: str


class AttributionStudy:
    """Runs one attribution study on the connected cluster.

    Args:
        config: what is tried.
    """

    def __init__(self, config: AttributionConfig) -> None:
        self.config = config
        audit = config.audit
        self.stages = Stages(audit.cache_dir)
        self.preparation = DataPreparation(audit, self.stages)
        self.runner = AttackRunner(audit, self.stages)
        self.analysis = AttributionAnalysis(audit, self.stages, self.runner)
        measured = replace(
            audit.audit,
            utility=["ssim", "edge_f1"],
            n_utility_images=config.operating_point.n_images,
        )
        self.utility = Utility(replace(audit, audit=measured), self.stages)

    def run(self) -> StudyResult:
        """Anonymize, attack, swap and compare.

        Raises:
            BadInputError, CldmrayError: see :meth:`cldmray.pipelines.audit.Audit.run`.
        """
        self.preparation.check()
        self.runner.check()
        if self.config.searched:
            self.utility.check()
        with self.stages:
            return self._study()

    def _study(self) -> StudyResult:
        audit = self.config.audit
        images = self.preparation.run(self.preparation.listing())
        faces, anonymized = images.faces, images.anonymized
        results = self.runner.run(faces, anonymized, images.content_ids)
        rows = self._swap_rows(faces, results)
        statements = []
        diagnostics = self.runner.diagnostics(results)
        weakness = weaknesses(diagnostics, audit.audit.min_clean_rank_1)
        if self.config.searched:
            points, operating_points = self._search(faces, anonymized, results)
            rows += operating_points
            statements = [
                operating_point_sentence(
                    points,
                    self.config.operating_point.target_k,
                    self.config.operating_point.utility,
                    audit.audit.confidence_level,
                    weakness,
                )
            ]
        attribution = self.analysis.attribution(results, rows, statements)
        notes = [
            *images.notes,
            *results.notes,
            teacher_note(
                audit.faces.synthetic,
                any(attacker.has_teacher for attacker in audit.attackers.values()),
            ),
            *weakness_notes(diagnostics, weakness),
            "Shares are of the leak that these attackers show." if any(weakness.values()) else "",
        ]
        return StudyResult(
            attribution, [note for note in notes if note], faces.manifest.content[:16]
        )

    def _swap_rows(self, faces: Artifact, results: AttackResults) -> list[AttributionRow]:
        """Swaps against all attackers; their rates without swaps are the control."""
        audit = self.config.audit
        anonymizers = {item.name: item for item in conditioned(audit.anonymizers).values()}
        rows = []
        for name in self.config.swapped:
            attackers = [
                (attacker, results.fitted[name, attacker.name])
                for attacker in audit.attackers.values()
                if (name, attacker.name) in results.fitted
            ]
            for swap in self.analysis.swaps(faces, anonymizers[name], attackers):
                rows += swap_rows(swap, audit.audit)
        return rows

    def _search(
        self, faces: Artifact, anonymized: dict[str, Artifact], results: AttackResults
    ) -> tuple[list[OperatingPoint], list[AttributionRow]]:
        """The operating points of the searched anonymizers, and their rows."""
        config, settings = self.config, self.config.operating_point
        tables = {
            key: anonymized[key]
            for key, anonymizer in config.audit.anonymizers.items()
            if anonymizer.name in config.searched
        }
        utility_rows = self.utility.run(faces, tables, {}).rows
        points, rows = [], []
        for name in config.searched:
            attacks = [
                attack
                for attack in results.attacks
                if attack.anonymizer == name
                and attack.gallery == settings.gallery
                and attack.protocol == main_protocol(config.audit.audit)
            ]
            if not attacks:
                continue
            measures = {row.measure: row for row in utility_rows if row.anonymizer == name}
            row = measures.get(settings.utility)
            utility = math.nan if row is None else row.value
            point = candidate_point(attacks, len(config.searched), utility, config.audit.audit)
            points.append(point)
            rows += _operating_point_rows(point, attacks[0], measures.values())
        return points, rows


def _operating_point_rows(
    point: OperatingPoint, attack: AttackResult, utility: Iterable[UtilityRow]
) -> list[AttributionRow]:
    name = point.anonymizer
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
        chance=chance(1, attack.ranks.gallery_size),
    )
    return [
        risk,
        *(
            AttributionRow(
                "operating_point", name, "", "", "", u.measure, u.value, u.low, u.high, u.n_images
            )
            for u in utility
        ),
    ]
