"""What carries the leak, computed from attacks that have been run (docs/measures.md)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.anonymizers.base import AblationKey, Anonymizer
from cldmray.arrays import Interval
from cldmray.evaluation.identification import AttackResult, excess_over_chance
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.metrics.confidence import paired_bootstrap
from cldmray.metrics.identification import chance
from cldmray.metrics.rates import rate_interval
from cldmray.metrics.ratios import ratio_interval, share_interval
from cldmray.results.attribution import AttributionRow, Question

Floats = npt.NDArray[np.float64]
NULL = Interval(math.nan, math.nan, math.nan)
"""Of a share that means nothing; the row has a reason."""
PROXIES = (
    ("condition_only", "adaptive_contrastive"),
    ("condition_only_distilled", "adaptive_distilled"),
)
"""Attackers who know the condition only, and those beside them who can query the anonymizer."""


@dataclass(frozen=True)
class Swap:
    """One attacker on images with the condition of one person and the start of another.

    Attributes:
        anonymizer: the setting whose conditions were swapped.
        attacker, gallery: as in docs/results_files.md; the protocol is Full-Ref.
            *Source excluded* means that neither of the two images is in the gallery.
        condition, start: success of identifying either person, in [0, 1], shape (P,).
        pairs: of people who were swapped with each other, shape (P,); the unit of resampling.
        gallery_size: candidate identities.
    """

    anonymizer: str
    attacker: str
    gallery: str
    condition: Floats
    start: Floats
    pairs: npt.NDArray[np.str_]
    gallery_size: int


class AblationGrid(NamedTuple):
    """Anonymizers that differ in their control scale only.

    Attributes:
        none: name of the same anonymizer without a condition; None where there is none.
        names: of the others, by rising scale.
        scales: of each, > 0: the largest of its controls'.
    """

    none: str | None
    names: list[str]
    scales: list[float]


def ablation_grids(anonymizers: Iterable[Anonymizer]) -> list[AblationGrid]:
    """Grids of the conditioned anonymizers, in the order of their first members."""
    keys = [
        (anonymizer.name, key)
        for anonymizer in anonymizers
        if (key := anonymizer.ablation_key()) is not None
    ]
    unconditioned = {key.without_condition: name for name, key in keys if not key.scale}
    groups: dict[str, list[tuple[float, str, AblationKey]]] = {}
    for name, key in keys:
        if key.scale:
            groups.setdefault(key.without_scale, []).append((key.scale, name, key))
    grids = []
    for group in groups.values():
        members = sorted(group)
        none = unconditioned.get(members[0][2].without_condition)
        grids.append(
            AblationGrid(none, [name for _, name, _ in members], [scale for scale, _, _ in members])
        )
    return grids


def conditioned(anonymizers: Mapping[str, Anonymizer]) -> dict[str, Anonymizer]:
    """Those anonymizers, by key, that have a condition that acts."""
    return {key: anonymizer for key, anonymizer in anonymizers.items() if anonymizer.is_conditioned}


def paired(first: AttackResult, second: AttackResult) -> tuple[Floats, Floats, Any]:
    """Success of two attacks on the images that both were tried on, and the identities.

    Where an attacker was trained several times, the success of its trainings is averaged image by
    image.

    Returns:
        Three arrays of shape (P,), in order of sample id.
    """
    samples, identities, (a,) = first.by_image(first.rank_1)
    others, _, (b,) = second.by_image(second.rank_1)
    _, here, there = np.intersect1d(samples, others, assume_unique=True, return_indices=True)
    return a[here], b[there], identities[here]


def _at_chance(attacks: Sequence[AttackResult], settings: EvaluationSettings) -> str:
    """Why a share of these attacks' rates means nothing; empty where all are above chance."""
    blind = [
        attack.attacker + " on " + attack.anonymizer
        for attack in attacks
        if excess_over_chance([attack], settings)[0].low <= 0
    ]
    return f"not significantly above chance: {', '.join(blind)}" if blind else ""


def _row(
    question: Question,
    attack: AttackResult,
    measure: str,
    interval: Interval,
    **more: Any,
) -> AttributionRow:
    return AttributionRow(
        question,
        attack.anonymizer,
        attack.attacker,
        attack.protocol,
        attack.gallery,
        measure,
        *interval,
        **{"n_probes": len(np.unique(attack.ranks.sample_ids)), **more},
    )


def rate_row(
    question: Question, attack: AttackResult, settings: EvaluationSettings, **more: Any
) -> AttributionRow:
    """The rank-1 rate of an attack with its interval over identities."""
    interval = rate_interval(
        attack.rank_1,
        attack.ranks.identities,
        samples=attack.ranks.sample_ids,
        confidence_level=settings.confidence_level,
    )
    return _row(question, attack, "rank_1", interval, chance=attack.chance, **more)


def _difference(
    question: Question, attack: AttackResult, other: AttackResult, settings: EvaluationSettings
) -> AttributionRow | None:
    a, b, identities = paired(attack, other)
    if not len(a):
        return None
    interval = paired_bootstrap(a, b, identities, **settings.bootstrap)
    more = {"compared_with": other.anonymizer, "n_probes": len(a)}
    return _row(question, attack, "rank_1_difference", interval, **more)


def ablation_rows(
    attacks: Sequence[AttackResult], groups: Sequence[AblationGrid], settings: EvaluationSettings
) -> list[AttributionRow]:
    """Rates of settings with and without their condition, and steps between control scales.

    Measures: ``rank_1``; ``rank_1_difference``, paired, against the setting without a condition
    (question ``ablation``) and against the next lower scale (``scale``); and ``carried_share`` =
    (rate - rate without) / rate, in (-inf, 1], which is null where the rate is not significantly
    above chance.
    """
    rows: list[AttributionRow | None] = []
    for by_setting in _by_attacker(attacks):
        for none in dict.fromkeys(group.none for group in groups if group.none in by_setting):
            rows.append(rate_row("ablation", by_setting[none], settings))
        for group in groups:
            names = [name for name in group.names if name in by_setting]
            base = by_setting.get(group.none or "")
            for name in names:
                rows.append(rate_row("ablation", by_setting[name], settings))
                if base is not None:
                    rows.append(_difference("ablation", by_setting[name], base, settings))
                    rows.append(_carried(by_setting[name], base, settings))
            chain = (
                [base, *(by_setting[name] for name in names)]
                if base
                else [by_setting[n] for n in names]
            )
            rows += [_difference("scale", b, a, settings) for a, b in pairwise(chain)]
    return [row for row in rows if row is not None]


def _by_attacker(attacks: Sequence[AttackResult]) -> list[dict[str, AttackResult]]:
    """Attacks of one attacker, protocol and gallery by their anonymizer."""
    by_attacker: dict[tuple[str, str, str], dict[str, AttackResult]] = {}
    for attack in attacks:
        by_attacker.setdefault((attack.attacker, attack.protocol, attack.gallery), {})[
            attack.anonymizer
        ] = attack
    return list(by_attacker.values())


def _carried(
    attack: AttackResult, base: AttackResult, settings: EvaluationSettings
) -> AttributionRow | None:
    with_it, without, identities = paired(attack, base)
    if not len(with_it):
        return None
    more = {"compared_with": base.anonymizer, "n_probes": len(with_it)}
    if reason := _at_chance([attack], settings):
        return _row("ablation", attack, "carried_share", NULL, reason=reason, **more)
    left = ratio_interval(without, with_it, identities, **settings.bootstrap)
    interval = Interval(1 - left.value, 1 - left.high, 1 - left.low)
    return _row("ablation", attack, "carried_share", interval, **more)


def proxy_rows(
    attacks: Sequence[AttackResult], names: Sequence[str], settings: EvaluationSettings
) -> list[AttributionRow]:
    """``proxy_share``: what an attacker reaches who has the condition alone, as share of what one
    reaches who can query the anonymizer; may exceed 1. It is null where either of them is not
    significantly above chance.

    Args:
        names: settings to compare them on.
    """
    by_attack = {(a.anonymizer, a.attacker, a.protocol, a.gallery): a for a in attacks}
    rows = []
    for (name, attacker, *where), attack in by_attack.items():
        reference = dict(PROXIES).get(attacker, "")
        other = by_attack.get((name, reference, where[0], where[1]))
        if other is None or name not in names:
            continue
        a, b, identities = paired(attack, other)
        reason = _at_chance([attack, other], settings)
        interval = NULL if reason else ratio_interval(a, b, identities, **settings.bootstrap)
        more = {"compared_with": reference, "n_probes": len(a), "reason": reason or None}
        rows.append(_row("proxy", attack, "proxy_share", interval, **more))
    return rows


def region_rows(
    attacks: Sequence[AttackResult], settings: EvaluationSettings
) -> list[AttributionRow]:
    """Rank-1 rates on images of which one region is left, named in ``subset``.

    Args:
        attacks: attacks on views of :func:`cldmray.engine.map_stages.embed.region_view`.
    """
    rows = []
    for attack in attacks:
        name, _, subset = attack.anonymizer.partition(" ")
        rows.append(replace(rate_row("region", attack, settings), anonymizer=name, subset=subset))
    return rows


def swap_rows(swap: Swap, settings: EvaluationSettings) -> list[AttributionRow]:
    """Rates of identifying either person, ``rank_1_either``, and ``condition_share``.

    The share is that of the condition's person among the successes for either, those by chance
    taken off both. It is null where the two are not identified significantly more often than by
    chance.
    """
    chance_level = chance(1, swap.gallery_size)
    either = np.minimum(swap.condition + swap.start, 1.0)
    intervals = {
        name: (
            rate_interval(values, swap.pairs, confidence_level=settings.confidence_level),
            share,
        )
        for name, values, share in (
            ("rank_1_condition", swap.condition, chance_level),
            ("rank_1_start", swap.start, chance_level),
            ("rank_1_either", either, min(1.0, 2 * chance_level)),
        )
    }
    rows = [_swap_row(swap, name, interval, by) for name, (interval, by) in intervals.items()]
    either_row = rows[-1]
    if either_row.low > (either_row.chance or 0.0):
        share = share_interval(
            swap.condition, swap.start, swap.pairs, **settings.bootstrap, chance=chance_level
        )
        rows.append(_swap_row(swap, "condition_share", share, None))
    else:
        row = _swap_row(swap, "condition_share", NULL, None)
        reason = f"not significantly above chance: {swap.attacker} on {swap.anonymizer}"
        rows.append(replace(row, reason=reason))
    return rows


def _swap_row(
    swap: Swap, measure: str, interval: Interval, chance_rate: float | None
) -> AttributionRow:
    return AttributionRow(
        "swap",
        swap.anonymizer,
        swap.attacker,
        "full_ref",
        swap.gallery,
        measure,
        *interval,
        n_probes=len(swap.pairs),
        chance=chance_rate,
    )
