"""What is written to MLflow of each kind of job, and under which names.

========================  =========================================================================
audit                     see :mod:`cldmray.tracking.audit_layout`
attribution               one run with the largest number of each question, and a table of all
reconstruction            a parent run with the most that is identified, and a table of all numbers;
                          a child for each model on each anonymizer, and for each trial of a search
training                  one run with learning curves by phase, sample images and the model's card
========================  =========================================================================

An attribution, and a model of a reconstruction study, have at most ``MOST_METRICS`` metrics.
Nothing that shows or names a person belongs there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cldmray.tracking.audit_layout import MOST_METRICS, shown_curve
from cldmray.tracking.run import Curve, Run
from cldmray.tracking.runs import Tracker

Row = Mapping[str, Any]
"""A row of one of the tables."""
GALLERIES = {
    "source_excluded": "cross_image",
    "source_included": "same_image",
    "anonymized_only": "linkage",
}
"""What the attacker holds, in the names of metrics."""
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
    largest = largest_rows(rows)
    where = {
        f"where.{name.replace('/', '.')}": " / ".join(
            row[part] for part in ("anonymizer", "attacker", "gallery") if row[part]
        )
        for name, row in largest.items()
    }
    metrics = few_metrics(largest)
    run.log(tags={**tags, **where}, metrics=metrics, description=f"**{tags['headline']}**")
    run.log_tables({"tables/attribution.json": rows})
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
            ``training/<number>`` of the child.
        trials: of all searches, with ``anonymizer``, ``trial``, ``status``, ``settings`` (nested),
            ``curve``, ``best`` and ``TRIAL_NUMBERS``.
        tags: headline, data fingerprint.
        files: artifacts by name. Images of people do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    run.log(
        tags=tags,
        metrics=most_identified(rows),
        description=f"**{tags['headline']}**",
    )
    run.log_tables({"tables/reconstruction.json": rows})
    run.log_files(files)
    points = {(c["anonymizer"], c["reconstructor"]): c["points"] for c in learning}
    for key, own in _by_model(rows).items():
        curve = shown_curve([points[key]] if key in points else [])
        n_curves = len({name for point in curve for name in point} - {"step"})
        with tracker.child_run(run, *key) as child:
            child.log(
                params=dict(zip(("anonymizer", "reconstructor"), key, strict=True)),
                metrics=reconstruction_metrics(own, MOST_METRICS - n_curves),
                curves={"training": curve},
            )
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


def largest_rows(rows: pa.Table) -> dict[str, Row]:
    """The largest number of each question and measure, by the name of its metric.

    That is the highest finite value in the gallery ``source_excluded``, else in any. The name is
    ``<question>/<measure>``, with the part of the image behind the measure where it is of one.

    Args:
        rows: schema ``results.attribution.ATTRIBUTION``.
    """
    largest: dict[str, Row] = {}
    for row in rows.to_pylist():
        if row["value"] is None or not math.isfinite(row["value"]):
            continue
        part = "" if row["subset"] == "all" else f" {row['subset'].partition('=')[2]}"
        name = f"{row['question']}/{row['measure']}{part}"
        if name not in largest or _size(row) > _size(largest[name]):
            largest[name] = row
    return largest


def _size(row: Row) -> tuple[bool, float]:
    return row["gallery"] == "source_excluded", row["value"]


def most_identified(rows: pa.Table) -> dict[str, float]:
    """The metrics of a whole reconstruction study.

    Args:
        rows: columns of ``results.reconstruction.RECONSTRUCTION``.

    Returns:
        ``n_models``, those that are compared with controls; and the highest rank-1 rate that one
        of them reaches, under the names of audits (``rank_1_cross_image``) and with
        ``/<anonymizer>`` behind.
    """
    models = {
        (row["anonymizer"], row["reconstructor"])
        for row in rows.to_pylist()
        if row["compared_with"]
    }
    metrics: dict[str, float] = {"n_models": len(models)}
    for row in rows.to_pylist():
        is_rate = row["measure"] == "rank_1" and row["gallery"] in GALLERIES
        if is_rate and (row["anonymizer"], row["reconstructor"]) in models:
            name = f"rank_1_{GALLERIES[row['gallery']]}"
            for key in (name, f"{name}/{row['anonymizer']}"):
                metrics[key] = max(row["value"], metrics.get(key, 0.0))
    return metrics


def reconstruction_metrics(rows: Sequence[Row], most: int = MOST_METRICS) -> dict[str, float]:
    """Metrics of one model on one anonymizer; only what is finite.

    Args:
        rows: of the model, columns of ``results.reconstruction.RECONSTRUCTION``.
        most: how many at most.

    Returns:
        ``rank_1_cross_image`` and the like, ``gain_over_<model>_cross_image``, ``psnr``, ``ssim``
        and ``queries``; ``_low`` and ``_high`` as far as there is room.
    """
    asked = max((row["queries"] for row in rows), default=0)
    queries = {"queries": float(asked)} if asked else {}
    named: dict[str, Row] = {}
    for row in rows:
        other = row["compared_with"]
        measure = f"gain_over_{other}" if other else row["measure"]
        gallery = GALLERIES.get(row["gallery"], row["gallery"])
        named[f"{measure}_{gallery}" if gallery else measure] = row
    return queries | few_metrics(named, most - len(queries))


def few_metrics(rows: Mapping[str, Row], most: int = MOST_METRICS) -> dict[str, float]:
    """Values by their names, and their bounds as far as there is room; only what is finite.

    Args:
        rows: with ``value``, ``ci_low`` and ``ci_high``, the most telling first.
        most: how many metrics at most.
    """
    values = [(name, row["value"]) for name, row in rows.items()]
    bounds = [
        (name + ending, row[column])
        for name, row in rows.items()
        for ending, column in (("_low", "ci_low"), ("_high", "ci_high"))
    ]
    finite = [
        (name, value)
        for name, value in (*values, *bounds)
        if value is not None and math.isfinite(value)
    ]
    return dict(finite[:most])


def _by_model(rows: pa.Table) -> dict[tuple[str, str], list[Row]]:
    """The rows of each model on each anonymizer."""
    models: dict[tuple[str, str], list[Row]] = {}
    for row in rows.to_pylist():
        models.setdefault((row["anonymizer"], row["reconstructor"]), []).append(row)
    return models
