"""Groups of people: rates of each, impostors of the same group, and differences between groups.

Sources: P. Grother, M. Ngan, K. Hanaoka, "Face Recognition Vendor Test (FRVT) Part 3: Demographic
Effects", NISTIR 8280, 2019 (impostors within a group); R. G. Newcombe, "Interval estimation for the
difference between independent proportions", Statistics in Medicine 17, 1998 (method 10); G. Y. Zou
and A. Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27,
2008 (the same from any two intervals).
"""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Interval
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import Measured, rank_1_by_subset
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.chance import FirstPlaces, probe_shares
from cldmray.gallery.protocols import Strings
from cldmray.gallery.scores import SAME_SCORE, Scores, tie_resolved_blocks
from cldmray.metrics.identification import success_at_rank
from cldmray.metrics.rates import rate_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SMALLEST_GROUP = 5
"""Evaluated identities that a group needs to have rows of its own."""
WITHIN = "|within"
"""End of the subset of a row whose gallery holds candidates of the same group only."""


class GroupMeasure(NamedTuple):
    """One measure of a group.

    Attributes:
        subset: ``sex=female``, ``sex=female|within`` or ``sex=female-male``.
        measured: the measure.
        in_subset: which probes it is of, shape (P,).
        gallery_size: candidates.
    """

    subset: str
    measured: Measured
    in_subset: Bools
    gallery_size: int


def group_members(groups: pa.Table | None, identities: Strings) -> dict[str, Strings]:
    """The groups with at least ``SMALLEST_GROUP`` of some identities.

    Args:
        groups: see :meth:`cldmray.faces.base.FaceSource.groups`.
        identities: of whom the groups are formed.

    Returns:
        Identities of each group, sorted, under a name such as ``sex=female``.
    """
    if groups is None:
        return {}
    grouped = groups.filter(
        pc.is_in(groups["identity"], pa.array(identities.tolist(), pa.string()))
    )
    names = np.asarray(grouped["identity"].to_pylist(), np.str_)
    groups_by_name: dict[str, Strings] = {}
    for attribute in grouped.column_names:
        if attribute == "identity":
            continue
        values = np.array(grouped[attribute].to_pylist(), object)
        for value in sorted({value for value in values if value is not None}):
            members = np.unique(names[values == value])
            if len(members) >= SMALLEST_GROUP:
                groups_by_name[f"{attribute}={value}"] = members
    return groups_by_name


def group_rates(
    attack: AttackResult, groups: Mapping[str, Strings], settings: EvaluationSettings
) -> list[GroupMeasure]:
    """``rank_1`` of the probes of each group in the whole gallery."""
    size, permuted = attack.ranks.gallery_size, attack.measured_chance.permuted
    return [
        GroupMeasure(name, Measured("rank_1", interval, float(permuted[own].mean())), own, size)
        for name, interval, own in rank_1_by_subset(attack.ranks, groups, settings)
    ]


def within_rates(
    attack: AttackResult, groups: Mapping[str, Strings], settings: EvaluationSettings
) -> list[GroupMeasure]:
    """``rank_1`` of each group in a gallery of the same group: impostors share the attribute.

    An attacker who knows the sex of a person need not look at others. Chance is measured likewise:
    the identities of the group's probes are permuted. Attacks of which only the ranks are known
    have no such rates.

    Args:
        groups: evaluated identities of each group. Other candidates belong to no group.
    """
    if not attack.scores or not groups:
        return []
    identities = attack.ranks.identities
    trainings = [_success_within(scores, groups) for scores in attack.scores]
    success, permuted = map(np.concatenate, zip(*trainings, strict=True))
    rates = []
    for place, (name, members) in enumerate(groups.items()):
        own = np.isin(identities, members)
        if not own.any():
            continue
        rate = rate_interval(
            success[own, place],
            identities[own],
            samples=attack.ranks.sample_ids[own],
            confidence_level=settings.confidence_level,
        )
        measured = Measured("rank_1", rate, float(permuted[own, place].mean()))
        rates.append(GroupMeasure(name + WITHIN, measured, own, len(members)))
    return rates


class _WithinGroups(NamedTuple):
    """Rank-1 success of P probes among the candidates of each of G groups.

    Attributes:
        success: shape (P, G).
        permuted: with the identity of another probe of the group, shape (P, G); 0 for probes of
            others.
    """

    success: Floats
    permuted: Floats


def _success_within(scores: Scores, groups: Mapping[str, Strings]) -> _WithinGroups:
    members = np.stack([np.isin(scores.gallery_identities, names) for names in groups.values()], 1)
    # (N, G): of all probes of a group, the share that belong to each candidate.
    shares = probe_shares(scores)[:, None] * members
    shares /= np.maximum(shares.sum(0), np.finfo(np.float64).tiny)
    success, permuted = np.zeros((2, len(scores.mated_columns), len(groups)))
    for rows, block in tie_resolved_blocks(scores):
        columns = scores.mated_columns[rows]
        # (b, N) differences to the mated score, counted over the (N, G) members of each group.
        gap = block - block[np.arange(len(rows)), columns, None]
        n_higher = (gap > SAME_SCORE).astype(np.float64) @ members
        n_tied = (np.abs(gap) <= SAME_SCORE).astype(np.float64) @ members
        n_tied -= members[columns]
        for group in range(len(groups)):
            success[rows, group] = success_at_rank(
                n_higher[:, group].astype(np.int64),
                np.maximum(n_tied[:, group], 0).astype(np.int64),
                1,
            )
            own, candidates = members[columns, group], members[:, group]
            if own.any():
                first = FirstPlaces.of(block[np.ix_(own, candidates)])
                permuted[rows[own], group] = first.permuted(shares[candidates, group])
    return _WithinGroups(success, permuted)


def rate_differences(rates: list[GroupMeasure]) -> Iterator[GroupMeasure]:
    """``rank_1_difference`` between any two groups of one attribute, as ``sex=female-male``.

    Args:
        rates: see :func:`group_rates`.
    """
    for first, second in combinations(rates, 2):
        attribute, _, value = first.subset.partition("=")
        other_attribute, _, other = second.subset.partition("=")
        a, b = first.measured.interval, second.measured.interval
        if attribute != other_attribute or a is None or b is None:
            continue
        yield GroupMeasure(
            f"{attribute}={value}-{other}",
            Measured("rank_1_difference", difference_interval(a, b), 0.0),
            first.in_subset | second.in_subset,
            first.gallery_size,
        )


def difference_interval(first: Interval, second: Interval) -> Interval:
    """Difference of two rates of different identities, from the interval of each.

    Newcombe's method 10 takes Wilson's intervals; Zou and Donner show that it holds for any.

    >>> difference_interval(Interval(0.5, 0.4, 0.6), Interval(0.2, 0.2, 0.2))
    Interval(value=0.3, low=0.2, high=0.4)
    """
    value = first.value - second.value
    low = math.hypot(first.value - first.low, second.high - second.value)
    high = math.hypot(first.high - first.value, second.value - second.low)
    return Interval(*(round(bound, 12) for bound in (value, value - low, value + high)))
