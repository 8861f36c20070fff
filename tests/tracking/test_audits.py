"""An audit's layout in MLflow: what the parent holds, and what each child."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.arrays import Interval
from cldmray.evaluation.decision import DecisionPolicy, decide
from cldmray.results.audit import (
    AnonymizerRisk,
    AttackerDiagnostics,
    AttackRate,
    AuditReport,
    Grid,
    UtilityRow,
    Verdict,
)
from cldmray.results.table import RESULTS
from cldmray.tracking import Tracker
from cldmray.tracking.audit_layout import (
    MOST_METRICS,
    AttackLog,
    AuditedData,
    _risk_table,
    attack_metrics,
    audit_metrics,
    record_audit,
)
from cldmray.tracking.descriptions import describe_audit

ATTACKS = [("blur", "adaptive_contrastive"), ("blur", "clean_trained"), ("no_op", "clean_trained")]
MEASURES = ("rank_1", "rank_5", "eer", "d_sys", "k_not_rejected")
GALLERIES = ("source_excluded", "source_included", "anonymized_only")
ATTRIBUTES = ("sex", "age", "skin_tone", "glasses", "beard", "hat")
UTILITY = [
    *("ssim", "edge_f1", "face_detection_rate", "pose_consistency", "frechet_pretrained"),
    *(f"{attribute}_agreement" for attribute in ATTRIBUTES),
]
DATA = AuditedData("lfw", "s3://me:hunter2@bucket/lfw", "abcd0123", {"size": 64})


def row(anonymizer: str, attacker: str, **values: Any) -> dict[str, Any]:
    return {
        "anonymizer": anonymizer,
        "attacker": attacker,
        "protocol": "full_ref",
        "gallery": "source_excluded",
        "level": "image",
        "subset": "all",
        "measure": "rank_1",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "chance": 0.1,
        "n_probes": 20,
        "n_identities": 10,
        "gallery_size": 10,
        "n_non_mated": 0,
        "reason": None,
        **values,
    }


def rows(attacks: Sequence[tuple[str, str]] = ATTACKS) -> list[dict[str, Any]]:
    """Every measure of every attack; Single-Ref identifies more in the gallery with the source."""
    table = []
    for place, (anonymizer, attacker) in enumerate(attacks, 1):
        for protocol, gallery, level, measure in itertools.product(
            ("full_ref", "single_ref"), GALLERIES, ("image", "person"), MEASURES
        ):
            value = 0.1 * place + 0.05 * GALLERIES.index(gallery) + 0.2 * (level == "person")
            value += 0.01 * (protocol == "single_ref") * (1 if gallery == "source_included" else -1)
            bounds = {"ci_low": value - 0.05, "ci_high": value + 0.05}
            if measure == "k_not_rejected":
                value, bounds = 5 - place, {"ci_low": 4 - place, "ci_high": 5 - place}
            table.append(
                row(anonymizer, attacker, protocol=protocol, gallery=gallery, level=level,
                    measure=measure, value=value, **bounds)
            )  # fmt: skip
        table.append(row(anonymizer, attacker, subset="sex=female", value=0.99))
    return table


def risk(name: str, cross: float, **values: Any) -> AnonymizerRisk:
    where = ("adaptive_contrastive", "full_ref", "source_excluded")
    same = cross + 0.2
    defaults: dict[str, Any] = {
        "k_supported": 2,
        "cross_image": AttackRate(*where, cross, cross - 0.1, cross + 0.1, 0.1),
        "same_image": AttackRate(*where, same, same - 0.1, same + 0.1, 0.1),
        "utility_kept": Interval(0.5, 0.4, 0.6),
    }
    return AnonymizerRisk(
        *(name, cross, cross - 0.1, cross + 0.1, *where, 0.1),
        k_not_rejected=3,
        confidence_level=0.95,
        gallery_size=10,
        **{**defaults, **values},
    )


def report(risks: Sequence[AnonymizerRisk] | None = None, **values: Any) -> AuditReport:
    return AuditReport(**{
        "title": "layout",
        "created": "2026-01-01T00:00:00+00:00",
        "verdict": Verdict("blur leaks identity.", {"severity": "leak"}),
        "risks": list(risks or [
            risk("blur", 0.3, release="no", release_reason="It leaks."),
            risk("no_op", 0.6, is_control=True, candidate=False, k_supported=1),
        ]),
        "results": pa.Table.from_pylist(rows(), RESULTS),
        "curves": [],
        "grid": Grid(np.zeros((0, 1, 1, 3), np.uint8), []),
        "rejected": pa.table({}),
        "n_listed": 20,
        "settings": {},
        "versions": {},
        "stages": [],
        "notes": [],
        "data_fingerprint": DATA.fingerprint,
        "utility": [UtilityRow(name, measure, 0.5, 0.4, 0.6, 20, True)
                    for name in ("blur", "no_op") for measure in UTILITY],
        "diagnostics": [AttackerDiagnostics(*attack, 0.9 + 0.01 * place, 1, 80, 0.6, 0.0)
                        for place, attack in enumerate(ATTACKS)],
        **values,
    })  # fmt: skip


def logs(curves: Any = None) -> list[AttackLog]:
    points = [
        {"step": 40.0, "loss": 3.0, "validation_rank_1": 0.2},
        {"step": 80.0, "loss": 1.5, "validation_rank_1": 0.6},
    ]
    learnt = {attack: [points[: 1 + place % 2]] for place, attack in enumerate(ATTACKS)}
    settings = {
        "blur": {"_target_": "x.Blur", "sigma": 4.0},
        "no_op": {"_target_": "x.NoOp"},
    }
    return [
        AttackLog(
            *attack,
            settings[attack[0]],
            {"training": {"max_steps": 80, "api_key": "hunter2"}},
            curves=(learnt if curves is None else curves).get(attack, []),
            weights={"full_ref/source_excluded/condition_match": 0.5} if not place else {},
            queries=1200 if not place else None,
        )
        for place, attack in enumerate(ATTACKS)
    ]


def write(tracker: Tracker, run: Any, attacks: Sequence[AttackLog] | None = None) -> None:
    record_audit(
        tracker,
        run,
        report=report(),
        attacks=logs() if attacks is None else attacks,
        data=DATA,
        tags={"verdict": "blur leaks identity"},
        files={
            "results.parquet": b"PAR1",
            "verdict.json": b"{}",
            "figures/cmc.svg": b"",
            "figures/images.svg": b"",
            "rejected.parquet": b"",
            "report.html": b"with people",
        },
        page="<html>without people",
    )


def children_of(tracker: Tracker, run_id: str) -> dict[tuple[str, str], Any]:
    experiment = tracker.client.get_run(run_id).info.experiment_id
    children = tracker.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    return {(c.data.tags["anonymizer"], c.data.tags["attacker"]): c for c in children}


def paths(tracker: Tracker, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of a run's artifacts, sorted."""
    files = tracker.client.list_artifacts(run_id, folder)
    below = [paths(tracker, run_id, file.path) if file.is_dir else [file.path] for file in files]
    return sorted(itertools.chain.from_iterable(below))


def table(tracker: Tracker, run_id: str, name: str) -> list[dict[str, Any]]:
    """The rows of a table among a run's artifacts."""
    path = tracker.client.download_artifacts(run_id, f"tables/{name}.json")
    whole = json.loads(Path(path).read_text())
    return [dict(zip(whole["columns"], values, strict=True)) for values in whole["data"]]


@pytest.fixture(scope="module")
def runs(tracker: Tracker) -> tuple[Any, dict[tuple[str, str], Any]]:
    """The parent run and its children by anonymizer and attacker."""
    with tracker.job_run("audit", "layout", {"seed": 3}) as run:
        write(tracker, run)
    return tracker.client.get_run(run.run_id), children_of(tracker, run.run_id)


def test_the_parent_tells_the_whole(tracker: Tracker, runs: Any) -> None:
    parent, _ = runs
    assert parent.info.status == "FINISHED"
    metrics = parent.data.metrics
    assert metrics["n_anonymizers"] == 1 and metrics["n_leaking"] == 1
    assert metrics["rank_1_cross_image"] == 0.3  # blur's: no_op is a control
    assert metrics["rank_1_cross_image_low"] == pytest.approx(0.2)
    assert metrics["rank_1_cross_image/no_op"] == 0.6
    assert metrics["rank_1_same_image/blur"] == 0.5
    assert "rank_1_person_level" not in metrics
    assert metrics["k_supported"] == 2 and metrics["k_supported/no_op"] == 1
    assert metrics["utility_kept/blur"] == 0.5
    assert parent.data.tags["release.blur"] == "no"
    assert parent.data.tags["verdict"] == "blur leaks identity"
    (blur, control) = table(tracker, parent.info.run_id, "anonymizers")
    assert (blur["release"], blur["reason"]) == ("no", "It leaks.")
    assert control["release"] == "control"
    attacks = table(tracker, parent.info.run_id, "attacks")
    assert [(a["anonymizer"], a["attacker"]) for a in attacks] == ATTACKS
    assert attacks[0]["rank_1_same_image"] == pytest.approx(0.16)


def test_mlflow_knows_the_tables(
    tracker: Tracker, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)  # load_table asks the current server
    parent, children = runs
    named = json.loads(parent.data.tags["mlflow.loggedArtifacts"])
    assert [entry["path"] for entry in named] == [
        "tables/anonymizers.json", "tables/attacks.json", "tables/utility.json"
    ]  # fmt: skip
    ids = [child.info.run_id for child in children.values()]
    experiment = parent.info.experiment_id
    beside = tracker.client.load_table(experiment, "tables/results.json", ids, ["run_id"])
    assert set(beside["run_id"]) == set(ids)
    own = [len(table(tracker, run_id, "results")) for run_id in ids]
    assert len(beside) == sum(own) > 0


def test_no_face_and_no_name_is_uploaded(tracker: Tracker, runs: Any) -> None:
    parent, _ = runs
    run_id = parent.info.run_id
    assert paths(tracker, run_id) == [
        "figures/cmc.svg", "report.html", "results.parquet", "tables/anonymizers.json",
        "tables/attacks.json", "tables/utility.json", "verdict.json",
    ]  # fmt: skip
    page = Path(tracker.client.download_artifacts(run_id, "report.html"))
    assert page.read_text() == "<html>without people"


def test_the_description_is_the_verdict(runs: Any) -> None:
    parent, children = runs
    text = parent.data.tags["mlflow.note.content"]
    assert text.startswith("**blur leaks identity.**\n")
    assert "| blur | no | 30.0 % [20.0, 40.0] | 50.0 % [40.0, 60.0] |  |  | 2 | 0.50 |" in text
    assert "| no_op | (control) |" in text
    assert "bounds that hold at 95 % for all attacks of one kind on an anonymizer at once" in text
    text = children["blur", "clean_trained"].data.tags["mlflow.note.content"]
    assert text.startswith("**clean_trained** attacks **blur**.")
    assert "| attacker holds the very image | 26.0 % [21.0, 31.0] | 10.0 % | single_ref |" in text
    assert text.endswith("Release of blur: **no**. It leaks.")


def test_one_child_for_each_attack(runs: Any) -> None:
    _, children = runs
    assert sorted(children) == ATTACKS
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    assert {child.data.tags["kind"] for child in children.values()} == {"attack"}
    assert children["blur", "adaptive_contrastive"].info.run_name == "blur / adaptive_contrastive"


def test_children_have_the_parameters_that_they_are_compared_by(runs: Any) -> None:
    _, children = runs
    assert children["blur", "clean_trained"].data.params == {
        "anonymizer": "blur",
        "attacker": "clean_trained",
        "anonymizer._target_": "x.Blur",
        "anonymizer.sigma": "4.0",
        "attacker.training.max_steps": "80",
        "attacker.training.api_key": "***",
        "data": "lfw",
        "faces.size": "64",
        "data.fingerprint": "abcd0123",
        "data.n_probes": "20",
        "data.n_identities": "10",
        "data.gallery_size": "10",
    }


def test_children_have_few_metrics_with_plain_names(tracker: Tracker, runs: Any) -> None:
    _, children = runs
    for place, attack in enumerate(ATTACKS, 1):
        metrics = children[attack].data.metrics
        assert metrics["rank_1_cross_image"] == pytest.approx(0.1 * place)
        assert metrics["rank_1_cross_image_low"] == pytest.approx(0.1 * place - 0.05)
        assert metrics["rank_1_cross_image_chance"] == 0.1
        assert metrics["rank_1_same_image"] == pytest.approx(0.1 * place + 0.06)
        assert metrics["rank_1_person_level_high"] == pytest.approx(0.1 * place + 0.25)
        assert metrics["rank_1_linkage"] == pytest.approx(0.1 * place + 0.1)
        assert metrics["eer_cross_image"] == pytest.approx(0.1 * place)
        assert metrics["d_sys_linkage"] == pytest.approx(0.1 * place + 0.1)
        assert (metrics["k_supported"], metrics["k_not_rejected"]) == (4 - place, 5 - place)
        assert metrics["clean_rank_1"] == pytest.approx(0.89 + 0.01 * place)
        assert metrics["utility/ssim"] == 0.5 and metrics["utility_kept_high"] == 0.6
        assert len(metrics) <= MOST_METRICS
        assert children[attack].data.tags["rank_1_same_image_protocol"] == "single_ref"
        assert len(table(tracker, children[attack].info.run_id, "results")) == 61
    asked = {attack: child.data.metrics.get("queries") for attack, child in children.items()}
    assert {attack: count for attack, count in asked.items() if count} == {ATTACKS[0]: 1200}
    (weight,) = table(tracker, children[ATTACKS[0]].info.run_id, "weights")
    assert weight["attacker"] == "condition_match" and weight["weight"] == 0.5


def test_the_data_are_an_input_of_every_run(runs: Any) -> None:
    parent, children = runs
    for run in (parent, *children.values()):
        (given,) = run.inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("lfw", "abcd0123")
        assert json.loads(given.dataset.source) == {"uri": "s3://***@bucket/lfw"}
        assert json.loads(given.dataset.profile)["data.n_identities"] == 10
        assert [(tag.key, tag.value) for tag in given.tags] == [
            ("mlflow.data.context", "evaluation")
        ]


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


def test_the_first_training_is_drawn_and_all_are_listed(tracker: Tracker) -> None:
    numbers = {f"n{i}": 1.0 for i in range(60)}
    curves = [[{"step": 5.0, "loss": loss, **numbers}] for loss in (2.0, 3.0)]
    with tracker.job_run("audit", "seeds", {}) as run:
        write(tracker, run, logs({ATTACKS[0]: curves}))
    child = children_of(tracker, run.run_id)[ATTACKS[0]]
    assert child.data.metrics["training/loss"] == 2.0
    assert len(child.data.metrics) == MOST_METRICS
    listed = table(tracker, child.info.run_id, "learning_curves")
    assert [(point["training"], point["loss"]) for point in listed] == [(0, 2.0), (1, 3.0)]


def test_an_error_marks_child_and_parent(tracker: Tracker) -> None:
    pointless: list[dict[str, float]] = [{"loss": 1.0}]
    with pytest.raises(KeyError), tracker.job_run("audit", "broken", {}) as run:
        write(tracker, run, logs({ATTACKS[0]: [pointless]}))
    assert tracker.client.get_run(run.run_id).info.status == "FAILED"


def test_what_was_not_measured_is_no_metric() -> None:
    empty = {"value": None, "ci_low": None, "ci_high": None, "chance": None, "reason": "too few"}
    metrics = attack_metrics([row("a", "b"), row("a", "b", measure="eer", **empty)])
    assert metrics == {
        "rank_1_cross_image": 0.5,
        "rank_1_cross_image_low": 0.4,
        "rank_1_cross_image_high": 0.6,
        "rank_1_cross_image_chance": 0.1,
    }


def test_those_are_counted_that_the_verdict_counts() -> None:
    risks = [
        risk("a", 0.12, release="yes", excess=Interval(0.02, -0.1, 0.1), k_supported=5),
        risk("pix", 0.8, release="no", k_supported=1),
        risk("no_op", 0.9, is_control=True, k_supported=1),
    ]
    decided = decide(risks, ["no_op"], DecisionPolicy(target_k=2, release=("a",)))
    metrics = audit_metrics(decided.risks)
    assert (metrics["n_anonymizers"], metrics["n_leaking"], metrics["n_releasable"]) == (1, 0, 1)
    assert metrics["rank_1_cross_image"] == 0.12
    assert metrics["k_supported"] == decided.candidates[0].k_supported > 1
    assert metrics["rank_1_cross_image/pix"] == 0.8


def test_who_leaks_by_all_images_of_a_person_alone_is_counted() -> None:
    pooled = AttackRate("pretrained", "full_ref", "source_excluded", 0.4, 0.3, 0.5, 0.1)
    calm = risk("a", 0.12, excess=Interval(0.02, -0.1, 0.1))
    assert audit_metrics([calm])["n_leaking"] == 0
    assert audit_metrics([replace(calm, person_level=pooled)])["n_leaking"] == 1


def test_a_control_that_is_meant_to_be_released_has_its_answer() -> None:
    risks = [risk("a", 0.12), risk("no_op", 0.9, is_control=True)]
    named = decide(risks, ["no_op"], DecisionPolicy(release=("no_op",))).risks
    assert audit_metrics(named)["n_leaking"] == 1
    assert _risk_table(named)["release"].to_pylist() == [named[0].release, "no"]
    text = describe_audit(report(named), "people")
    assert "| no_op | no |" in text and "(control)" not in text


def test_controls_alone_are_summed_up_as_they_are() -> None:
    metrics = audit_metrics([risk("no_op", 0.6, is_control=True)])
    assert metrics["n_anonymizers"] == 1
    assert metrics["rank_1_cross_image"] == 0.6
