"""An audit's layout in MLflow: what the parent holds, and what each child."""

from typing import Any

import pyarrow as pa
import pytest

from cldmray.results.table import RESULTS
from cldmray.tracking import Tracker
from cldmray.tracking.layouts import record_audit

ATTACKS = [("blur", "adaptive_contrastive"), ("blur", "clean_trained"), ("no_op", "clean_trained")]


def results() -> pa.Table:
    rows = [
        {
            "anonymizer": anonymizer,
            "attacker": attacker,
            "protocol": "full_ref",
            "gallery": gallery,
            "level": "image",
            "subset": "all",
            "measure": "rank_1",
            "value": 0.1 * place + (0.05 if gallery == "source_included" else 0),
            "ci_low": 0.0,
            "ci_high": 1.0,
            "n_probes": 20,
            "n_identities": 10,
            "gallery_size": 10,
            "n_non_mated": 0,
            "reason": None,
            "chance": 0.1,
        }
        for place, (anonymizer, attacker) in enumerate(ATTACKS, 1)
        for gallery in ("source_excluded", "source_included")
    ]
    return pa.Table.from_pylist(rows, RESULTS)


def write(tracker: Tracker, run: Any) -> None:
    points = [
        {"step": 40.0, "loss": 3.0, "validation_rank_1": 0.2},
        {"step": 80.0, "loss": 1.5, "validation_rank_1": 0.6},
    ]
    record_audit(
        tracker,
        run,
        results=results(),
        metrics={"risk/blur": 0.2, "risk/no_op": 0.3, "utility/a+b (c)/ssim": 0.5},
        curves={attack: [points[: 1 + place % 2]] for place, attack in enumerate(ATTACKS)},
        clean={attack: 0.9 + 0.01 * place for place, attack in enumerate(ATTACKS)},
        weights={ATTACKS[0]: {"full_ref/source_excluded/condition_match": 0.5}},
        tags={"verdict": "blur leaks identity"},
        files={
            "results.parquet": b"PAR1",
            "verdict.json": b"{}",
            "examples.png": b"",
            "rejected.parquet": b"",
        },
        queries={ATTACKS[0]: 1200},
    )


def write_curves(tracker: Tracker, run: Any, curves: Any) -> None:
    """An audit that has curves only."""
    record_audit(
        tracker,
        run,
        results=results(),
        metrics={},
        curves=curves,
        clean={},
        weights={},
        queries={},
        tags={},
        files={},
    )


@pytest.fixture(scope="module")
def runs(tracker: Tracker) -> tuple[Any, dict[tuple[str, str], Any]]:
    """The parent run and its children by anonymizer and attacker."""
    with tracker.audit_run("layout", {"seed": 3}) as run:
        write(tracker, run)
    parent = tracker.client.get_run(run.run_id)
    children = tracker.client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run.run_id}'"
    )
    return parent, {
        (child.data.tags["anonymizer"], child.data.tags["attacker"]): child for child in children
    }


def test_the_parent_holds_no_face_and_no_name(tracker: Tracker, runs: Any) -> None:
    parent, _ = runs
    assert parent.info.status == "FINISHED"
    metrics = {"risk/blur": 0.2, "risk/no_op": 0.3, "utility/a_b _c_/ssim": 0.5}
    assert parent.data.metrics == metrics
    assert parent.data.tags["verdict"] == "blur leaks identity"
    assert parent.data.tags["kind"] == "audit"
    artifacts = tracker.client.list_artifacts(parent.info.run_id)
    assert sorted(file.path for file in artifacts) == ["results.parquet", "verdict.json"]


def test_one_child_for_each_attack(runs: Any) -> None:
    _, children = runs
    assert sorted(children) == ATTACKS
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    assert {child.data.tags["kind"] for child in children.values()} == {"attack"}
    assert children["blur", "adaptive_contrastive"].info.run_name == "blur / adaptive_contrastive"


def test_each_child_has_its_own_results(runs: Any) -> None:
    _, children = runs
    for place, attack in enumerate(ATTACKS, 1):
        metrics = children[attack].data.metrics
        assert metrics["full_ref/source_excluded/rank_1"] == pytest.approx(0.1 * place)
        assert metrics["full_ref/source_included/rank_1"] == pytest.approx(0.1 * place + 0.05)
        assert metrics["full_ref/source_excluded/n_probes"] == 20
        assert metrics["clean_rank_1"] == pytest.approx(0.89 + 0.01 * place)
    names = {name.split("/")[0] for name in children["blur", "adaptive_contrastive"].data.metrics}
    assert names == {"full_ref", "clean_rank_1", "training", "weight", "queries"}
    asked = {attack: child.data.metrics.get("queries") for attack, child in children.items()}
    assert {attack: count for attack, count in asked.items() if count} == {ATTACKS[0]: 1200}
    weights = children["blur", "adaptive_contrastive"].data.metrics
    assert weights["weight/full_ref/source_excluded/condition_match"] == 0.5


def test_learning_curves_keep_their_steps(tracker: Tracker, runs: Any) -> None:
    _, children = runs

    def history(attack: tuple[str, str], name: str) -> list[tuple[int, float]]:
        run_id = children[attack].info.run_id
        return [(m.step, m.value) for m in tracker.client.get_metric_history(run_id, name)]

    longer, shorter = ATTACKS[1], ATTACKS[0]
    assert history(longer, "training/loss") == [(40, 3.0), (80, 1.5)]
    assert history(longer, "training/validation_rank_1") == [(40, 0.2), (80, 0.6)]
    assert history(shorter, "training/loss") == [(40, 3.0)]
    assert "training/step" not in children[longer].data.metrics


def test_every_training_has_its_curve(tracker: Tracker) -> None:
    curves = [[{"step": 5.0, "loss": loss}] for loss in (2.0, 3.0)]
    with tracker.audit_run("seeds", {}) as run:
        write_curves(tracker, run, {ATTACKS[0]: curves})
    experiment = tracker.client.get_run(run.run_id).info.experiment_id
    (child,) = tracker.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run.run_id}'")
    assert child.data.metrics["training/loss"] == 2.0
    assert child.data.metrics["training_1/loss"] == 3.0


def test_an_error_marks_child_and_parent(tracker: Tracker) -> None:
    pointless: list[dict[str, float]] = [{"loss": 1.0}]
    with pytest.raises(KeyError), tracker.audit_run("broken", {}) as run:
        write_curves(tracker, run, {ATTACKS[0]: [pointless]})
    assert tracker.client.get_run(run.run_id).info.status == "FAILED"


def test_an_attack_may_learn_nothing_and_have_no_clean_rate(tracker: Tracker) -> None:
    with tracker.audit_run("ready", {}) as run:
        write_curves(tracker, run, {ATTACKS[0]: []})
    experiment = tracker.client.get_run(run.run_id).info.experiment_id
    (child,) = tracker.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run.run_id}'")
    assert child.data.metrics["full_ref/source_excluded/rank_1"] == pytest.approx(0.1)
    assert {name.split("/")[0] for name in child.data.metrics} == {"full_ref"}
