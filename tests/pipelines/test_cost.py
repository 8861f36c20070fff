"""What an audit tells before it starts: images, steps, hours, storage, what is found."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

import cldmray.pipelines.cost
from cldmray.cli.jobs import audit
from cldmray.cli.runtime import run_or_exit
from cldmray.config.attribution import build_attribution
from cldmray.config.audit import build_audit
from cldmray.config.reconstruction import build_reconstruction
from cldmray.engine.artifacts import Manifest, commit
from cldmray.engine.map_stages.cost import AttackCost, Cost
from cldmray.engine.stages import Stages
from cldmray.errors import ConfigError
from cldmray.pipelines.cost import Estimate, Step
from cldmray.pipelines.data_preparation import DataPreparation

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "faces.n_identities=24",
    "faces.images_per_identity=5",
    "splits.n_evaluation_identities=8",
    "splits.validation_fraction=0.5",
    "anonymizers=[no_op,k_same,cldm_canny]",
    "attackers=[pretrained,clean_trained,adaptive_contrastive]",
]


def configured(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return build_audit(compose("audit", [*SMALL, *overrides]))


class Plan:
    """Estimates whose anonymizers seem to cost one second and 2**20 bytes an image.

    Attackers: a quarter of a second and 512 bytes an image, two seconds a step.
    """

    def __init__(self, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
        self.tried: list[str] = []
        self.attackers: list[str] = []

        def calibrate(source: Any, anonymizers: Any, listing: Any, engine: Any) -> Any:
            self.tried += [anonymizer.name for anonymizer in anonymizers]
            return [(Cost(0.5, 2**19), Cost(1.0, 2**20)) for _ in anonymizers]

        def calibrate_attackers(source: Any, attackers: Any, listing: Any, engine: Any) -> Any:
            self.attackers = [attacker.name for attacker in attackers]
            trained = [attacker.max_steps is not None for attacker in attackers]
            return [AttackCost(Cost(0.25, 2**9), 2.0 if steps else None) for steps in trained]

        monkeypatch.setattr(cldmray.pipelines.cost, "calibrate", calibrate)
        monkeypatch.setattr(cldmray.pipelines.cost, "calibrate_attackers", calibrate_attackers)
        config = configured(*overrides)
        self.stages = Stages(str(cache_dir))
        self.preparation = DataPreparation(config, self.stages)
        self.listing = self.preparation.listing().samples
        self.estimate = Estimate(config, self.stages, self.preparation)

    def steps(self, always: bool = True) -> dict[str, Step]:
        return {step.name: step for step in self.estimate.steps(self.listing, always)}

    def split(self, *names: str) -> int:
        result = self.listing["split"].to_pylist()
        return sum(result.count(name) for name in names)


def test_every_step_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(tmp_path, monkeypatch, "audit.samples_per_image=3", "audit.n_training_seeds=2")
    steps = plan.steps()
    assert list(steps) == [
        "faces", "near-duplicates", "anonymize-no_op", "anonymize-k_same",
        "anonymize-cldm-canny-1.0", "pixels", "utility", "attack-pretrained",
        "inference-pretrained", "attack-clean_trained", "attack-adaptive_contrastive",
        "inference-adaptive_contrastive",
    ]  # fmt: skip
    evaluated, learnt, held = map(plan.split, ("evaluation", "attacker", "attacker_validation"))
    assert evaluated == 40 and learnt and held
    assert steps["faces"].images == evaluated + learnt + held
    drawn = steps["anonymize-cldm-canny-1.0"]
    assert drawn.images == evaluated + 3 * learnt + held
    assert (drawn.steps, drawn.on_gpu, drawn.reused) == (5, False, False)
    assert drawn.hours == pytest.approx(drawn.images / 3600)
    assert drawn.mib == drawn.images
    assert steps["anonymize-k_same"].images == evaluated + learnt + held
    assert steps["anonymize-k_same"].hours is None
    assert steps["faces"].mib == steps["faces"].images / 2
    assert plan.tried == ["no_op", "cldm-canny-1.0"]
    # Images and three settings; two trainings of the same; two trainings for each of the two
    # settings that change an image, each with the images.
    assert steps["attack-pretrained"].images == 40 * 4
    assert steps["attack-clean_trained"].images == 40 * 4 * 2
    assert steps["attack-adaptive_contrastive"].images == 40 * 2 * 2 * 2
    # Every image once; evaluated images of three settings, and with their originals.
    assert steps["near-duplicates"].images == steps["faces"].images
    assert (steps["pixels"].images, steps["utility"].images) == (40 * 3, 40 * 4)
    # Attributes are read from images of attacker people, of which there are fewer than 300.
    assert steps["inference-pretrained"].images == learnt * 4
    assert steps["inference-adaptive_contrastive"].images == learnt * 2 * 2
    trained = plan.estimate.config.attackers["adaptive_contrastive"].training.max_steps
    assert steps["attack-adaptive_contrastive"].steps == trained * 2 * 2
    assert plan.attackers == ["pretrained", "clean_trained", "adaptive_contrastive"]
    assert steps["attack-pretrained"].hours == pytest.approx(40 * 4 / 4 / 3600)
    attack = steps["attack-adaptive_contrastive"]
    assert attack.hours == pytest.approx((40 * 2 * 2 * 2 / 4 + 2 * trained * 2 * 2) / 3600)
    assert attack.mib == 40 * 2 * 2 * 2 / 2**11
    inference = steps["inference-adaptive_contrastive"]
    assert inference.hours == pytest.approx(learnt * 2 * 2 / 4 / 3600)


def test_training_images_of_the_anonymizers_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(
        tmp_path, monkeypatch, "+faces@audit.training_faces=synthetic",
        "audit.training_faces.name=training", "audit.training_faces.n_identities=7",
        "audit.training_faces.images_per_identity=3",
    )  # fmt: skip
    assert plan.steps()["memorization"].images == 7 * 3


def test_what_an_attacker_starts_from_is_counted_unless_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Plan(
        tmp_path, monkeypatch, "attackers=[adaptive_contrastive]", "audit.n_training_seeds=2"
    ).steps()
    start = alone["train-clean_trained"]
    assert (start.images, start.steps) == (0, 2 * 100)
    assert start.hours == pytest.approx(2 * 100 * 2 / 3600)
    assert start.mib == 0
    assert "train-clean_trained" not in Plan(tmp_path, monkeypatch).steps()


def test_few_images_are_worth_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(tmp_path, monkeypatch)
    steps = plan.steps(always=False)
    assert plan.tried == plan.attackers == []
    assert all(step.hours is None for step in steps.values())
    monkeypatch.setattr(cldmray.pipelines.cost, "WORTH_TRYING", 100)
    assert plan.steps(always=False)["anonymize-no_op"].hours is not None


def test_what_is_found_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(tmp_path, monkeypatch)
    faces = plan.stages.plan(plan.preparation.faces_stage(plan.listing))
    drawn = plan.stages.plan(plan.preparation.anonymize_stage("cldm_canny", faces))
    for stage in (faces, drawn):
        commit(stage.folder, Manifest({"part": 1}))
    steps = plan.steps()
    assert plan.tried == ["no_op"]
    results = [name for name, step in steps.items() if step.reused]
    assert results == ["faces", "anonymize-cldm-canny-1.0"]
    assert all(steps[name].hours == steps[name].mib == 0 for name in results)


def test_the_table_is_compact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(tmp_path, monkeypatch)
    steps = [
        Step("faces", 7200, cost=Cost(0.5, 2**20), reused=True),
        Step("anonymize-sd", 7200, 20, Cost(0.25, 2**19), on_gpu=True),
        Step("anonymize-blur", 3600, None, Cost(0.1, 2**10)),
        Step("attack-adaptive_contrastive", 100, 4000),
    ]
    lines = list(plan.estimate.lines(steps))
    assert [line.split() for line in lines[:-1]] == [
        ["what", "will", "be", "done", "images", "steps", "CPU-hours", "GPU-hours", "MiB"],
        ["faces,", "found", "7200", "-", "0.000", "-", "0"],
        ["anonymize-sd", "7200", "20", "-", "0.500", "3600"],
        ["anonymize-blur", "3600", "-", "0.100", "-", "4"],
        ["attack-adaptive_contrastive", "100", "4000", "-", "-", "-"],
    ]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert max(map(len, lines[:-1])) <= 82
    assert lines[-1] == (
        "estimated: 0.100 CPU-hours and 0.500 GPU-hours, 3604 MiB in runs/cache; not "
        "estimated: attack-adaptive_contrastive"
    )


@pytest.mark.parametrize(
    ("name", "build"), [("attribute", build_attribution), ("invert", build_reconstruction)]
)
def test_other_jobs_refuse_a_dry_run(name: str, build: Any) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose(name, ["audit.dry_run=true"])
    with pytest.raises(ConfigError, match="^audit.dry_run: only an audit can be planned"):
        build(composed)


@pytest.mark.usefixtures("local_ray")
def test_a_dry_run_does_no_stage_and_succeeds(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = [f"{key}={tmp_path}/{name}" for key, name in (("cache_dir", "cache"), ("output", "o"))]
    places.append(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("audit", [*SMALL, "audit.dry_run=true", *places])
    run_or_exit(audit, composed)
    printed = capfd.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    for name in ("faces", "anonymize-no_op", "anonymize-cldm-canny-1.0"):
        images, _, hours, _, mib = rows[name]
        assert int(images) > 40 and float(hours) >= 0 and float(mib) >= 0
    assert float(rows["anonymize-cldm-canny-1.0"][2]) > float(rows["anonymize-no_op"][2])
    assert "CLDMRAY_VERDICT" not in printed
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "o").exists()
