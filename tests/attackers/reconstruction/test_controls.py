"""Controls know nothing of the person, whatever they are shown."""

import numpy as np
import pytest

from cldmray.attackers.reconstruction.controls import (
    MeanFace,
    NearestTrainingFace,
    nearest_rows,
)
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.attackers.reconstruction.training import load_reconstructor
from cldmray.errors import BadInputError
from tests.attackers.reconstruction.fitting import fit, save_reconstructor

SEEDS = np.arange(12)


def grey(*levels: int) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), level, np.uint8) for level in levels])


def grey_pairs() -> ReconstructionPairs:
    codes = np.arange(3)
    return ReconstructionPairs(grey(0, 100, 200), codes, codes[::-1], grey(10, 21, 32), codes)


class TestMeanFace:
    def test_it_is_the_mean_image_whatever_it_is_shown(self):
        result = fit(MeanFace(), grey_pairs()).reconstruct(grey(0, 77), SEEDS[:2])
        np.testing.assert_array_equal(result, np.full((2, 1, 4, 4, 3), 21))

    def test_images_of_another_size_are_refused(self, pairs):
        reconstructor = fit(MeanFace(), grey_pairs())
        with pytest.raises(BadInputError, match="learnt from"):
            reconstructor.reconstruct(pairs.anonymized, SEEDS)

    def test_before_it_has_learnt_it_says_so(self):
        with pytest.raises(BadInputError, match="learnt nothing"):
            MeanFace().build().reconstruct(grey(0), SEEDS[:1])


class TestNearestTrainingFace:
    def test_it_shows_the_source_of_the_nearest_anonymized_image(self):
        result = fit(NearestTrainingFace(), grey_pairs()).reconstruct(grey(90, 160, 40), SEEDS[:3])
        assert result[:, 0, 0, 0, 0].tolist() == [21, 10, 32]

    def test_its_rows_are_those_of_a_slow_loop(self, pairs, others, monkeypatch):
        monkeypatch.setattr("cldmray.attackers.reconstruction.controls.CELLS", 3 * 32 * 32 * 3)
        asked, training_images = others.anonymized, pairs.anonymized
        slow = [
            min(range(12), key=lambda row: ((item.astype(int) - training_images[row]) ** 2).sum())
            for item in asked
        ]
        assert nearest_rows(asked, training_images).tolist() == slow

    def test_of_equals_it_shows_the_first(self):
        assert nearest_rows(grey(5, 7), grey(6, 6, 9)).tolist() == [0, 0]

    def test_no_queries_is_said(self):
        with pytest.raises(BadInputError, match="from no images"):
            NearestTrainingFace().build().reconstruct(grey(0), SEEDS[:1])


@pytest.mark.parametrize("control", [MeanFace(), NearestTrainingFace()])
def test_what_it_has_learnt_survives_in_a_file(control, pairs, others, tmp_path):
    reconstructor = fit(control, pairs)
    uri = str(tmp_path / "reconstruction_model.safetensors")
    save_reconstructor(reconstructor, uri)
    images = others.anonymized
    np.testing.assert_array_equal(
        load_reconstructor(control, uri).reconstruct(images, SEEDS),
        reconstructor.reconstruct(images, SEEDS),
    )
    assert control.is_control


def test_files_of_others_are_refused(pairs, tmp_path):
    uri = str(tmp_path / "reconstruction_model.safetensors")
    save_reconstructor(fit(MeanFace(), pairs), uri)
    with pytest.raises(
        BadInputError, match="of another reconstruction model than nearest_training_face"
    ):
        load_reconstructor(NearestTrainingFace(), uri)
    (tmp_path / "broken").write_bytes(b"no safetensors")
    with pytest.raises(BadInputError, match="cannot read the reconstruction model"):
        load_reconstructor(MeanFace(), str(tmp_path / "broken"))
    with pytest.raises(BadInputError, match="cannot read the reconstruction model"):
        load_reconstructor(MeanFace(), str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("images", "seeds"),
    [(np.zeros((1, 4, 4, 3)), 1), (np.zeros((4, 4, 3), np.uint8), 1), (grey(0, 1), 1)],
)
def test_other_arrays_are_refused(images, seeds):
    with pytest.raises(BadInputError, match="images must be|need as many seeds"):
        fit(MeanFace(), grey_pairs()).reconstruct(images, SEEDS[:seeds])


def test_names_tell_the_control():
    assert MeanFace().name == "mean_face"
    assert NearestTrainingFace(shuffled=True).name == "nearest_training_face-shuffled"
    assert MeanFace(label="mine").name == "mine"
    with pytest.raises(ValueError, match="label"):
        MeanFace(label="a/b")
