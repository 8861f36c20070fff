"""From attacks to rows of results, of all identities and of groups of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Interval
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import measure, rank_1_by_subset
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import Strings
from cldmray.metrics.identification import chance
from cldmray.results.table import ALL, RESULTS

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
    rows = [
        _row(attack, ALL, name, interval, chance_value, ranks.sample_ids, ranks.identities)
        for name, interval, chance_value in measure(ranks, attack.scores, settings)
    ]
    chance_value = chance(1, ranks.gallery_size)
    for subset, interval, in_subset in rank_1_by_subset(ranks, subsets or {}, settings):
        samples, identities = ranks.sample_ids[in_subset], ranks.identities[in_subset]
        rows.append(_row(attack, subset, "rank_1", interval, chance_value, samples, identities))
    return rows


def _row(
    attack: AttackResult,
    subset: str,
    measure: str,
    interval: Interval,
    chance_value: float,
    samples: Strings,
    identities: Strings,
) -> dict[str, Any]:
    return {
        "anonymizer": attack.anonymizer,
        "attacker": attack.attacker,
        "protocol": attack.protocol,
        "gallery": attack.gallery,
        "subset": subset,
        "measure": measure,
        "value": interval.value,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n_probes": len(np.unique(samples)),
        "n_identities": len(np.unique(identities)),
        "gallery_size": attack.ranks.gallery_size,
        "chance": chance_value,
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
