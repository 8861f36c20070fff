"""Controls know nothing of the person, whatever they are shown."""

import numpy as np
import pytest

from cldmray.attackers.reconstruction.controls import (
    MeanFaceInversion,
    NearestFaceInversion,
    nearest_rows,
)
from cldmray.attackers.reconstruction.pairs import InversionPairs
from cldmray.attackers.reconstruction.training import fit, load_inverter, save_inverter
from cldmray.errors import BadInputError

SEEDS = np.arange(12)


def grey(*levels: int) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), level, np.uint8) for level in levels])


def grey_pairs() -> InversionPairs:
    codes = np.arange(3)
    return InversionPairs(grey(0, 100, 200), codes, codes[::-1], grey(10, 21, 32), codes)


class TestMeanFace:
    def test_it_is_the_mean_photograph_whatever_it_is_shown(self):
        found = fit(MeanFaceInversion(), grey_pairs()).reconstruct(grey(0, 77), SEEDS[:2])
        np.testing.assert_array_equal(found, np.full((2, 1, 4, 4, 3), 21))

    def test_pictures_of_another_size_are_refused(self, pairs):
        inverter = fit(MeanFaceInversion(), grey_pairs())
        with pytest.raises(BadInputError, match="learnt from"):
            inverter.reconstruct(pairs.anonymized, SEEDS)

    def test_before_it_has_learnt_it_says_so(self):
        with pytest.raises(BadInputError, match="learnt nothing"):
            MeanFaceInversion().build().reconstruct(grey(0), SEEDS[:1])


class TestNearestTrainingFace:
    def test_it_shows_the_source_of_the_nearest_anonymized_picture(self):
        found = fit(NearestFaceInversion(), grey_pairs()).reconstruct(grey(90, 160, 40), SEEDS[:3])
        assert found[:, 0, 0, 0, 0].tolist() == [21, 10, 32]

    def test_its_rows_are_those_of_a_slow_loop(self, pairs, others, monkeypatch):
        monkeypatch.setattr("cldmray.attackers.reconstruction.controls.CELLS", 3 * 32 * 32 * 3)
        asked, known = others.anonymized, pairs.anonymized
        slow = [
            min(range(12), key=lambda row: ((one.astype(int) - known[row]) ** 2).sum())
            for one in asked
        ]
        assert nearest_rows(asked, known).tolist() == slow

    def test_of_equals_it_shows_the_first(self):
        assert nearest_rows(grey(5, 7), grey(6, 6, 9)).tolist() == [0, 0]

    def test_no_queries_is_said(self):
        with pytest.raises(BadInputError, match="from no pictures"):
            NearestFaceInversion().build().reconstruct(grey(0), SEEDS[:1])


@pytest.mark.parametrize("control", [MeanFaceInversion(), NearestFaceInversion()])
def test_what_it_has_learnt_survives_in_a_file(control, pairs, others, tmp_path):
    inverter = fit(control, pairs)
    uri = str(tmp_path / "inverter.safetensors")
    save_inverter(inverter, uri)
    shown = others.anonymized
    np.testing.assert_array_equal(
        load_inverter(control, uri).reconstruct(shown, SEEDS), inverter.reconstruct(shown, SEEDS)
    )
    assert control.is_control


def test_files_of_others_are_refused(pairs, tmp_path):
    uri = str(tmp_path / "inverter.safetensors")
    save_inverter(fit(MeanFaceInversion(), pairs), uri)
    with pytest.raises(BadInputError, match="of another inverter than nearest_training_face"):
        load_inverter(NearestFaceInversion(), uri)
    (tmp_path / "broken").write_bytes(b"no safetensors")
    with pytest.raises(BadInputError, match="cannot read the inverter"):
        load_inverter(MeanFaceInversion(), str(tmp_path / "broken"))
    with pytest.raises(BadInputError, match="cannot read the inverter"):
        load_inverter(MeanFaceInversion(), str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("pictures", "seeds"),
    [(np.zeros((1, 4, 4, 3)), 1), (np.zeros((4, 4, 3), np.uint8), 1), (grey(0, 1), 1)],
)
def test_other_arrays_are_refused(pictures, seeds):
    with pytest.raises(BadInputError, match="pictures must be|need as many seeds"):
        fit(MeanFaceInversion(), grey_pairs()).reconstruct(pictures, SEEDS[:seeds])


def test_names_tell_the_control():
    assert MeanFaceInversion().name == "mean_face"
    assert NearestFaceInversion(shuffled=True).name == "nearest_training_face-shuffled"
    assert MeanFaceInversion(label="mine").name == "mine"
    with pytest.raises(ValueError, match="label"):
        MeanFaceInversion(label="a/b")
