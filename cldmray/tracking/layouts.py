"""How a finished audit is laid out in MLflow: a parent run and one child for each attack.

How an attribution is laid out in MLflow: one run with a metric for every number.

How an inversion is laid out in MLflow: a parent run, and a child for each trial of a search.

How a finished training is laid out in MLflow: learning curves, sample images, its card.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.tracking.run import Run
from cldmray.tracking.runs import Tracker

AttackResult = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""


def record(
    tracker: Tracker,
    run: Run,
    results: pa.Table,
    metrics: Mapping[str, float],
    curves: Mapping[AttackResult, Sequence[Sequence[Mapping[str, float]]]],
    clean: Mapping[AttackResult, float],
    weights: Mapping[AttackResult, Mapping[str, float]],
    tags: Mapping[str, object],
    files: Mapping[str, bytes],
    queries: Mapping[AttackResult, int] | None = None,
) -> None:
    """Write an audit's findings below its open parent run.

    Args:
        run: the parent run.
        results: all rows, schema ``records.RESULTS``; each child gets those of its attack.
        metrics: of the parent, such as ``risk/blur`` and ``utility/blur/ssim``.
        curves: learning curves of each attack, one a training, none for those that learn nothing:
            points with ``step`` and further numbers.
        clear: rank-1 rate on clean images of each attack that has one.
        weights: of the parts of each attack that is a fusion.
        tags: words about the audit: verdict, data fingerprint.
        files: artifacts of the parent by name. Images of people do not belong there.
        queries: how often each attack that says so has asked the anonymizer.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(metrics)
    run.log_files(files)
    for key, trainings in curves.items():
        anonymizer, attacker = key
        chosen = pc.and_(
            pc.equal(results["anonymizer"], anonymizer), pc.equal(results["attacker"], attacker)
        )
        with tracker.child_run(run, anonymizer, attacker) as child:
            child.log_results(results.filter(chosen))
            if (rate := clean.get((anonymizer, attacker))) is not None:
                child.log_metrics({"clean_rank_1": rate})
            if queries and key in queries:
                child.log_metrics({"queries": queries[key]})
            child.log_metrics({f"weight/{k}": v for k, v in weights.get(key, {}).items()})
            for training, curve in enumerate(trainings):
                child.log_curve(f"training_{training}" if training else "training", curve)


def attribution_metrics(rows: pa.Table) -> dict[str, float]:
    """Metrics of rows of ``report.attribution.ATTRIBUTION``; what is not finite is left out.

    Returns:
        ``<question>/<anonymizer>/<attacker>/<gallery>/<measure>``, without what is empty and with
        a subset behind the measure, and the same with ``_ci_low`` and ``_ci_high``.
    """
    metrics = {}
    for row in rows.to_pylist():
        measure = row["measure"] if row["subset"] == "all" else f"{row['measure']} {row['subset']}"
        parts = [row[name] for name in ("question", "anonymizer", "attacker", "gallery")]
        name = "/".join(part for part in [*parts, measure] if part)
        for ending, column in (("", "value"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high")):
            if math.isfinite(row[column]):
                metrics[name + ending] = row[column]
    return metrics


def record_attribution(
    run: Run, rows: pa.Table, tags: Mapping[str, object], files: Mapping[str, bytes]
) -> None:
    """Write an attribution into its open run.

    Args:
        rows: schema ``report.attribution.ATTRIBUTION``.
        tags: headline, data fingerprint.
        files: artifacts by name.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(attribution_metrics(rows))
    run.log_files(files)


def reconstruction_metrics(rows: pa.Table) -> dict[str, float]:
    """Metrics of rows with the columns of ``report.inversion_files.RECONSTRUCTION``.

    Returns:
        ``<anonymizer>/<reconstruction model>/<gallery>/<measure>``, without what is empty, a gain with
        ``_over_<reconstruction model>`` behind it, and the same with ``_ci_low`` and ``_ci_high``; and
        ``<anonymizer>/<reconstruction model>/queries``. What is not finite is left out.
    """
    metrics: dict[str, float] = {}
    for row in rows.to_pylist():
        other = row["compared_with"]
        measure = f"{row['measure']}_over_{other}" if other else row["measure"]
        who = [row["anonymizer"], row["reconstructor"]]
        name = "/".join(part for part in [*who, row["gallery"], measure] if part)
        for ending, column in (("", "value"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high")):
            if math.isfinite(row[column]):
                metrics[name + ending] = row[column]
        if row["queries"]:
            metrics["/".join([*who, "queries"])] = row["queries"]
    return metrics


def record_reconstruction(
    tracker: Tracker,
    run: Run,
    rows: pa.Table,
    learning: list[dict[str, Any]],
    trials: list[dict[str, Any]],
    tags: Mapping[str, object],
    files: Mapping[str, bytes],
) -> None:
    """Write an inversion into its open run.

    Args:
        rows: columns of ``report.inversion_files.RECONSTRUCTION``.
        learning: curves, with ``anonymizer``, ``reconstruction model`` and ``points`` (``step`` and further
            numbers); they become metrics ``<anonymizer>/<reconstruction model>/training/<number>``.
        trials: of all searches, with ``anonymizer``, ``trial``, ``status``, ``settings`` (nested),
            ``curve`` (points with ``step`` and further numbers), ``best``, and further numbers.
        tags: headline, data fingerprint.
        files: artifacts by name. Images of people do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(reconstruction_metrics(rows))
    for one in learning:
        run.log_curve(f"{one['anonymizer']}/{one['reconstructor']}/training", one["points"])
    run.log_files(files)
    for trial in trials:
        with tracker.trial_run(run, trial["anonymizer"], trial["trial"]) as child:
            child.log_params(trial["settings"])
            child.set_tags({"status": trial["status"], "best": trial["best"]})
            child.log_curve("training", trial["curve"])
            numbers = ("queries", "steps", "objective", "seconds")
            rates = ("validation_rank_1", "validation_cosine")
            child.log_metrics({name: float(trial[name]) for name in (*numbers, *rates)})


def record_training(
    run: Run,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    files: Mapping[str, bytes],
) -> None:
    """Write what a training learnt to its open run.

    Args:
        run: the training's run.
        curves: by phase, points with ``step`` and further numbers; metrics ``<phase>/<number>``.
        files: artifacts by name. Grids of people who must not be shown do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    for phase, curve in curves.items():
        run.log_curve(phase, curve)
    run.log_files(files)
