"""Intervals of rates: hand-computed numbers, a loop twin, continuity, and simulated coverage."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest, t

from cldmray.errors import BadInputError
from cldmray.metrics.rates import (
    clopper_pearson,
    design_effects,
    effective_trials,
    rate_interval,
    rate_intervals,
)

AFTER_36 = 1 - 0.05 / 36
"""Level of one of 36 attacks that are to hold together at 95 % (Bonferroni)."""


def hits_of(n_hits: int, n_identities: int = 100, images: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Successes of which each is an image of another identity."""
    success = np.zeros((n_identities, images))
    success[:n_hits, 0] = 1
    return success.ravel(), np.repeat(np.arange(n_identities), images)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10), (1, 700)])
def test_one_image_of_each_identity_gives_clopper_and_pearsons_interval(hits, trials):
    expected = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    value, low, high = rate_interval(np.arange(trials) < hits, np.arange(trials))
    assert (value, low, high) == pytest.approx((hits / trials, expected.low, expected.high))


def test_the_design_effect_by_hand():
    # Identities with 2, 2 and 4 images: 2, 0 and 1 successes, so the rate is 3/8.
    sums, sizes = np.array([[2.0, 0.0, 1.0]]), np.array([2.0, 2.0, 4.0])
    beyond = np.array([2 - 0.75, 0 - 0.75, 1 - 1.5])
    variance = (beyond**2).sum() / 8**2 * 3 / 2
    assert design_effects(sums, sizes) == pytest.approx([variance / (0.375 * 0.625 / 7)])
    assert design_effects(np.array([[0, 0, 0], [2, 2, 4.0]]), sizes).tolist() == [1, 1]
    assert design_effects(np.array([[1.0]]), np.array([2.0])).tolist() == [1]


def test_the_interval_equals_its_definition_step_by_step():
    success = np.array([1, 1, 0, 0, 1, 0, 0, 0.0])
    identities = np.array(list("aabbcccc"))
    rate, effect = 3 / 8, float(design_effects(np.array([[2, 0, 1.0]]), np.array([2, 2, 4.0]))[0])
    alike = (4 + 4 + 16) / 8
    n_informative = min(
        sum(1 - (1 - rate) ** size for size in (2, 2, 4)), sum(1 - rate**size for size in (2, 2, 4))
    )
    weight = n_informative / (n_informative + 7)
    trials = 8 / (weight * effect + (1 - weight) * (1 + (alike - 1) / 2))
    fewer = trials * (t.ppf(0.975, 7) / t.ppf(0.975, 2)) ** 2
    trials = max(fewer, min(trials, 8 / alike))
    hits = trials * rate
    _, low, high = rate_interval(success, identities)
    assert low == pytest.approx(beta.ppf(0.025, hits, trials - hits + 1))
    assert high == pytest.approx(beta.ppf(0.975, hits + 1, trials - hits))


def test_without_a_success_images_are_taken_to_be_half_alike():
    sizes = np.full(100, 9.0)
    trials = effective_trials(np.zeros(1), np.ones(1), sizes, 0.95)
    assert trials == pytest.approx(900 / 5 * (t.ppf(0.975, 899) / t.ppf(0.975, 99)) ** 2)
    assert rate_interval(*hits_of(0)).high == pytest.approx(1 - 0.025 ** (1 / trials[0]))


def test_bounds_of_fractions_lie_between_those_of_whole_numbers():
    three = clopper_pearson(np.array([1.0, 1.5, 2.0]), np.full(3, 10.0))
    assert (np.diff(three.low) > 0).all() and (np.diff(three.high) > 0).all()
    success, identities = hits_of(2)
    halves = [rate_interval(success * share, identities) for share in (0.5, 0.75, 1.0)]
    assert [interval.value for interval in halves] == pytest.approx([1 / 900, 1.5 / 900, 2 / 900])
    assert halves[0].high < halves[1].high < halves[2].high


def test_the_upper_bound_grows_from_no_hit_on():
    highs = [rate_interval(*hits_of(n_hits)).high for n_hits in (0, 1, 2, 3, 9, 18)]
    assert (np.diff(highs) > 0).all()
    assert highs[:2] == pytest.approx([0.0207, 0.0209], abs=1e-4)


@pytest.mark.parametrize("confidence_level", [0.95, AFTER_36])
@pytest.mark.parametrize("shape", [(5, 9), (10, 9), (60, 10), (100, 2), (100, 50)])
def test_no_hit_more_lowers_a_bound(shape, confidence_level):
    success = np.stack([hits_of(n_hits, *shape)[0] for n_hits in range(shape[0] + 1)], axis=1)
    identities = np.repeat(np.arange(shape[0]), shape[1])
    few = rate_intervals(success[:, :3], identities, confidence_level=confidence_level)
    assert few[0].high <= few[1].high + 1e-12 and few[0].high <= few[2].high + 1e-12
    lows = [interval.low for interval in few]
    assert lows == sorted(lows) and lows[0] == 0


def test_failures_mirror_successes():
    rng = np.random.default_rng(0)
    identities = rng.integers(0, 12, 60)
    success = rng.random(60).round(1)
    value, low, high = rate_interval(success, identities)
    assert rate_interval(1 - success, identities) == pytest.approx((1 - value, 1 - high, 1 - low))


def test_images_of_one_person_are_not_independent():
    identities = np.repeat(np.arange(10), 50)
    over_identities = rate_interval(identities < 3, identities)
    over_images = rate_interval(identities < 3, np.arange(500))
    assert over_identities.high - over_identities.low > 4 * (over_images.high - over_images.low)


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_trainings_make_images_no_more_numerous(trainings):
    """100 people with one image each, whom nobody identifies: at most 3.6 %, however often."""
    samples = np.tile(np.arange(100), trainings)
    failures = np.zeros(100 * trainings)
    interval = rate_interval(failures, samples, samples=samples)
    assert interval == rate_interval(np.zeros(100), np.arange(100))
    assert interval.high == pytest.approx(0.0362, abs=5e-5)
    success, identities = hits_of(70)
    images = np.arange(len(success))
    repeated = rate_interval(
        np.tile(success, trainings),
        np.tile(identities, trainings),
        samples=np.tile(images, trainings),
    )
    assert repeated == pytest.approx(rate_interval(success, identities))


def test_probes_may_weigh_less_than_a_trial():
    success, identities = hits_of(70)
    thrice = rate_interval(np.tile(success, 3), np.tile(identities, 3), weight=1 / 3)
    assert thrice == pytest.approx(rate_interval(success, identities))
    with pytest.raises(BadInputError, match="weight must lie"):
        rate_interval(success, identities, weight=0.0)


def test_a_collapsed_encoder_and_a_single_person_have_width():
    identities = np.repeat(np.arange(20), np.arange(1, 21))
    interval = rate_interval(np.full(210, 1 / 3), identities)
    assert interval.low < 1 / 3 - 0.05 and interval.high > 1 / 3 + 0.05
    single = rate_interval([1.0, 0.0], np.array(["a", "a"]))
    assert single.low < 0.1 and single.high > 0.9


def test_the_order_of_probes_and_other_columns_change_nothing():
    rng = np.random.default_rng(1)
    identities = np.array([f"person {i}" for i in rng.integers(0, 25, 100)])
    columns = np.stack([rng.random(100) < 0.2, np.zeros(100), rng.random(100)], axis=1)
    together = rate_intervals(columns, identities)
    assert together == [rate_interval(column, identities) for column in columns.T]
    order = rng.permutation(100)
    assert rate_intervals(columns[order], identities[order]) == together


def test_higher_levels_contain_lower_ones():
    success, identities = hits_of(4, 30, 5)
    narrow, wide = (
        rate_interval(success, identities, confidence_level=level) for level in (0.95, AFTER_36)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


CELLS = [
    (100, 0.02, 0.0),
    (100, 0.02, 0.2),
    (100, 0.02, 0.5),
    (100, 0.1, 0.2),
    (100, 0.95, 0.2),
    (100, 0.5, 0.2),
    (30, 0.06, 0.2),
    (30, 0.06, 0.5),
    (10, 0.1, 0.2),
    (10, 0.1, 0.5),
    (5, 0.1, 0.2),
    (5, 0.1, 0.5),
]


@pytest.mark.parametrize("sizes", ["nine", "unequal"])
@pytest.mark.parametrize(("n_identities", "rate", "correlation"), CELLS)
def test_coverage_and_upper_bounds_on_correlated_images(n_identities, rate, correlation, sizes):
    rng = np.random.default_rng(2)
    counts = np.full(n_identities, 9)
    if sizes == "unequal":
        counts = np.resize([1, 2, 3, 5, 8, 10, 15, 20, 30, 2], n_identities)
    shape = (n_identities, 600)
    own = np.full(shape, rate)
    if correlation:
        strength = 1 / correlation - 1
        own = rng.beta(rate * strength, (1 - rate) * strength, shape)
    identities = np.repeat(np.arange(n_identities), counts)
    success = rng.random((len(identities), 600)) < own[identities]
    intervals = np.array(rate_intervals(success, identities))
    above, below = (intervals[:, 2] < rate).mean(), (intervals[:, 1] > rate).mean()
    assert above <= 0.04
    assert above + below <= 0.07


@pytest.mark.parametrize(
    ("success", "identities", "confidence_level"),
    [
        ([0.5, 1.5], [0, 1], 0.95),
        ([0.5, np.nan], [0, 1], 0.95),
        ([], [], 0.95),
        ([0.5], [0, 1], 0.95),
        ([[0.5]], [0], 0.95),
        ([0.0, 1.0], [0, 1], 1.0),
    ],
)
def test_bad_input_is_refused(success, identities, confidence_level):
    with pytest.raises(BadInputError):
        rate_interval(success, np.asarray(identities), confidence_level=confidence_level)
