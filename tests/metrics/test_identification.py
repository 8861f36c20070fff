"""Identification measures: hand-computed numbers and a simulation of random tie-breaking."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.identification import (
    chance,
    cmc,
    expected_rank,
    mean_reciprocal_rank,
    reciprocal_rank,
    success_at_rank,
)

BETTER = np.array([0, 2, 0, 1])
TIES = np.array([0, 0, 3, 1])


def test_success_at_rank_by_hand():
    np.testing.assert_allclose(success_at_rank(BETTER, TIES, 1), [1, 0, 0.25, 0])
    np.testing.assert_allclose(success_at_rank(BETTER, TIES, 2), [1, 0, 0.5, 0.5])
    np.testing.assert_allclose(success_at_rank(BETTER, TIES, 3), [1, 1, 0.75, 1])


def test_cmc_is_the_mean_and_never_falls():
    curve = cmc(BETTER, TIES, [1, 2, 3, 4])
    np.testing.assert_allclose(curve, [0.3125, 0.5, 0.9375, 1.0])
    assert np.all(np.diff(curve) >= 0)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_a_collapsed_encoder_scores_exactly_chance(k):
    gallery = 50
    collapsed = np.full(7, gallery - 1)
    rates = success_at_rank(np.zeros(7, int), collapsed, k)
    np.testing.assert_allclose(rates, chance(k, gallery), rtol=1e-15)
    np.testing.assert_allclose(expected_rank(np.zeros(7, int), collapsed), 25.5)


def test_reciprocal_rank_by_hand():
    expected = [1, 1 / 3, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, (1 / 2 + 1 / 3) / 2]
    np.testing.assert_allclose(reciprocal_rank(BETTER, TIES), expected)
    assert mean_reciprocal_rank(BETTER, TIES) == pytest.approx(np.mean(expected))


def test_expected_rank_by_hand():
    np.testing.assert_allclose(expected_rank(BETTER, TIES), [1, 3, 2.5, 2.5])


def test_all_measures_match_simulated_tie_breaking():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 4, size=(5, 8))
    true = rng.integers(0, 8, size=5)
    own = scores[np.arange(5), true]
    n_higher = (scores > own[:, None]).sum(axis=1)
    n_tied = (scores == own[:, None]).sum(axis=1) - 1

    draws = 4000
    ranks = np.zeros((draws, 5))
    for draw in range(draws):
        for probe in range(5):
            noise = rng.random(8) * 0.5
            order = np.argsort(-(scores[probe] + noise))
            ranks[draw, probe] = 1 + list(order).index(true[probe])

    np.testing.assert_allclose(expected_rank(n_higher, n_tied), ranks.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(
        reciprocal_rank(n_higher, n_tied), (1 / ranks).mean(axis=0), atol=0.03
    )
    for k in (1, 2, 5):
        simulated = (ranks <= k).mean(axis=0)
        np.testing.assert_allclose(success_at_rank(n_higher, n_tied, k), simulated, atol=0.03)


def test_chance_by_hand():
    assert chance(1, 100) == 0.01
    assert chance(5, 100) == 0.05
    assert chance(10, 4) == 1.0


@pytest.mark.parametrize(
    ("n_higher", "n_tied"),
    [
        ([0.0], [0]),
        ([-1], [0]),
        ([0, 1], [0]),
        (np.zeros(0, int), np.zeros(0, int)),
        ([[0]], [[0]]),
    ],
)
def test_bad_counts_are_refused(n_higher, n_tied):
    with pytest.raises(BadInputError):
        success_at_rank(np.asarray(n_higher), np.asarray(n_tied), 1)


def test_bad_ranks_and_galleries_are_refused():
    with pytest.raises(BadInputError, match="rank k"):
        success_at_rank(BETTER, TIES, 0)
    with pytest.raises(BadInputError, match="gallery_size"):
        chance(1, 0)
