"""Intervals: hand-computed numbers, a loop twin of the bootstrap, and coverage on simulations."""

import numpy as np
import pytest

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import (
    bootstrap_columns,
    bootstrap_identities,
    check_paired,
    paired_bootstrap,
    resampled_counts,
    wilson,
)


def clustered(rng, n_identities, rate=0.3, probes=(1, 9), concentration=3.0):
    """Successes and identities; each person has an own rate drawn around ``rate``."""
    sizes = rng.integers(*probes, size=n_identities)
    own = rng.beta(concentration * rate, concentration * (1 - rate), size=n_identities)
    identities = np.repeat(np.arange(n_identities), sizes)
    return (rng.random(sizes.sum()) < own[identities]).astype(float), identities


def test_wilson_published_values():
    value, low, high = wilson(0, 10)
    assert (value, low) == (0, 0)
    assert high == pytest.approx(0.2775, abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((1.0, 0.7225, 1.0), abs=1e-4)
    assert wilson(1, 10) == pytest.approx((0.1, 0.0179, 0.4042), abs=1e-4)


def test_wilson_bounds_solve_the_score_equation():
    value, low, high = wilson(7, 40, confidence_level=0.9)
    for bound in (low, high):
        z = abs(value - bound) / np.sqrt(bound * (1 - bound) / 40)
        assert z == pytest.approx(1.6448536, abs=1e-6)


def test_bootstrap_equals_explicit_resampling():
    rng = np.random.default_rng(0)
    success, identities = clustered(rng, 30)
    interval = bootstrap_identities(success, identities, n_bootstrap=4000)
    assert interval.value == pytest.approx(success.mean(), abs=1e-12)

    groups = [success[identities == identity] for identity in range(30)]
    rates = []
    for _ in range(4000):
        sampled = [groups[i] for i in rng.integers(0, 30, size=30)]
        rates.append(np.concatenate(sampled).mean())
    low, high = np.quantile(rates, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_bootstrap_does_not_depend_on_the_order_of_probes():
    rng = np.random.default_rng(1)
    success, identities = clustered(rng, 40)
    success = success / rng.integers(1, 8, size=len(success))
    names = np.array([f"person {i}" for i in identities])
    order = rng.permutation(len(success))
    first = bootstrap_identities(success, names)
    assert bootstrap_identities(success[order], names[order]) == first
    assert bootstrap_identities(success, names) == first
    assert bootstrap_identities(success, names, seed=1) != first


def test_bootstrap_in_small_blocks_is_the_same(monkeypatch):
    success, identities = clustered(np.random.default_rng(2), 40)
    whole = bootstrap_identities(success, identities)
    monkeypatch.setattr("cldmray.metrics.confidence.CELLS_PER_CHUNK", 333)
    assert bootstrap_identities(success, identities) == whole


@pytest.mark.parametrize(("cells", "kept"), [(4_000_000, 0), (70, 4_000_000), (70, 0)])
def test_kept_draws_are_those_of_the_generator(monkeypatch, cells, kept):
    monkeypatch.setattr("cldmray.metrics.confidence.CELLS_PER_CHUNK", cells)
    monkeypatch.setattr("cldmray.metrics.confidence.CACHED_CELLS", kept)
    expected = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=40)
    for _ in range(2):
        blocks = list(resampled_counts(9, 40, 5, width=20))
        assert max(len(block) for block in blocks) <= max(1, cells // 20)
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        for block in blocks:
            block[:] = -1


def test_columns_equal_single_measures():
    rng = np.random.default_rng(3)
    success, identities = clustered(rng, 25)
    columns = np.stack([success, np.zeros_like(success), rng.random(len(success))], axis=1)
    together = bootstrap_columns(columns, identities)
    assert together == [bootstrap_identities(column, identities) for column in columns.T]


def test_images_of_one_person_are_not_independent():
    identities = np.repeat(np.arange(10), 50)
    success = (identities < 3).astype(float)
    naive = wilson(success.sum(), len(success))
    honest = bootstrap_identities(success, identities)
    assert honest.high - honest.low > 4 * (naive.high - naive.low)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_equal_outcomes_fall_back_to_wilson_over_identities(rate):
    identities = np.repeat(np.arange(20), 10)
    interval = bootstrap_identities(np.full(200, rate), identities)
    assert interval == wilson(rate * 20, 20)
    assert interval.high - interval.low > 0.1


def test_a_collapsed_encoder_and_a_single_person_have_width():
    identities = np.repeat(np.arange(20), np.arange(1, 21))
    interval = bootstrap_identities(np.full(210, 1 / 3), identities)
    assert interval.low < 1 / 3 - 0.1 and interval.high > 1 / 3 + 0.1
    single = bootstrap_identities([1.0, 0.0], np.array(["a", "a"]))
    assert single == wilson(0.5, 1)


@pytest.mark.parametrize(("n", "rate"), [(60, 0.3), (40, 0.1)])
def test_coverage_on_simulated_people(n, rate):
    rng = np.random.default_rng(4)
    trials = 200
    covered = 0
    for _ in range(trials):
        success, identities = clustered(rng, n, rate)
        _, low, high = bootstrap_identities(success, identities, n_bootstrap=400)
        covered += low <= rate <= high
    assert 0.88 <= covered / trials <= 0.99


def test_paired_is_sharper_than_unpaired_and_covers():
    rng = np.random.default_rng(5)
    a, identities = clustered(rng, 80, 0.5)
    b = np.where(rng.random(len(a)) < 0.1, 0.0, a)
    paired = paired_bootstrap(a, b, identities)
    assert paired.value == pytest.approx(a.mean() - b.mean())
    assert 0 < paired.low < paired.value < paired.high
    single = bootstrap_identities(a, identities)
    assert paired.high - paired.low < 0.6 * (single.high - single.low)
    mirrored = paired_bootstrap(b, a, identities)
    assert mirrored.value == -paired.value


def test_equal_settings_keep_a_width():
    identities = np.repeat(np.arange(30), 4)
    success = np.tile([0.0, 1.0], 60)
    unseen = wilson(0, 30).high
    interval = paired_bootstrap(success, success, identities)
    assert interval == pytest.approx((0, -unseen, unseen))
    ones, zeros = np.ones(120), np.zeros(120)
    assert paired_bootstrap(ones, zeros, identities) == pytest.approx((1, 1 - 2 * unseen, 1))
    assert paired_bootstrap(zeros, ones, identities) == pytest.approx((-1, -1, 2 * unseen - 1))


@pytest.mark.parametrize(
    ("success", "identities", "options"),
    [
        ([0.5, 1.5], [0, 1], {}),
        ([0.5, np.nan], [0, 1], {}),
        ([], [], {}),
        ([0.5], [0, 1], {}),
        ([[0.5]], [0], {}),
        ([0.0, 1.0], [0, 1], {"confidence_level": 1.0}),
        ([0.0, 1.0], [0, 1], {"n_bootstrap": 0}),
    ],
)
def test_bad_input_is_refused(success, identities, options):
    with pytest.raises(BadInputError):
        bootstrap_identities(success, np.asarray(identities), **options)


@pytest.mark.parametrize(
    ("a", "b", "confidence_level", "message"),
    [
        ([0.0], [0.0, 1.0], 0.95, r"share a shape \(P,\): \(1,\), \(2,\)"),
        ([[0.5]], [[0.5]], 0.95, "share a shape"),
        ([], [], 0.95, r"P, M >= 1, not \(0, 2\)"),
        ([0.5], [1.5], 0.95, "lie in"),
        ([np.nan], [0.5], 0.95, "lie in"),
        ([0.5], [0.5], 0.0, "confidence_level"),
    ],
)
def test_bad_pairs_are_refused(a, b, confidence_level, message):
    with pytest.raises(BadInputError, match=message):
        check_paired(a, b, confidence_level)
    with pytest.raises(BadInputError, match=message):
        paired_bootstrap(a, b, np.zeros(len(a)), confidence_level=confidence_level)


def test_bad_proportions_are_refused():
    with pytest.raises(BadInputError, match="no proportion"):
        wilson(3, 2)
    assert isinstance(wilson(1, 2), Interval)
