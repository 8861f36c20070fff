"""From embeddings to attacks, curves and the strongest attack on each anonymizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Floats, Interval
from cldmray.errors import BadInputError
from cldmray.evaluation.measures import det_curves
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.faces.records import CONTENT_ID, embedding_matrix
from cldmray.gallery.albums import AlbumScores
from cldmray.gallery.chance import (
    Apply,
    MeasuredChance,
    measured_chance,
    measured_places,
    pool_chance,
    ranks_and_chance,
)
from cldmray.gallery.protocols import EmbeddingSet, Gallery, Protocol, Strings
from cldmray.gallery.ranking import Ranks, pool_ranks, rank_probes, rank_scores
from cldmray.gallery.scores import EmbeddingScores, Scores, is_small, kept_if_small
from cldmray.metrics.chance import simultaneous_excess
from cldmray.metrics.identification import chance, cmc, success_at_rank
from cldmray.metrics.k_anonymity import k_anonymity
from cldmray.metrics.rates import rate_intervals
from cldmray.results.audit import AnonymizerRisk, AttackRate, CmcCurve, DetCurve


@dataclass(frozen=True)
class AttackResult:
    """One attacker against one anonymizer in one protocol and gallery.

    Attributes:
        anonymizer, attacker, protocol, gallery: which one, as in
            docs/results_files.md.
        ranks: of the probes, those of every training of the attacker one after the other.
        scores: from which they were counted, one per training; empty where only the ranks are
            known.
        chance_by_shards: :attr:`measured_chance` where it was measured with the ranks, else None.
        rank_1: probability per probe, shape (P,), that its identity is ranked first.
    """

    anonymizer: str
    attacker: str
    protocol: str
    gallery: str
    ranks: Ranks
    scores: tuple[Scores, ...] = ()
    chance_by_shards: MeasuredChance | None = field(default=None, repr=False, compare=False)
    rank_1: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        success = success_at_rank(self.ranks.n_higher, self.ranks.n_tied, 1)
        object.__setattr__(self, "rank_1", success)

    @classmethod
    def of(
        cls, anonymizer: str, attacker: str, protocol: str, gallery: str, *scores: Scores
    ) -> "AttackResult":
        """The attack with these scores, one per training of the attacker, at least one."""
        ranks = pool_ranks([rank_scores(part) for part in scores])
        return cls(anonymizer, attacker, protocol, gallery, ranks, scores)

    def by_image(self, *values: Floats) -> tuple[Strings, Strings, list[Floats]]:
        """Means over the trainings, image by image, of values of the probes.

        Args:
            values: of every probe, shape (P,) each.

        Returns:
            Sample ids, sorted, identities and the means of each of the values, shape (S,) each.
        """
        samples, first, images, counts = np.unique(
            self.ranks.sample_ids, return_index=True, return_inverse=True, return_counts=True
        )
        means = [np.bincount(images, weights=each) / counts for each in values]
        return samples, self.ranks.identities[first], means

    @cached_property
    def albums(self) -> "AttackResult | None":
        """The same attack on all anonymized images of each identity together.

        None where only the ranks are known, and of linkage: whoever has the albums knows which
        anonymized images show one person.
        """
        if not self.scores or self.gallery == "anonymized_only":
            return None
        where = self.anonymizer, self.attacker, self.protocol, self.gallery
        albums = (kept_if_small(AlbumScores(scores)) for scores in self.scores)
        return AttackResult.of(*where, *albums)

    @cached_property
    def measured_chance(self) -> MeasuredChance:
        """Success with permuted identities; 1/N of a gallery of N where the scores are unknown."""
        if self.chance_by_shards is not None:
            return self.chance_by_shards
        if self.scores:
            return measured_chance(self.scores)
        expected = np.full(len(self.rank_1), chance(1, self.ranks.gallery_size))
        return MeasuredChance(expected, self.rank_1 - expected, expected)

    @property
    def chance(self) -> float:
        """Rank-1 rate with permuted identities, in [0, 1]."""
        return float(self.measured_chance.permuted.mean())


def view_of(table: pa.Table, view: str) -> EmbeddingSet:
    """The embeddings of one view of an embeddings table, and content ids where it has them."""
    rows = table.filter(pc.equal(table["view"], view)).sort_by("sample_id")
    contents = rows[CONTENT_ID].to_pylist() if CONTENT_ID in rows.column_names else None
    return EmbeddingSet(
        np.asarray(rows["sample_id"].to_pylist()),
        np.asarray(rows["identity"].to_pylist()),
        embedding_matrix(rows),
        None if contents is None else np.asarray(contents),
    )


class ProbesAndReferences(NamedTuple):
    """Two views of an embeddings table, which protocols and galleries share."""

    probes: EmbeddingSet
    references: EmbeddingSet

    @classmethod
    def of(cls, embeddings: pa.Table, view: str, original: str) -> "ProbesAndReferences":
        """The probes of one view, and the images.

        Args:
            embeddings: of one encoder, with the views ``original`` and ``view``.

        Raises:
            BadInputError: there is no image of that view.
        """
        probes = view_of(embeddings, view)
        if not len(probes.sample_ids):
            raise BadInputError(f"{view}: there is no image of the people to be identified")
        return cls(probes, view_of(embeddings, original))

    def scores(self, protocol: Protocol, gallery: Gallery) -> EmbeddingScores:
        """Scores of the probes against everybody in the table.

        Raises:
            BadInputError: see :func:`cldmray.gallery.protocols.choose_references`.
        """
        references = self.probes if gallery == "anonymized_only" else self.references
        return EmbeddingScores(self.probes, references, protocol, gallery)


def attacks(
    tables: Sequence[pa.Table],
    view: str,
    attacker: str,
    settings: EvaluationSettings,
    original: str,
    *,
    apply: Apply = map,
) -> list[AttackResult]:
    """Rank the probes of one view in every protocol and gallery of the audit.

    Args:
        tables: embeddings of the evaluation people by every training of the attacker.
        view: of the probes, such as an anonymizer's name; it becomes the attacks' ``anonymizer``.
        apply: calls a function for each shard of those scores that are too many to be kept, here or
            in other processes.

    Raises:
        BadInputError: see :class:`ProbesAndReferences`.
    """
    trainings = [ProbesAndReferences.of(table, view, original) for table in tables]
    places = list(product(settings.protocols, settings.galleries))
    scored = [tuple(views.scores(*place) for views in trainings) for place in places]
    sharded = [scores for scores in scored if not all(map(is_small, scores))]
    outcomes = iter(ranks_and_chance([each for scores in sharded for each in scores], apply))
    results = []
    for (protocol, gallery), scores in zip(places, scored, strict=True):
        measured = None
        if all(map(is_small, scores)):
            ranks = pool_ranks([rank_scores(each) for each in scores])
        else:
            parts, chances = zip(*islice(outcomes, len(scores)), strict=True)
            ranks, measured = pool_ranks(parts), pool_chance(chances)
        results.append(AttackResult(view, attacker, protocol, gallery, ranks, scores, measured))
    return results


def clean_rank_1(embeddings: pa.Table, original: str) -> float:
    """Rank-1 rate of an encoder on clean images: Full-Ref, source excluded."""
    references = view_of(embeddings, original)
    ranks = rank_probes(references, references, "full_ref", "source_excluded")
    return float(success_at_rank(ranks.n_higher, ranks.n_tied, 1).mean())


def curve(attack: AttackResult) -> CmcCurve:
    """The CMC of an attack over all ranks of its gallery."""
    ranks = list(range(1, attack.ranks.gallery_size + 1))
    return CmcCurve(
        attack.anonymizer,
        attack.attacker,
        attack.protocol,
        attack.gallery,
        ranks,
        [float(rate) for rate in cmc(attack.ranks.n_higher, attack.ranks.n_tied, ranks)],
        _chance_at_ranks(attack),
    )


def _chance_at_ranks(attack: AttackResult) -> list[float]:
    """Success at every rank with permuted identities; k/N where the scores are unknown."""
    size = attack.ranks.gallery_size
    if not attack.scores:
        return [chance(rank, size) for rank in range(1, size + 1)]
    return [min(1.0, float(rate)) for rate in np.cumsum(measured_places(attack.scores))]


def det(attack: AttackResult) -> list[DetCurve]:
    """The DET curves of an attack; none where only its ranks are known."""
    if not attack.scores:
        return []
    where = attack.anonymizer, attack.attacker, attack.protocol, attack.gallery
    return [DetCurve(*where, kind, *rates) for kind, rates in det_curves(attack.scores).items()]


def shown_attacks(
    risks: Sequence[AnonymizerRisk], attacks: Sequence[AttackResult]
) -> list[AttackResult]:
    """The attack on each anonymizer whose curves a report shows."""
    by_key = {(a.anonymizer, a.attacker, a.protocol, a.gallery): a for a in attacks}
    keys = [(risk.anonymizer, *risk.shown_attack[:3]) for risk in risks]
    return [by_key[key] for key in keys if key in by_key]


def excess_over_chance(
    attacks: Sequence[AttackResult], settings: EvaluationSettings
) -> list[Interval]:
    """Rank-1 rate less that with permuted identities; the bounds hold for all attacks at once.

    An attack identifies people significantly more often than chance where ``low`` is above 0.

    Args:
        attacks: over all of which the bounds hold, such as those of a whole audit.
    """
    return simultaneous_excess(
        [attack.measured_chance.excess for attack in attacks],
        [attack.ranks.identities for attack in attacks],
        [attack.chance for attack in attacks],
        **settings.bootstrap,
    )


class Measured(NamedTuple):
    """One attack with its rank-1 rate and its excess over chance, both with simultaneous bounds."""

    attack: AttackResult
    rate: Interval
    excess: Interval

    @property
    def summary(self) -> AttackRate:
        """As a report shows it."""
        attack = self.attack
        where = attack.attacker, attack.protocol, attack.gallery
        return AttackRate(*where, *self.rate, chance=attack.chance, excess=self.excess)


def strongest(
    attacks: Sequence[AttackResult],
    settings: EvaluationSettings,
    note: str,
    excess: Sequence[Interval] | None = None,
) -> AnonymizerRisk:
    """The strongest of all attacks on one anonymizer, with bounds that hold for all at once.

    With m attacks each interval has the level 1 - (1 - confidence_level) / m (Bonferroni), so that
    choosing the strongest afterwards does not make a claim look rejected by luck. The strongest is
    the one with the highest rate among those that are significantly above chance; where there is
    none, the one with the highest upper bound, which is the most that the measurements leave
    possible. Claims of k-anonymity are tested against the highest lower bound of those that are
    above chance, else of all: in a gallery of few people guessing alone exceeds 1/k.

    Args:
        attacks: the attacks on one anonymizer.
        note: what limits a conclusion that nothing leaks; may be empty.
        excess: of these attacks, with bounds over more than them; None: over them alone. See
            :func:`excess_over_chance`.
    """
    confidence_level = 1 - (1 - settings.confidence_level) / len(attacks)
    rates = _rank_1_intervals(attacks, confidence_level)
    if excess is None:
        excess = excess_over_chance(attacks, settings)
    measured = [Measured(*row) for row in zip(attacks, rates, excess, strict=True)]
    leaking = [row for row in measured if row.excess.low > 0]
    if leaking:
        worst = max(leaking, key=lambda row: (row.rate.value, row.rate.low))
    else:
        worst = max(measured, key=lambda row: (row.rate.high, row.rate.value))
    attack, rate = worst.attack, worst.rate
    firm = max(leaking or measured, key=lambda row: (row.rate.low, row is worst))
    size = attack.ranks.gallery_size
    return AnonymizerRisk(
        anonymizer=attack.anonymizer,
        risk=rate.value,
        low=rate.low,
        high=rate.high,
        attacker=attack.attacker,
        protocol=attack.protocol,
        gallery=attack.gallery,
        chance=attack.chance,
        k_not_rejected=k_anonymity(firm.rate, size).k_not_rejected,
        confidence_level=settings.confidence_level,
        gallery_size=size,
        n_probes=len(np.unique(attack.ranks.sample_ids)),
        note="" if leaking else note,
        highest_lower_bound=firm.summary,
        highest_upper_bound=max(row.rate.high for row in measured),
        excess=worst.excess,
        cross_image=_strongest_of(measured, "source_excluded"),
        same_image=_strongest_of(measured, "source_included"),
    )


def anonymizer_risks(
    attacks: Sequence[AttackResult], settings: EvaluationSettings, notes: Mapping[str, str]
) -> list[AnonymizerRisk]:
    """The strongest attack on each anonymizer, how well its images are linked, and person level.

    Linking anonymized images with each other identifies nobody, so it counts as a risk of its own,
    unless nothing else was measured. Bounds hold for all attacks of one kind: those that identify
    images, those that link them, and those that identify people by all of their images.

    Args:
        attacks: on all anonymizers.
        notes: what limits a conclusion that nothing leaks, by anonymizer; may be empty.
    """
    linking = [attack for attack in attacks if attack.gallery == "anonymized_only"]
    identifying = [attack for attack in attacks if attack.gallery != "anonymized_only"]
    cross_image = [attack for attack in identifying if attack.gallery == "source_excluded"]
    albums = [attack.albums for attack in cross_image if attack.albums is not None]
    identified = _strongest_by_anonymizer(identifying, settings, notes)
    linked = _strongest_by_anonymizer(linking, settings, {} if identified else notes)
    pooled = _strongest_by_anonymizer(albums, settings, {})
    risks = []
    for name in dict.fromkeys(attack.anonymizer for attack in attacks):
        if name not in identified:
            risks.append(linked[name])
            continue
        linkage, person_level = linked.get(name), pooled.get(name)
        risks.append(
            replace(
                identified[name],
                linkage=None if linkage is None else linkage.strongest_attack,
                tested_linkage=None if linkage is None else linkage.tested_attack,
                person_level=None if person_level is None else person_level.strongest_attack,
            )
        )
    return risks


def _strongest_by_anonymizer(
    attacks: Sequence[AttackResult], settings: EvaluationSettings, notes: Mapping[str, str]
) -> dict[str, AnonymizerRisk]:
    excess = excess_over_chance(attacks, settings)
    own: dict[str, list[tuple[AttackResult, Interval]]] = {}
    for attack, interval in zip(attacks, excess, strict=True):
        own.setdefault(attack.anonymizer, []).append((attack, interval))
    return {
        name: strongest(
            [attack for attack, _ in pairs],
            settings,
            notes.get(name, ""),
            [interval for _, interval in pairs],
        )
        for name, pairs in own.items()
    }


def _strongest_of(measured: Sequence[Measured], gallery: Gallery) -> AttackRate | None:
    """The attack in one gallery with the highest rate; None where there is none."""
    there = [row for row in measured if row.attack.gallery == gallery]
    if not there:
        return None
    return max(there, key=lambda row: (row.rate.value, row.rate.low)).summary


def _rank_1_intervals(attacks: Sequence[AttackResult], confidence_level: float) -> list[Interval]:
    """Rank-1 rate of each attack; those on the same probes are computed together."""
    together: dict[bytes, list[int]] = {}
    for place, attack in enumerate(attacks):
        together.setdefault(attack.ranks.sample_ids.tobytes(), []).append(place)
    interval_of: dict[int, Interval] = {}
    for places in together.values():
        columns = np.stack([attacks[place].rank_1 for place in places], 1)
        ranks = attacks[places[0]].ranks
        intervals = rate_intervals(
            columns, ranks.identities, samples=ranks.sample_ids, confidence_level=confidence_level
        )
        interval_of.update(zip(places, intervals, strict=True))
    return [interval_of[place] for place in range(len(attacks))]
