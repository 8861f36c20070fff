"""From attacks to rows of results, of all identities and of groups of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cldmray.evaluation.by_identity.albums import album_measures
from cldmray.evaluation.by_identity.claims import collect_claims, precision_measures
from cldmray.evaluation.by_identity.gallery_curve import gallery_curve
from cldmray.evaluation.by_identity.groups import (
    GroupMeasure,
    group_members,
    group_rates,
    rate_differences,
    within_rates,
)
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import Measured, ProbeCounts, measure, probe_counts
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.chance import Apply
from cldmray.gallery.protocols import Strings
from cldmray.results.audit import AnonymizerRisk
from cldmray.results.table import ALL, IDENTITY_LEVEL, IMAGE_LEVEL, RESULTS, Level


def result_rows(
    attack: AttackResult, settings: EvaluationSettings, groups: Mapping[str, Strings] | None = None
) -> list[dict[str, Any]]:
    """Rows of one attack, schema :data:`cldmray.results.table.RESULTS`.

    Args:
        groups: identities of each group, see
            :func:`cldmray.evaluation.by_identity.groups.group_members`.

    Returns:
        All measures of :func:`cldmray.evaluation.measures.measure` for all identities, the
        precision of the most confident claims, the measures of albums at level ``person``, and
        ``rank_1`` for each group that has probes.
    """
    ranks = attack.ranks
    whole = probe_counts(ranks.sample_ids, ranks.identities)
    measures = measure(ranks, attack.scores, settings)
    if attack.scores:
        measures += precision_measures([collect_claims(each) for each in attack.scores], settings)
    rows = [measured_row(attack, measured, whole) for measured in measures]
    if (albums := attack.albums) is not None:
        rows += [
            measured_row(attack, measured, whole, level=IDENTITY_LEVEL)
            for measured in album_measures(albums, settings)
        ]
    rates = group_rates(attack, groups or {}, settings)
    return rows + [_group_row(attack, rate) for rate in rates]


def detail_rows(
    attack: AttackResult, settings: EvaluationSettings, groups: Mapping[str, Strings] | None = None
) -> list[dict[str, Any]]:
    """Further rows of an attack that is shown, or is the strongest of its anonymizer and gallery.

    Returns:
        Rates over the size of the gallery; rates of each group among candidates of the same group;
        and differences between groups.
    """
    ranks, groups = attack.ranks, groups or {}
    whole = probe_counts(ranks.sample_ids, ranks.identities)
    rows = [
        measured_row(attack, sized.measured, whole) | {"gallery_size": sized.gallery_size}
        for sized in gallery_curve(attack, settings)
    ]
    of_groups = within_rates(attack, groups, settings)
    of_groups += rate_differences(group_rates(attack, groups, settings))
    return rows + [_group_row(attack, each) for each in of_groups]


def _group_row(attack: AttackResult, rate: GroupMeasure) -> dict[str, Any]:
    ranks, own = attack.ranks, rate.in_subset
    counts = probe_counts(ranks.sample_ids[own], ranks.identities[own])
    row = measured_row(attack, rate.measured, counts, subset=rate.subset)
    return row | {"gallery_size": rate.gallery_size}


def measured_row(
    attack: AttackResult,
    measured: Measured,
    counts: ProbeCounts,
    *,
    level: Level = IMAGE_LEVEL,
    subset: str = ALL,
) -> dict[str, Any]:
    """One measure of one attack as a row of :data:`cldmray.results.table.RESULTS`."""
    if measured.n_claims is not None:
        counts = measured.n_claims
    value, low, high = measured.interval or (measured.estimate, None, None)
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


def results_table(
    attacks: Sequence[AttackResult],
    risks: Sequence[AnonymizerRisk],
    settings: EvaluationSettings,
    groups: pa.Table | None = None,
    apply: Apply = map,
) -> pa.Table:
    """All rows of all attacks, schema :data:`cldmray.results.table.RESULTS`.

    Args:
        risks: of the anonymizers; the attacks that they name have :func:`detail_rows`.
        groups: of the audited people, see :meth:`cldmray.faces.base.FaceSource.groups`.
        apply: calls a function for each of many values, here or in other processes.
    """
    named = {(risk.anonymizer, *rate[:3]) for risk in risks for rate in risk.attacks_by_gallery}
    detailed = [a for a in attacks if (a.anonymizer, a.attacker, a.protocol, a.gallery) in named]
    members: dict[bytes, dict[str, Strings]] = {}
    calls: list[Callable[[], list[dict[str, Any]]]] = []
    for rows_of, ranked in ((result_rows, attacks), (detail_rows, detailed)):
        for attack in ranked:
            identities = np.unique(attack.ranks.identities)
            key = identities.tobytes()
            if key not in members:
                members[key] = group_members(groups, identities)
            calls.append(partial(rows_of, attack, settings, members[key]))
    rows = [row for rows in apply(_called, calls) for row in rows]
    return pa.Table.from_pylist(rows, RESULTS)


def _called(call: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return call()
