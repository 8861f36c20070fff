"""From attacks to rows of results, of all identities and of groups of them."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import Measured, measure, rank_1_by_subset
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import Strings
from cldmray.metrics.identification import chance
from cldmray.results.table import ALL, IMAGE_LEVEL, RESULTS, Level

SMALLEST_GROUP = 5
"""Evaluated identities that a group needs to have rows of its own."""


def result_rows(
    attack: AttackResult, settings: EvaluationSettings, subsets: Mapping[str, Strings] | None = None
) -> list[dict[str, Any]]:
    """Rows of one attack, schema :data:`cldmray.results.table.RESULTS`.

    Args:
        subsets: identities of each group, see :func:`group_members`.

    Returns:
        All measures of :func:`cldmray.evaluation.measures.measure` for all identities, then
        ``rank_1`` for each group that has probes.
    """
    ranks = attack.ranks
    whole = probe_counts(ranks.sample_ids, ranks.identities)
    rows = [
        measured_row(attack, measured, whole)
        for measured in measure(ranks, attack.scores, settings)
    ]
    chance_value = chance(1, ranks.gallery_size)
    for subset, interval, in_subset in rank_1_by_subset(ranks, subsets or {}, settings):
        counts = probe_counts(ranks.sample_ids[in_subset], ranks.identities[in_subset])
        rate = Measured("rank_1", interval, chance_value)
        rows.append(measured_row(attack, rate, counts, subset=subset))
    return rows


class ProbeCounts(NamedTuple):
    """Different images and identities behind a row of results."""

    n_probes: int
    n_identities: int


def probe_counts(sample_ids: Strings, identities: Strings) -> ProbeCounts:
    """The counts of some probes; those of several trainings are the same images."""
    return ProbeCounts(len(np.unique(sample_ids)), len(np.unique(identities)))


def measured_row(
    attack: AttackResult,
    measured: Measured,
    counts: ProbeCounts,
    *,
    level: Level = IMAGE_LEVEL,
    subset: str = ALL,
) -> dict[str, Any]:
    """One measure of one attack as a row of :data:`cldmray.results.table.RESULTS`."""
    value, low, high = measured.interval or (None, None, None)
    return {
        "anonymizer": attack.anonymizer,
        "attacker": attack.attacker,
        "protocol": attack.protocol,
        "gallery": attack.gallery,
        "level": level,
        "subset": subset,
        "measure": measured.name,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "chance": measured.chance,
        "n_probes": counts.n_probes,
        "n_identities": counts.n_identities,
        "gallery_size": attack.ranks.gallery_size,
        "n_non_mated": measured.n_non_mated,
        "reason": measured.reason,
    }


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


def results_table(
    attacks: Iterable[AttackResult], settings: EvaluationSettings, groups: pa.Table | None = None
) -> pa.Table:
    """All rows of all attacks, schema :data:`cldmray.results.table.RESULTS`.

    Args:
        groups: of the audited people, see :meth:`cldmray.faces.base.FaceSource.groups`.
    """
    rows = []
    for attack in attacks:
        subsets = group_members(groups, np.unique(attack.ranks.identities))
        rows.extend(result_rows(attack, settings, subsets))
    return pa.Table.from_pylist(rows, RESULTS)
