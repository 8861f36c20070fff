"""What is written to MLflow of each kind of job, and under which names.

========================  =========================================================================
audit                     a parent run with risks and utility; a child for each anonymizer and
                          attacker with its rates, learning curves, weights and queries
attribution               one run with a metric for every number
reconstruction            a parent run with a metric for every number; a child for each trial of a
                          search
training                  one run with learning curves by phase, sample images and the model's card
========================  =========================================================================

Nothing that shows or names a person belongs there: of an audit's files only ``PUBLIC_FILES`` are
uploaded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.tracking.run import Run
from cldmray.tracking.runs import Tracker

AttackKey = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""
Curve = Sequence[Mapping[str, float]]
"""Points of a training with ``step`` and further numbers."""
PUBLIC_FILES = frozenset(
    f"{name}.{ending}"
    for name in ("results", "utility", "attribution", "verdict")
    for ending in ("parquet", "json")
)
"""Files of an audit that hold rates only: no face, no name of a person or of a file."""
TRIAL_NUMBERS = (
    "queries",
    "steps",
    "objective",
    "seconds",
    "validation_rank_1",
    "validation_cosine",
)
"""Metrics of a trial of a search."""


def record_audit(
    tracker: Tracker,
    run: Run,
    *,
    results: pa.Table,
    metrics: Mapping[str, float],
    curves: Mapping[AttackKey, Sequence[Curve]],
    clean: Mapping[AttackKey, float],
    weights: Mapping[AttackKey, Mapping[str, float]],
    queries: Mapping[AttackKey, int],
    tags: Mapping[str, object],
    files: Mapping[str, bytes],
) -> None:
    """Write an audit's results to its open parent run, and a child for each attack.

    Args:
        run: the parent run.
        results: all rows, schema ``results.table.RESULTS``; each child gets those of its attack.
        metrics: of the parent, such as ``risk/blur`` and ``utility/blur/ssim``.
        curves: learning curves of each attack, one a training, none for those that learn nothing.
        clean: rank-1 rate on clean images of each attack that has one.
        weights: of the parts of each attack that fuses scores.
        queries: how often each attack that counts them has asked the anonymizer.
        tags: of the parent: verdict, data fingerprint.
        files: artifacts of the parent by name; those outside ``PUBLIC_FILES`` stay away.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(metrics)
    run.log_files({name: content for name, content in files.items() if name in PUBLIC_FILES})
    for key, trainings in curves.items():
        anonymizer, attacker = key
        of_attack = pc.and_(
            pc.equal(results["anonymizer"], anonymizer), pc.equal(results["attacker"], attacker)
        )
        with tracker.child_run(run, anonymizer, attacker) as child:
            child.log_results(results.filter(of_attack))
            if key in clean:
                child.log_metrics({"clean_rank_1": clean[key]})
            if key in queries:
                child.log_metrics({"queries": queries[key]})
            child.log_metrics({f"weight/{k}": v for k, v in weights.get(key, {}).items()})
            for training, curve in enumerate(trainings):
                child.log_curve(f"training_{training}" if training else "training", curve)


def record_attribution(
    run: Run, rows: pa.Table, tags: Mapping[str, object], files: Mapping[str, bytes]
) -> None:
    """Write an attribution to its open run.

    Args:
        rows: schema ``results.attribution.ATTRIBUTION``.
        tags: headline, data fingerprint.
        files: artifacts by name. Images of people do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(attribution_metrics(rows))
    run.log_files(files)


def record_reconstruction(
    tracker: Tracker,
    run: Run,
    *,
    rows: pa.Table,
    learning: Sequence[Mapping[str, Any]],
    trials: Sequence[Mapping[str, Any]],
    tags: Mapping[str, object],
    files: Mapping[str, bytes],
) -> None:
    """Write a reconstruction study to its open run, and a child for each trial of its searches.

    Args:
        rows: columns of ``results.reconstruction.RECONSTRUCTION``.
        learning: curves, with ``anonymizer``, ``reconstructor`` and ``points``; they become metrics
            ``<anonymizer>/<reconstructor>/training/<number>``.
        trials: of all searches, with ``anonymizer``, ``trial``, ``status``, ``settings`` (nested),
            ``curve``, ``best`` and ``TRIAL_NUMBERS``.
        tags: headline, data fingerprint.
        files: artifacts by name. Images of people do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(reconstruction_metrics(rows))
    for learnt in learning:
        name = f"{learnt['anonymizer']}/{learnt['reconstructor']}/training"
        run.log_curve(name, learnt["points"])
    run.log_files(files)
    for trial in trials:
        with tracker.trial_run(run, trial["anonymizer"], trial["trial"]) as child:
            child.log_params(trial["settings"])
            child.set_tags({"status": trial["status"], "best": trial["best"]})
            child.log_curve("training", trial["curve"])
            child.log_metrics({name: float(trial[name]) for name in TRIAL_NUMBERS})


def record_training(run: Run, curves: Mapping[str, Curve], files: Mapping[str, bytes]) -> None:
    """Write what a training learnt to its open run.

    Args:
        run: the training's run.
        curves: by phase; metrics ``<phase>/<number>``.
        files: artifacts by name. Grids of people who must not be shown do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    for phase, curve in curves.items():
        run.log_curve(phase, curve)
    run.log_files(files)


def attribution_metrics(rows: pa.Table) -> dict[str, float]:
    """Metrics of rows of ``results.attribution.ATTRIBUTION``; what is not finite is left out.

    Returns:
        ``<question>/<anonymizer>/<attacker>/<gallery>/<measure>``, without what is empty and with
        a subset behind the measure, and the same with ``_ci_low`` and ``_ci_high``.
    """
    metrics: dict[str, float] = {}
    for row in rows.to_pylist():
        measure = row["measure"] if row["subset"] == "all" else f"{row['measure']} {row['subset']}"
        parts = [row[name] for name in ("question", "anonymizer", "attacker", "gallery")]
        metrics |= _with_bounds([*parts, measure], row)
    return metrics


def reconstruction_metrics(rows: pa.Table) -> dict[str, float]:
    """Metrics of rows of ``results.reconstruction.RECONSTRUCTION``; only what is finite.

    Returns:
        ``<anonymizer>/<reconstructor>/<gallery>/<measure>``, without what is empty, a gain with
        ``_over_<reconstructor>`` behind it, and the same with ``_ci_low`` and ``_ci_high``; and
        ``<anonymizer>/<reconstructor>/queries``.
    """
    metrics: dict[str, float] = {}
    for row in rows.to_pylist():
        other = row["compared_with"]
        measure = f"{row['measure']}_over_{other}" if other else row["measure"]
        attack = [row["anonymizer"], row["reconstructor"]]
        metrics |= _with_bounds([*attack, row["gallery"], measure], row)
        if row["queries"]:
            metrics["/".join([*attack, "queries"])] = row["queries"]
    return metrics


def _with_bounds(parts: Sequence[str], row: Mapping[str, Any]) -> dict[str, float]:
    """A row's value and bounds, each under its name; parts that are empty are left out."""
    name = "/".join(part for part in parts if part)
    columns = {"value": "", "ci_low": "_ci_low", "ci_high": "_ci_high"}
    return {
        name + ending: row[column]
        for column, ending in columns.items()
        if math.isfinite(row[column])
    }
