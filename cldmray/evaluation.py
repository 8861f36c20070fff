"""From embeddings to rows of results, curves and the strongest attack on each anonymizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.config import AuditSettings
from cldmray.errors import BadInputError
from cldmray.faces.records import RESULTS, embedding_matrix
from cldmray.gallery.ranking import Embedded, Ranks, rank_probes
from cldmray.metrics.confidence import bootstrap_columns, bootstrap_identities
from cldmray.metrics.identification import chance, cmc, reciprocal_rank, success_at_rank
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.report.model import AnonymizerRisk, AttackRate, Curve

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Attack:
    """One attacker against one anonymizer in one protocol and gallery, with its ranks."""

    anonymizer: str
    attacker: str
    protocol: str
    gallery: str
    ranks: Ranks

    @property
    def rank_1(self) -> Any:
        """Probability per probe, shape (P,), that its person is named first."""
        return success_at_rank(self.ranks.better, self.ranks.ties, 1)


def view_of(table: pa.Table, view: str) -> Embedded:
    """The embeddings of one view of an embeddings table."""
    rows = table.filter(pc.equal(table["view"], view)).sort_by("sample_id")
    return Embedded(
        np.asarray(rows["sample_id"].to_pylist()),
        np.asarray(rows["identity"].to_pylist()),
        embedding_matrix(rows),
    )


def attacks(
    embeddings: pa.Table, anonymizer: str, attacker: str, settings: AuditSettings, original: str
) -> list[Attack]:
    """Rank the probes of one anonymizer in every protocol and gallery of the audit.

    Args:
        embeddings: of one encoder, with the views ``original`` and ``anonymizer``.

    Raises:
        BadInputError: the anonymizer has no picture of the evaluated people; also see
            :func:`cldmray.gallery.ranking.rank_probes`.
    """
    probes, photos = view_of(embeddings, anonymizer), view_of(embeddings, original)
    if not len(probes.sample_ids):
        raise BadInputError(f"{anonymizer}: there is no picture of the people to be evaluated")
    return [
        Attack(
            anonymizer, attacker, protocol, gallery, rank_probes(probes, photos, protocol, gallery)
        )
        for protocol in settings.protocols
        for gallery in settings.galleries
    ]


def clear_rank_1(embeddings: pa.Table, original: str) -> float:
    """Rank-1 rate of an encoder on clear photographs: Full-Ref, source excluded."""
    photos = view_of(embeddings, original)
    ranks = rank_probes(photos, photos, "full_ref", "source_excluded")
    return float(success_at_rank(ranks.better, ranks.ties, 1).mean())


def result_rows(attack: Attack, settings: AuditSettings) -> list[dict[str, Any]]:
    """Rows of ``records.RESULTS`` of one attack: rank-1, 5 and 10, and the mean reciprocal rank."""
    ranks = attack.ranks
    columns = [success_at_rank(ranks.better, ranks.ties, k) for k in RANKS]
    columns.append(reciprocal_rank(ranks.better, ranks.ties))
    intervals = bootstrap_columns(
        np.stack(columns, 1), ranks.identities, settings.level, settings.resamples, settings.seed
    )
    size = ranks.gallery_size
    guesses = [chance(k, size) for k in RANKS]
    guesses.append(float(np.mean(1 / np.arange(1, size + 1))))
    names = [*(f"rank_{k}" for k in RANKS), "mean_reciprocal_rank"]
    return [
        {
            "anonymizer": attack.anonymizer,
            "attacker": attack.attacker,
            "protocol": attack.protocol,
            "gallery": attack.gallery,
            "measure": name,
            "value": interval.value,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "n_probes": len(ranks.better),
            "n_identities": len(np.unique(ranks.identities)),
            "gallery_size": size,
            "chance": guess,
        }
        for name, interval, guess in zip(names, intervals, guesses, strict=True)
    ]


def results_table(every: Iterable[Attack], settings: AuditSettings) -> pa.Table:
    """All rows of all attacks, schema ``records.RESULTS``."""
    rows = [row for attack in every for row in result_rows(attack, settings)]
    return pa.Table.from_pylist(rows, RESULTS)


def curve(attack: Attack) -> Curve:
    """The CMC of an attack over all ranks of its gallery."""
    ranks = list(range(1, attack.ranks.gallery_size + 1))
    return Curve(
        attack.anonymizer,
        attack.attacker,
        attack.protocol,
        attack.gallery,
        ranks,
        [float(rate) for rate in cmc(attack.ranks.better, attack.ranks.ties, ranks)],
        [chance(rank, attack.ranks.gallery_size) for rank in ranks],
    )


def strongest(every: list[Attack], settings: AuditSettings, note: str) -> AnonymizerRisk:
    """The strongest of all attacks on one anonymizer, with bounds that hold for all at once.

    With m attacks each interval has the level 1 - (1 - level) / m (Bonferroni), so that choosing
    the strongest afterwards does not make a claim look rejected by luck. The strongest is the one
    with the highest rate among those whose lower bound exceeds chance; where there is none, the
    one with the highest upper bound, which is the most that the measurements leave possible.
    Claims of k-anonymity are tested against the highest lower bound of all.

    Args:
        every: the attacks on one anonymizer.
        note: what limits a conclusion that nothing leaks; may be empty.
    """
    level = 1 - (1 - settings.level) / len(every)
    resamples = max(settings.resamples, round(50 / (1 - level)))
    found = []
    for attack in every:
        interval = bootstrap_identities(
            attack.rank_1, attack.ranks.identities, level, resamples, settings.seed
        )
        found.append((attack, interval))
    leaking = [(a, i) for a, i in found if i.low > chance(1, a.ranks.gallery_size)]
    if leaking:
        attack, interval = max(leaking, key=lambda pair: (pair[1].value, pair[1].low))
    else:
        attack, interval = max(found, key=lambda pair: (pair[1].high, pair[1].value))
    firm, surest = max(found, key=lambda pair: (pair[1].low, pair[0] is attack))
    size = attack.ranks.gallery_size
    return AnonymizerRisk(
        anonymizer=attack.anonymizer,
        risk=interval.value,
        low=interval.low,
        high=interval.high,
        attacker=attack.attacker,
        protocol=attack.protocol,
        gallery=attack.gallery,
        chance=chance(1, size),
        largest_k=k_anonymity(surest, size).largest_k_not_rejected,
        level=settings.level,
        note="" if leaking else note,
        firmest=AttackRate(firm.attacker, firm.protocol, firm.gallery, *surest),
        upper=max(i.high for _, i in found),
    )
