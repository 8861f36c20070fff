"""How an attribution is laid out in MLflow: one run with a metric for every number."""

import math
from collections.abc import Mapping

import pyarrow as pa

from cldmray.tracking.run import Run


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
