"""Recovery: numbers computed by hand."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import paired_bootstrap
from cldmray.metrics.image_similarity import psnr, ssim
from cldmray.metrics.reconstruction import fidelity, rank_1_gain


class TestFidelity:
    def test_is_the_mean_over_the_guesses_by_hand(self):
        images = np.full((2, 12, 12, 3), 100, np.uint8)
        guesses = np.stack([images + 1, images + 10], axis=1)
        likeness = fidelity(images, guesses)
        by_hand = (20 * np.log10(255) + 20 * np.log10(25.5)) / 2
        np.testing.assert_allclose(likeness.psnr, [by_hand, by_hand])
        constants = (0.01 * 255) ** 2
        single, ten = (
            (2 * 100 * confidence_level + constants) / (100**2 + confidence_level**2 + constants)
            for confidence_level in (101, 110)
        )
        np.testing.assert_allclose(likeness.ssim, [(single + ten) / 2] * 2)

    def test_one_guess_is_the_measure_itself(self):
        originals, images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3))
        likeness = fidelity(originals, images[:, None])
        np.testing.assert_array_equal(likeness.psnr, psnr(originals, images))
        np.testing.assert_array_equal(likeness.ssim, ssim(originals, images))

    def test_a_small_peak_shifts_the_ratio(self):
        images = np.zeros((1, 12, 12, 1))
        assert fidelity(images, images[:, None] + 0.1, peak=1.0).psnr[0] == pytest.approx(20)

    @pytest.mark.parametrize("shape", [(2, 12, 12, 3), (2, 0, 12, 12, 3), (1, 1, 12, 12, 3)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(BadInputError, match="guesses must have shape"):
            fidelity(np.zeros((2, 12, 12, 3)), np.zeros(shape))


class TestRank1Gain:
    def test_counts_both_sides_by_hand(self):
        identities = ["a", "a", "b", "b", "c"]
        gain = rank_1_gain([1, 1, 1, 0, 0.5], [0, 1, 0, 1, 0], identities, n_bootstrap=500)
        assert gain.value == pytest.approx((3.5 - 2) / 5)
        assert gain.low <= gain.value <= gain.high
        assert gain == paired_bootstrap(
            [1, 1, 1, 0, 0.5], [0, 1, 0, 1, 0], identities, n_bootstrap=500
        )

    def test_is_paired_probes_that_change_nothing_add_no_doubt(self):
        identities = np.repeat(np.arange(40), 2)
        raw = (np.arange(80) % 4 < 2).astype(float)
        rebuilt = raw.copy()
        rebuilt[[2, 6, 10, 14]] = 1.0
        gain = rank_1_gain(rebuilt, raw, identities)
        assert gain.value == pytest.approx(4 / 80)
        assert 0 < gain.low < gain.high <= 0.1

    def test_a_loss_is_negative(self):
        assert rank_1_gain([0, 0, 1], [1, 0, 1], [0, 1, 2]).value == pytest.approx(-1 / 3)

    def test_shapes_that_differ_are_refused(self):
        with pytest.raises(BadInputError, match="share a shape"):
            rank_1_gain([1, 0], [1], ["a", "b"])
