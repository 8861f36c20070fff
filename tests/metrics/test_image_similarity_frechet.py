"""Fréchet distance: closed forms, and the textbook's square root of a product."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.image_similarity import frechet_distance


def with_moments(mean, covariance, count=40):
    """Features whose mean and unbiased covariance are exactly these."""
    noise = np.random.default_rng(1).normal(size=(count, len(mean)))
    noise -= noise.mean(0)
    whitened = noise @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(noise.T)))).T
    return whitened @ np.linalg.cholesky(np.asarray(covariance, float)).T + mean


def test_two_gaussians_on_a_line():
    a, b = with_moments([1.0], [[4.0]]), with_moments([4.0], [[25.0]], count=70)
    assert frechet_distance(a, b) == pytest.approx((4 - 1) ** 2 + (5 - 2) ** 2)


def test_diagonal_gaussians():
    a = with_moments([0.0, 0.0], np.diag([1.0, 9.0]))
    b = with_moments([3.0, 4.0], np.diag([16.0, 4.0]))
    assert frechet_distance(a, b) == pytest.approx(25 + (4 - 1) ** 2 + (3 - 2) ** 2)


def test_covariances_that_do_not_commute():
    s, t = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 5.0])
    # The eigenvalues of S T solve x^2 - 12 x + 15 = 0; (sqrt x1 + sqrt x2)^2 = 12 + 2 sqrt 15.
    expected = 4 + 6 - 2 * np.sqrt(12 + 2 * np.sqrt(15))
    squared_distance = frechet_distance(with_moments([0, 0], s), with_moments([0, 0], t))
    assert squared_distance == pytest.approx(expected)


def test_a_set_is_at_no_distance_from_itself():
    features = np.random.default_rng(0).normal(size=(20, 64))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_it_is_symmetric_and_moves_with_the_mean():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 5)), rng.normal(size=(60, 5)) * 2
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a + 2) == pytest.approx(5 * 4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4))),
        (np.zeros((1, 2)), np.zeros((3, 2))),
        (np.zeros(3), np.zeros(3)),
        (np.full((3, 2), np.nan), np.zeros((3, 2))),
    ],
)
def test_bad_input_is_refused(first, second):
    with pytest.raises(BadInputError, match="features must"):
        frechet_distance(first, second)
