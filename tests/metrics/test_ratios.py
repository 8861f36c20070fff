"""Ratios of rates: hand-computed numbers, loop twins, and what happens where they are undefined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import wilson
from cldmray.metrics.ratios import (
    ratio_interval,
    share_interval,
)


def identities(rng, n=30, a=0.3, b=0.6):
    labels = np.repeat(np.arange(n), rng.integers(1, 6, size=n))
    ease = rng.normal(0, 0.15, n)[labels]
    luck = rng.random(len(labels))
    return (luck < a + ease).astype(float), (luck < b + ease).astype(float), labels


def brute(a, b, labels, measure, n_bootstrap, seed):
    n = labels.max() + 1
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    return [measure(a @ counts[labels], b @ counts[labels]) for counts in draws]


def test_values_by_hand():
    a, b, labels = [1, 0, 0.5, 0], [1, 1, 1, 0], np.array([0, 0, 1, 1])
    assert ratio_interval(a, b, labels).value == 0.5
    assert share_interval(a, b, labels).value == pytest.approx(1.5 / 4.5)
    assert share_interval(a, b, labels, chance=0.25).value == pytest.approx(0.125 / 0.625)
    assert share_interval(a, b, labels, chance=0.5).value == 0


def test_ratios_equal_a_loop_over_resamples():
    a, b, labels = identities(np.random.default_rng(0))
    interval = ratio_interval(a, b, labels, confidence_level=0.9, n_bootstrap=400, seed=1)
    twin = sorted(brute(a, b, labels, lambda x, y: x / y, 400, 1))
    assert interval.low == pytest.approx(twin[19])
    assert interval.high == pytest.approx(twin[379])
    assert interval.low < interval.value < interval.high


def test_shares_equal_a_loop_over_resamples():
    a, b, labels = identities(np.random.default_rng(1), b=0.1)
    interval = share_interval(a, b, labels, confidence_level=0.9, n_bootstrap=400, seed=2)
    twin = brute(a, b, labels, lambda x, y: x / (x + y), 400, 2)
    assert interval[1:] == pytest.approx(np.quantile(twin, [0.05, 0.95]))


def test_shares_beyond_guessing_equal_a_loop_over_resamples():
    a, b, labels = identities(np.random.default_rng(4), b=0.1)
    interval = share_interval(
        a, b, labels, confidence_level=0.9, n_bootstrap=400, seed=2, chance=0.08
    )
    n = labels.max() + 1
    twin = []
    for counts in np.random.default_rng(2).multinomial(n, np.full(n, 1 / n), size=400):
        times = counts[labels]
        beyond = [max(success @ times - 0.08 * times.sum(), 0.0) for success in (a, b)]
        if sum(beyond):
            twin.append(beyond[0] / sum(beyond))
    assert interval[1:] == pytest.approx(np.quantile(twin, [0.05, 0.95]))
    assert interval.value > share_interval(a, b, labels).value


@pytest.mark.parametrize(("chance", "message"), [(0.75, "above chance"), (1.0, "in"), (-0.1, "in")])
def test_no_share_by_chance(chance, message):
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(BadInputError, match=message):
        share_interval([1, 1, 1, 0], [0, 1, 0, 0], labels, chance=chance)


def test_pairing_makes_a_ratio_sharper():
    rng = np.random.default_rng(3)
    a, b, labels = identities(rng, 60, 0.5, 0.6)
    paired = ratio_interval(a, b, labels)
    other = labels.max() - labels
    order = np.argsort(other, kind="stable")
    shuffled = ratio_interval(a, rng.permutation(b[order]), labels)
    assert paired.high - paired.low < 0.6 * (shuffled.high - shuffled.low)


def test_the_order_of_probes_changes_nothing():
    rng = np.random.default_rng(4)
    a, b, labels = identities(rng)
    a = a / rng.integers(1, 8, size=len(a))
    order = rng.permutation(len(a))
    for measure in (ratio_interval, share_interval):
        assert measure(a[order], b[order], labels[order]) == measure(a, b, labels)


def test_a_rare_denominator_leaves_the_ratio_unbounded():
    labels = np.arange(8)
    a, b = np.tile([1.0, 0.0], 4), np.array([1.0, 0, 0, 0, 0, 0, 0, 0])
    interval = ratio_interval(a, b, labels, n_bootstrap=1000)
    assert interval.value == 4
    assert 0 < interval.low < 4 and interval.high == np.inf


def test_resamples_without_any_success_are_left_out():
    labels = np.arange(5)
    a, b = np.array([1.0, 0, 0, 0, 0]), np.array([1.0, 1.0, 0, 0, 0])
    for measure, bound in ((ratio_interval, 1.0), (share_interval, 0.5)):
        interval = measure(a, b, labels)
        assert interval.low == 0 and interval.high == pytest.approx(bound)


def test_equal_ratios_keep_a_width():
    labels = np.repeat(np.arange(30), 2)
    half = np.tile([1.0, 0.0], 30)
    unseen = wilson(0, 30).high
    same = ratio_interval(half, half, labels)
    low = 0.5 * (1 - unseen) / (0.5 * (1 - unseen) + unseen)
    assert same == pytest.approx((1, low, 1 / low))
    none = ratio_interval(np.zeros(60), half, labels)
    assert none == pytest.approx((0, 0, unseen / (0.5 * (1 - unseen))))


def test_equal_shares_are_wilsons_over_people_with_a_success():
    labels = np.repeat(np.arange(10), 2)
    a = np.zeros(20)
    a[:6] = 1.0
    assert share_interval(a, np.zeros(20), labels) == wilson(3, 3)
    assert share_interval(np.zeros(20), a, labels) == wilson(0, 3)
    assert share_interval(a, a, labels) == wilson(1.5, 3)


def test_coverage_of_a_ratio():
    rng = np.random.default_rng(5)
    a, b, _ = identities(rng, 30_000)
    truth, covered = a.mean() / b.mean(), 0
    for _ in range(150):
        interval = ratio_interval(*identities(rng, 50), n_bootstrap=300)
        covered += interval.low <= truth <= interval.high
    assert 0.88 <= covered / 150 <= 0.99


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1))
def test_no_bound_is_ever_undefined(rows):
    a, b, labels = (np.array(part, float) for part in zip(*rows, strict=True))
    for measure, defined in (
        (ratio_interval, b.any()),
        (share_interval, a.any() or b.any()),
    ):
        if not defined:
            with pytest.raises(BadInputError):
                measure(a, b, labels, n_bootstrap=30)
            continue
        interval = measure(a, b, labels, n_bootstrap=30)
        assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize("measure", [ratio_interval, share_interval])
@pytest.mark.parametrize(
    ("a", "b", "labels", "options"),
    [
        ([0.5], [0.5, 0.5], [0], {}),
        ([], [], [], {}),
        ([[0.5]], [[0.5]], [0], {}),
        ([1.5], [0.5], [0], {}),
        ([0.5], [np.nan], [0], {}),
        ([0.5], [0.5], [0, 1], {}),
        ([0.5], [0.5], [0], {"confidence_level": 1.0}),
        ([0.5], [0.5], [0], {"n_bootstrap": 0}),
    ],
)
def test_bad_input_is_refused(measure, a, b, labels, options):
    with pytest.raises(BadInputError):
        measure(a, b, np.asarray(labels), **options)
