"""Probes learn what images show, from the attacker's people only."""

import numpy as np
import pyarrow as pa
import pytest

from cldmray.engine.map_stages import utility
from cldmray.engine.map_stages.utility import Probe, fit_probe, fit_probes, small_images
from cldmray.faces.records import ATTACKER, EVALUATION, FACES, encode_image


def shaded(levels):
    """One flat image for each level of grey."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 10, (len(levels), 32, 32, 3))
    return (np.asarray(levels)[:, None, None, None] + noise).astype(np.uint8)


def test_small_images_are_means():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :2, :2, 1] = (0, 255), (0, 0)
    features = small_images(image).reshape(16, 16, 3)
    assert features[0, 0, 1] == pytest.approx(64 / 255)
    assert features.sum() == pytest.approx(64 / 255)
    assert small_images(image[:0]).shape == (0, 768)


def test_the_highest_score_wins():
    probe = Probe("tone", ["dark", "light"], np.array([[-1.0], [1.0]]), np.array([0.5, -0.5]))
    assert probe.read(np.array([[0.4], [0.6]])) == ["dark", "light"]


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fitted_probe_tells_the_values_apart(classes):
    kinds = [str(place % classes) for place in range(30)]
    features = small_images(shaded([40 + 80 * int(kind) for kind in kinds]))
    probe = fit_probe("tone", features, kinds)
    assert probe is not None
    assert probe.classes == [str(kind) for kind in range(classes)]
    assert probe.read(features) == kinds
    assert probe.read(small_images(shaded([40, 120]))) == ["0", "1"]


def test_one_value_teaches_nothing():
    assert fit_probe("tone", np.zeros((3, 768)), ["a", "a", "a"]) is None
    assert fit_probe("tone", np.zeros((0, 768)), []) is None


def table(write_table, folder, levels, splits):
    rows = [
        {
            "sample_id": f"s{place}",
            "identity": f"p{place}",
            "split": split,
            "image": encode_image(image),
        }
        for place, (image, split) in enumerate(zip(shaded(levels), splits, strict=True))
    ]
    return write_table(str(folder), FACES, [[pa.Table.from_pylist(rows, FACES)]])


def test_only_attacker_people_with_a_known_value_teach(write_table, tmp_path):
    levels, splits = [20, 200, 20, 200, 90], [ATTACKER] * 3 + [EVALUATION] * 2
    faces = table(write_table, tmp_path, levels, splits)
    groups = pa.table(
        {
            "identity": [f"p{place}" for place in range(5)],
            "tone": ["dark", "light", None, "EVALUATED", "EVALUATED"],
            "same": ["x"] * 5,
        }
    )
    (probe,) = fit_probes(faces, groups)
    assert probe.attribute == "tone"
    assert probe.classes == ["dark", "light"]
    assert probe.read(small_images(shaded([30, 210]))) == ["dark", "light"]


def test_the_number_of_images_is_bounded(write_table, tmp_path, monkeypatch):
    faces = table(write_table, tmp_path, [20, 200] * 4, [ATTACKER] * 8)
    seen = []
    monkeypatch.setattr(utility, "MOST_IMAGES", 3)
    monkeypatch.setattr(
        utility, "fit_probe", lambda name, features, labels: seen.append(len(labels))
    )
    groups = pa.table({"identity": [f"p{i}" for i in range(8)], "tone": ["a", "b"] * 4})
    assert fit_probes(faces, groups) == []
    assert seen == [3]


def test_without_attacker_people_there_is_no_probe(write_table, tmp_path):
    faces = table(write_table, tmp_path, [20, 200], [EVALUATION] * 2)
    groups = pa.table({"identity": ["p0", "p1"], "tone": ["a", "b"]})
    assert fit_probes(faces, groups) == []
