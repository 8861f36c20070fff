"""Intervals of means and of any statistic over identities."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import bootstrap_identities, bootstrap_mean, bootstrap_statistic


def test_rates_have_the_interval_of_rates():
    rng = np.random.default_rng(0)
    values, identities = rng.integers(0, 2, 90).astype(float), rng.integers(0, 30, 90)
    expected = bootstrap_identities(values, identities)
    assert bootstrap_mean(values, identities) == pytest.approx(expected)


def test_the_unit_does_not_matter():
    rng = np.random.default_rng(0)
    values, identities = rng.normal(size=90), rng.integers(0, 30, 90)
    unscaled, scaled = (
        bootstrap_mean(values, identities),
        bootstrap_mean(10 * values - 40, identities),
    )
    assert unscaled.value == pytest.approx(values.mean())
    assert scaled == pytest.approx([10 * bound - 40 for bound in unscaled])


def test_its_width_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap_mean(values, np.arange(400))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    repeated = bootstrap_mean(np.repeat(values, 5), np.repeat(np.arange(400), 5))
    assert repeated == pytest.approx(interval)


def test_equal_values_have_no_width():
    assert bootstrap_mean([3.0, 3.0], np.array([0, 1])) == pytest.approx((3, 3, 3))


@pytest.mark.parametrize("values", [[], [np.inf], [[1.0]]])
def test_bad_values_are_refused(values):
    with pytest.raises(BadInputError, match="finite"):
        bootstrap_mean(values, np.zeros(len(values)))


def test_a_statistic_of_means_has_the_width_of_the_mean():
    rng = np.random.default_rng(0)
    values, identities = np.repeat(rng.normal(5, 2, 200), 3), np.repeat(np.arange(200), 3)
    mean = bootstrap_mean(values, identities)
    interval = bootstrap_statistic(lambda rows: values[rows].mean(), identities, n_bootstrap=400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.value - interval.low == pytest.approx(interval.high - interval.value)
    assert interval.high - interval.low == pytest.approx(mean.high - mean.low, rel=0.15)


def test_people_are_drawn_with_all_their_images():
    identities = np.array(["b", "a", "b", "a", "b"])

    def count(rows):
        drawn = identities[rows]
        assert (drawn == "b").sum() % 3 == 0
        assert (drawn == "a").sum() % 2 == 0
        return float(len(rows))

    assert bootstrap_statistic(count, identities).value == 5


@pytest.mark.parametrize("options", [{"confidence_level": 1.0}, {"n_bootstrap": 1}])
def test_bad_options_are_refused(options):
    with pytest.raises(BadInputError, match="must lie in"):
        bootstrap_statistic(lambda rows: 0.0, np.array([0, 1]), **options)
