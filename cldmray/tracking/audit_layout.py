"""An audit in MLflow: a parent run that tells the whole, and a child run for each attack.

The names of metrics do not depend on what was audited, so that MLflow's compare page lays children
of one audit, or parents of several, side by side. What is more than a page can compare is a table.
Nothing that shows or names a person belongs there: of an audit's files only ``PUBLIC_FILES`` are
uploaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.results.audit import AnonymizerRisk, AttackRate, AuditReport
from cldmray.results.table import ALL, IDENTITY_LEVEL, IMAGE_LEVEL, utility_table
from cldmray.tracking.descriptions import describe_attack, describe_audit
from cldmray.tracking.run import Run
from cldmray.tracking.runs import Tracker

AttackKey = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""
Row = Mapping[str, Any]
"""A row of ``results.table.RESULTS``."""
Curve = Sequence[Mapping[str, float]]
"""Points of a training with ``step`` and further numbers."""
MOST_METRICS = 40
"""Metrics of a child run, learning curves included."""
MOST_CURVES = 4
FIRST_CURVES = ("validation_rank_1", "loss")
"""Numbers of a learning curve that come first where there are more than ``MOST_CURVES``."""
RATES = {
    "rank_1_cross_image": ("source_excluded", IMAGE_LEVEL),
    "rank_1_same_image": ("source_included", IMAGE_LEVEL),
    "rank_1_person_level": ("source_excluded", IDENTITY_LEVEL),
    "rank_1_linkage": ("anonymized_only", IMAGE_LEVEL),
}
"""Gallery and level of each rank-1 rate, by the name of its metric."""
FIELDS = {
    "rank_1_cross_image": "cross_image",
    "rank_1_same_image": "same_image",
    "rank_1_person_level": "person_level",
    "rank_1_linkage": "linkage",
}
"""The same rates in an :class:`~cldmray.results.audit.AnonymizerRisk`."""
SCORES = {
    "eer_cross_image": ("rank_1_cross_image", "eer"),
    "d_sys_cross_image": ("rank_1_cross_image", "d_sys"),
    "d_sys_linkage": ("rank_1_linkage", "d_sys"),
}
"""Measures of scores: the rate whose protocol, gallery and level they share, and the measure."""
CLAIMS = ("k_supported", "k_not_rejected")
PUBLIC_FIGURES = ("frontier", "learning", "det", "growth", "cmc")
"""Figures of the report in which nobody is seen."""
PUBLIC_FILES = frozenset(
    [
        *(f"{name}.parquet" for name in ("results", "utility", "attribution")),
        "verdict.json",
        *(f"figures/{name}.svg" for name in PUBLIC_FIGURES),
    ]
)
"""Files of an audit that hold rates only: no face, no name of a person or of a file."""


@dataclass(frozen=True)
class AuditedData:
    """The images of an audit, as MLflow names a data set.

    Attributes:
        name: of the source.
        source: where the images are; secrets are masked.
        fingerprint: hash of the content.
        settings: of the source, nested.
    """

    name: str
    source: str
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackLog:
    """What is logged of one attack beside its results.

    Attributes:
        anonymizer, attacker: by their names in tables.
        anonymizer_settings, attacker_settings: nested.
        curves: learning curve of each training; none for attackers that learn nothing.
        weights: of the parts of an attack that fuses scores, by
            ``<protocol>/<gallery>/<attacker>``.
        queries: anonymized images that one training has learnt from; None: it counts none.
    """

    anonymizer: str
    attacker: str
    anonymizer_settings: Mapping[str, Any] = field(default_factory=dict)
    attacker_settings: Mapping[str, Any] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    queries: int | None = None


def record_audit(
    tracker: Tracker,
    run: Run,
    *,
    report: AuditReport,
    attacks: Sequence[AttackLog],
    data: AuditedData,
    tags: Mapping[str, object],
    files: Mapping[str, bytes],
    page: str,
) -> None:
    """Write an audit to its open parent run, and a child for each attack.

    Args:
        run: the parent run.
        report: the finished audit.
        attacks: every attack; one without results, which could not be run, has no child.
        data: what was audited.
        tags: of the parent, such as the verdict.
        files: artifacts of the parent by name; those outside ``PUBLIC_FILES`` stay away.
        page: the report as HTML, in which nobody is seen.

    Raises:
        TrackingError: MLflow failed.
    """
    rows: dict[AttackKey, list[Row]] = {}
    for row in report.results.to_pylist():
        rows.setdefault((row["anonymizer"], row["attacker"]), []).append(row)
    facts = {"data": data.name, "data.fingerprint": data.fingerprint, **_counts(report.results)}
    children = [
        _record_attack(tracker, run, attack, rows[key], report, data, facts)
        for attack in attacks
        if (key := (attack.anonymizer, attack.attacker)) in rows
    ]
    releases = {f"release.{r.anonymizer}": r.release for r in report.risks if r.release}
    run.log(
        metrics=audit_metrics(report.risks),
        params=facts,
        tags={**tags, **releases, "data_fingerprint": data.fingerprint},
        description=describe_audit(report, data.name),
    )
    run.log_dataset(data.name, data.fingerprint, data.source, _counts(report.results))
    tables = {
        "tables/anonymizers.json": _risk_table(report.risks),
        "tables/attacks.json": pa.Table.from_pylist(children),
    }
    if report.utility:
        tables["tables/utility.json"] = utility_table(report.utility)
    run.log_tables(tables)
    kept = {name: content for name, content in files.items() if name in PUBLIC_FILES}
    run.log_files(kept | {"report.html": page.encode()})


def _record_attack(
    tracker: Tracker,
    run: Run,
    attack: AttackLog,
    rows: Sequence[Row],
    report: AuditReport,
    data: AuditedData,
    facts: Mapping[str, object],
) -> dict[str, Any]:
    """Write a child run; its row in the parent's table of attacks is returned."""
    key = attack.anonymizer, attack.attacker
    diagnostics = {(d.anonymizer, d.attacker): d for d in report.diagnostics}.get(key)
    risk = {r.anonymizer: r for r in report.risks}.get(attack.anonymizer)
    rates = attack_rates(rows)
    metrics = attack_metrics(rows)
    if diagnostics is not None and diagnostics.clean_rank_1 is not None:
        metrics["clean_rank_1"] = diagnostics.clean_rank_1
    if attack.queries is not None:
        metrics["queries"] = attack.queries
    if risk is not None and risk.utility_kept is not None:
        metrics |= _bounded("utility_kept", risk.utility_kept)
    curve = shown_curve(attack.curves)
    n_curves = len({name for point in curve for name in point} - {"step"})
    utility = [row for row in report.utility if row.anonymizer == attack.anonymizer]
    room = MOST_METRICS - len(metrics) - n_curves
    metrics |= {f"utility/{row.measure}": row.value for row in utility[:room]}
    with tracker.child_run(run, *key) as child:
        child.log(
            params={
                "anonymizer": attack.anonymizer,
                "attacker": attack.attacker,
                **{f"anonymizer.{name}": v for name, v in attack.anonymizer_settings.items()},
                **{f"attacker.{name}": v for name, v in attack.attacker_settings.items()},
                **{f"faces.{name}": v for name, v in data.settings.items()},
                **facts,
            },
            metrics=metrics,
            tags={f"{name}_protocol": rate.protocol for name, rate in rates.items()}
            | ({"release": risk.release} if risk is not None and risk.release else {}),
            curves={"training": curve},
            description=describe_attack(*key, rates, risk),
        )
        child.log_dataset(data.name, data.fingerprint, data.source, _counts(report.results))
        tables = {"tables/results.json": pa.Table.from_pylist(list(rows))}
        if attack.curves:
            tables["tables/learning_curves.json"] = _curve_table(attack.curves)
        if attack.weights:
            tables["tables/weights.json"] = _weight_table(attack.weights)
        child.log_tables(tables)
    return {"anonymizer": attack.anonymizer, "attacker": attack.attacker, "run": child.run_id} | {
        name: metrics.get(name) for name in (*_endings(RATES), *SCORES, *CLAIMS, "clean_rank_1")
    }


def attack_rates(rows: Sequence[Row]) -> dict[str, AttackRate]:
    """The highest rank-1 rate over protocols of one attack, by the name of its metric.

    A rate that was not measured is left out.

    Args:
        rows: of the attack.
    """
    rates = {}
    for name, (gallery, level) in RATES.items():
        measured = list(_measured(rows, "rank_1", gallery, level))
        if measured:
            best = max(measured, key=lambda row: row["value"])
            rates[name] = AttackRate(
                best["attacker"],
                best["protocol"],
                gallery,
                best["value"],
                best["ci_low"],
                best["ci_high"],
                best["chance"],
            )
    return rates


def attack_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """The metrics of one attack that its rows of results give, at most 24.

    Args:
        rows: of the attack; values that could not be measured are left out.

    Returns:
        Each rate of ``RATES`` with ``_low`` and ``_high``, its confidence bounds, and ``_chance``;
        the ``SCORES`` in the same protocol; and the ``CLAIMS``, which hold in every gallery of
        originals.
    """
    metrics: dict[str, float] = {}
    rates = attack_rates(rows)
    for name, rate in rates.items():
        metrics |= _bounded(name, rate) | {f"{name}_chance": rate.chance}
    for name, (of, measure) in SCORES.items():
        gallery, level = RATES[of]
        for row in _measured(rows, measure, gallery, level):
            if of in rates and row["protocol"] == rates[of].protocol:
                metrics[name] = row["value"]
    claims = [
        row
        for gallery in ("source_excluded", "source_included")
        for row in _measured(rows, "k_not_rejected", gallery, IMAGE_LEVEL)
    ]
    if claims:
        metrics["k_supported"] = min(row["ci_low"] for row in claims)
        metrics["k_not_rejected"] = min(row["value"] for row in claims)
    return metrics


def audit_metrics(risks: Sequence[AnonymizerRisk]) -> dict[str, float]:
    """The metrics of a whole audit.

    Returns:
        ``n_anonymizers``, ``n_leaking`` and ``n_releasable`` of the candidates for release; under
        the names of ``RATES`` and as ``k_supported`` those of the worst candidate; and the same of
        each anonymizer with its name behind them, with ``utility_kept``.
    """
    candidates = [risk for risk in risks if risk.candidate]
    metrics: dict[str, float] = {
        "n_anonymizers": len(candidates),
        "n_leaking": sum(risk.leaks for risk in candidates),
        "n_releasable": sum(risk.release == "yes" for risk in candidates),
    }
    if candidates:
        metrics["k_supported"] = min(risk.k_supported for risk in candidates)
    for name, attribute in FIELDS.items():
        rates = {risk.anonymizer: getattr(risk, attribute) for risk in risks}
        worst = [rate for risk in candidates if (rate := rates[risk.anonymizer]) is not None]
        if worst:
            metrics |= _bounded(name, max(worst, key=lambda rate: float(rate.value)))
        metrics |= {f"{name}/{a}": rate.value for a, rate in rates.items() if rate is not None}
    for risk in risks:
        metrics[f"k_supported/{risk.anonymizer}"] = risk.k_supported
        if risk.utility_kept is not None:
            metrics[f"utility_kept/{risk.anonymizer}"] = risk.utility_kept.value
    return metrics


def _measured(rows: Sequence[Row], measure: str, gallery: str, level: str) -> Iterator[Row]:
    """Rows of all probes with a value; one that is null has a reason."""
    for row in rows:
        where = row["subset"], row["measure"], row["gallery"], row["level"]
        if where == (ALL, measure, gallery, level) and row["reason"] is None:
            yield row


def _bounded(name: str, rate: Any) -> dict[str, float]:
    """A value and its bounds."""
    return {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}


def _endings(names: Mapping[str, object]) -> Iterator[str]:
    for name in names:
        yield from (name, f"{name}_low", f"{name}_high")


def _counts(results: pa.Table) -> dict[str, int]:
    """How much was probed: the most of any attack, since not every attack has every image."""
    whole = pc.and_(
        pc.and_(pc.equal(results["subset"], ALL), pc.equal(results["level"], IMAGE_LEVEL)),
        pc.equal(results["measure"], "rank_1"),
    )
    rates = results.filter(whole)
    return {
        f"data.{name}": max(rates[name].to_pylist(), default=0)
        for name in ("n_probes", "n_identities", "gallery_size")
    }


def shown_curve(curves: Sequence[Curve]) -> list[dict[str, float]]:
    """The first training's curve, with at most ``MOST_CURVES`` numbers."""
    if not curves:
        return []
    names = dict.fromkeys(name for point in curves[0] for name in point if name != "step")
    first = [name for name in FIRST_CURVES if name in names]
    kept = {"step", *[*first, *(name for name in names if name not in first)][:MOST_CURVES]}
    return [{name: v for name, v in point.items() if name in kept} for point in curves[0]]


def _risk_table(risks: Sequence[AnonymizerRisk]) -> pa.Table:
    """A row for each anonymizer: may it be released, how much is identified, what is kept."""
    rows: list[dict[str, Any]] = []
    for risk in risks:
        row: dict[str, Any] = {
            "anonymizer": risk.anonymizer,
            "release": "control" if risk.is_mere_control else risk.release,
            "reason": risk.release_reason,
            "k_supported": risk.k_supported,
            "k_not_rejected": risk.k_not_rejected,
        }
        for name, attribute in FIELDS.items():
            rate = getattr(risk, attribute)
            row[f"{name}_attacker"] = rate and rate.attacker
            row |= _bounded(name, rate) if rate else dict.fromkeys(_endings({name: 0}))
        kept = risk.utility_kept
        row |= (
            _bounded("utility_kept", kept) if kept else dict.fromkeys(_endings({"utility_kept": 0}))
        )
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _curve_table(curves: Sequence[Curve]) -> pa.Table:
    points = [{"training": i, **point} for i, curve in enumerate(curves) for point in curve]
    names = list(dict.fromkeys(name for point in points for name in point))
    return pa.Table.from_pylist([{name: point.get(name) for name in names} for point in points])


def _weight_table(weights: Mapping[str, float]) -> pa.Table:
    """A row for each part of a fusion in each protocol and gallery."""
    names = ("protocol", "gallery", "attacker")
    return pa.Table.from_pylist(
        [
            dict(zip(names, key.split("/", 2), strict=True)) | {"weight": weight}
            for key, weight in weights.items()
        ]
    )
