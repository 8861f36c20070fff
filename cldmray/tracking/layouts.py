"""What is written to MLflow of each kind of job, and under which names.

========================  =========================================================================
audit                     see :mod:`cldmray.tracking.audit_layout`
attribution               one run with a metric for every number, and a table of them
reconstruction            a parent run with a metric for every number, and a table of them; a child
                          for each trial of a search
training                  one run with learning curves by phase, sample images and the model's card
========================  =========================================================================

Nothing that shows or names a person belongs there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cldmray.tracking.run import Curve, Run
from cldmray.tracking.runs import Tracker

TRIAL_NUMBERS = (
    "queries",
    "steps",
    "objective",
    "seconds",
    "validation_rank_1",
    "validation_cosine",
)
"""Metrics of a trial of a search."""


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
    run.log(tags=tags, metrics=attribution_metrics(rows), description=f"**{tags['headline']}**")
    run.log_table("tables/attribution.json", rows)
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
    curves = {f"{c['anonymizer']}/{c['reconstructor']}/training": c["points"] for c in learning}
    run.log(
        tags=tags,
        metrics=reconstruction_metrics(rows),
        curves=curves,
        description=f"**{tags['headline']}**",
    )
    run.log_table("tables/reconstruction.json", rows)
    run.log_files(files)
    for trial in trials:
        with tracker.trial_run(run, trial["anonymizer"], trial["trial"]) as child:
            child.log(
                params=trial["settings"],
                tags={"status": trial["status"], "best": trial["best"]},
                metrics={name: float(trial[name]) for name in TRIAL_NUMBERS},
                curves={"training": trial["curve"]},
            )


def record_training(run: Run, curves: Mapping[str, Curve], files: Mapping[str, bytes]) -> None:
    """Write what a training learnt to its open run.

    Args:
        run: the training's run.
        curves: by phase; metrics ``<phase>/<number>``.
        files: artifacts by name. Grids of people who must not be shown do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    run.log(curves=curves)
    run.log_files(files)


def attribution_metrics(rows: pa.Table) -> dict[str, float]:
    """Metrics of rows of ``results.attribution.ATTRIBUTION``; only what is finite.

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
        if row[column] is not None and math.isfinite(row[column])
    }
