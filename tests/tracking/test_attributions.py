"""An attribution's numbers in MLflow."""

import math
from typing import Any

import pyarrow as pa

from cldmray.results.attribution import AttributionRow, attribution_table
from cldmray.tracking import Tracker
from cldmray.tracking.layouts import attribution_metrics, record_attribution

WHERE = ("cldm-canny-1.0+depth-1.0", "adaptive_contrastive", "full_ref", "source_excluded")


def rows() -> pa.Table:
    return attribution_table(
        [
            AttributionRow("swap", *WHERE, "condition_share", 0.9, 0.8, 1.0, 50),
            AttributionRow("region", *WHERE, "rank_1", 0.2, 0.1, 0.3, 50, subset="region=face"),
            AttributionRow(
                "ablation", *WHERE, "carried_share", 0.5, float("-inf"), 0.7, 50, "cldm-none"
            ),
            AttributionRow(
                "proxy", *WHERE, "proxy_share", *(3 * [math.nan]), 50, reason="at chance"
            ),
            AttributionRow("operating_point", WHERE[0], "", "", "", "ssim", 0.6, 0.5, 0.7, 50),
        ]
    )


def test_names() -> None:
    metrics = attribution_metrics(rows())
    middle = "cldm-canny-1.0+depth-1.0/adaptive_contrastive/source_excluded"
    assert metrics[f"swap/{middle}/condition_share"] == 0.9
    assert metrics[f"swap/{middle}/condition_share_ci_low"] == 0.8
    assert metrics[f"region/{middle}/rank_1 region=face_ci_high"] == 0.3
    assert metrics["operating_point/cldm-canny-1.0+depth-1.0/ssim"] == 0.6
    assert f"ablation/{middle}/carried_share" in metrics
    assert f"ablation/{middle}/carried_share_ci_low" not in metrics
    assert len(metrics) == 11


def test_a_run(tracker: Tracker) -> None:
    with tracker.job_run("attribution", "why", {"seed": 3}, seeds={"audit": 3}) as run:
        record_attribution(run, rows(), {"headline": "x"}, {"attribution.json": b"{}"})
    stored: Any = tracker.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert (stored.data.tags["kind"], stored.data.tags["seed.audit"]) == ("attribution", "3")
    assert stored.data.tags["headline"] == "x"
    name = "swap/cldm-canny-1.0_depth-1.0/adaptive_contrastive/source_excluded/condition_share"
    assert stored.data.metrics[name] == 0.9
    assert len(stored.data.metrics) == 11
    assert stored.data.tags["mlflow.note.content"] == "**x**"
    artifacts = [a.path for a in tracker.client.list_artifacts(run.run_id)]
    assert artifacts == ["attribution.json", "tables"]
