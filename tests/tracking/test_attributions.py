"""An attribution's numbers in MLflow."""

import math
from typing import Any

import pyarrow as pa

from cldmray.results.attribution import AttributionRow, attribution_table
from cldmray.tracking import Tracker
from cldmray.tracking.layouts import few_metrics, largest_rows, record_attribution

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


def test_the_largest_number_of_each_question_is_a_metric() -> None:
    lower = AttributionRow("swap", *WHERE, "condition_share", 0.4, 0.3, 0.5, 50)
    included = AttributionRow(
        "swap", *WHERE[:3], "source_included", "condition_share", 1.0, 0.9, 1.0, 50
    )
    table = pa.concat_tables([attribution_table([lower, included]), rows()])
    metrics = few_metrics(largest_rows(table))
    assert metrics == {
        "swap/condition_share": 0.9, "swap/condition_share_low": 0.8,
        "swap/condition_share_high": 1.0,
        "region/rank_1 face": 0.2, "region/rank_1 face_low": 0.1, "region/rank_1 face_high": 0.3,
        "ablation/carried_share": 0.5, "ablation/carried_share_high": 0.7,
        "operating_point/ssim": 0.6, "operating_point/ssim_low": 0.5,
        "operating_point/ssim_high": 0.7,
    }  # fmt: skip


def test_values_come_before_bounds_where_there_is_little_room() -> None:
    few = few_metrics(largest_rows(rows()), 5)
    assert list(few) == [
        "swap/condition_share", "region/rank_1 face", "ablation/carried_share",
        "operating_point/ssim", "swap/condition_share_low",
    ]  # fmt: skip


def test_a_run(tracker: Tracker) -> None:
    with tracker.job_run("attribution", "why", {"seed": 3}, seeds={"audit": 3}) as run:
        record_attribution(run, rows(), {"headline": "x"}, {"attribution.json": b"{}"})
    stored: Any = tracker.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert (stored.data.tags["kind"], stored.data.tags["seed.audit"]) == ("attribution", "3")
    assert stored.data.tags["headline"] == "x"
    assert stored.data.metrics["swap/condition_share"] == 0.9
    assert stored.data.tags["where.swap.condition_share"] == " / ".join(
        ("cldm-canny-1.0+depth-1.0", "adaptive_contrastive", "source_excluded")
    )
    assert len(stored.data.metrics) == 11
    assert stored.data.tags["mlflow.note.content"] == "**x**"
    artifacts = [a.path for a in tracker.client.list_artifacts(run.run_id)]
    assert artifacts == ["attribution.json", "tables"]
