"""How an inversion is laid out in MLflow: a parent run, and a child for each trial of a search."""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cldmray.tracking.run import Run
from cldmray.tracking.runs import Tracker


def inversion_metrics(rows: pa.Table) -> dict[str, float]:
    """Metrics of rows with the columns of ``report.inversion_files.INVERSION``.

    Returns:
        ``<anonymizer>/<inverter>/<gallery>/<measure>``, without what is empty, a gain with
        ``_over_<inverter>`` behind it, and the same with ``_ci_low`` and ``_ci_high``; and
        ``<anonymizer>/<inverter>/queries``. What is not finite is left out.
    """
    metrics: dict[str, float] = {}
    for row in rows.to_pylist():
        other = row["compared_with"]
        measure = f"{row['measure']}_over_{other}" if other else row["measure"]
        who = [row["anonymizer"], row["inverter"]]
        name = "/".join(part for part in [*who, row["gallery"], measure] if part)
        for ending, column in (("", "value"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high")):
            if math.isfinite(row[column]):
                metrics[name + ending] = row[column]
        if row["queries"]:
            metrics["/".join([*who, "queries"])] = row["queries"]
    return metrics


def record_inversion(
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
        rows: columns of ``report.inversion_files.INVERSION``.
        learning: curves, with ``anonymizer``, ``inverter`` and ``points`` (``step`` and further
            numbers); they become metrics ``<anonymizer>/<inverter>/training/<number>``.
        trials: of all searches, with ``anonymizer``, ``trial``, ``status``, ``settings`` (nested),
            ``curve`` (points with ``step`` and further numbers), ``best``, and further numbers.
        tags: headline, data fingerprint.
        files: artifacts by name. Pictures of people do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(inversion_metrics(rows))
    for one in learning:
        run.log_curve(f"{one['anonymizer']}/{one['inverter']}/training", one["points"])
    run.log_files(files)
    for trial in trials:
        with tracker.trial_run(run, trial["anonymizer"], trial["trial"]) as child:
            child.log_params(trial["settings"])
            child.set_tags({"status": trial["status"], "best": trial["best"]})
            child.log_curve("training", trial["curve"])
            numbers = ("queries", "steps", "objective", "seconds")
            rates = ("validation_rank_1", "validation_cosine")
            child.log_metrics({name: float(trial[name]) for name in (*numbers, *rates)})
