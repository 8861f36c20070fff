"""Finding out what carries the leak: swapped conditions, and what attacks tell together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.anonymizers.diffusion import Diffusion
from cldmray.attackers.ladder import EmbeddingRung
from cldmray.attribution import Swap, ablation_rows, proxy_rows, region_rows, swap_rows
from cldmray.attribution_words import headline, scale_statements
from cldmray.campaign import Campaign, Findings
from cldmray.config import AuditConfig, AuditSettings
from cldmray.engine.embed import ORIGINAL
from cldmray.engine.stages import Stages
from cldmray.engine.swap import swap_conditions
from cldmray.engine.tables import StageTable
from cldmray.evaluation import Attack, view_of
from cldmray.families import conditioned, families, started
from cldmray.gallery.naming import rank_named
from cldmray.gallery.references import Embedded, Protocol
from cldmray.metrics.identification import success_at_rank
from cldmray.report.attribution import Attribution, Row

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
