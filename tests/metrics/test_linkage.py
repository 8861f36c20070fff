"""Linkability: hand-computed histograms, integrals of normal densities, loop twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import wilson
from cldmray.metrics.linkage import automatic_bins, d_sys, d_sys_interval, linkability, linkage


def test_by_hand():
    mated = [0.1, 0.3, 0.3, 0.35, 0.6, 0.6, 1.0, 1.0]
    non_mated = [0.0, 0.1, 0.2, 0.3, 0.3, 0.55, 0.6, 0.7]
    linked = linkability(mated, non_mated, bins=4)
    np.testing.assert_allclose(linked.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(linked.mated, [1 / 8, 3 / 8, 2 / 8, 2 / 8])
    np.testing.assert_allclose(linked.non_mated, [3 / 8, 2 / 8, 3 / 8, 0])
    np.testing.assert_allclose(linked.local, [0, 2 * 1.5 / 2.5 - 1, 0, 1])
    assert d_sys(mated, non_mated, bins=4) == pytest.approx(0.2 * 3 / 8 + 2 / 8)


def test_omega_weighs_the_likelihood_ratio():
    mated, non_mated = [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]
    assert d_sys(mated, non_mated, bins=2) == pytest.approx(0.75 * 0.5)
    assert linkability(mated, non_mated, 2, omega=3.0).local == pytest.approx([0, 0.8])
    assert d_sys(mated, non_mated, bins=2, omega=6.0) == pytest.approx(0.25 / 3 + 0.75 * 17 / 19)
    assert d_sys(mated, non_mated, bins=2, omega=1 / 3) == 0


def test_a_bin_without_scores_links_nothing():
    linked = linkability([0.0, 0.1, 1.0], [0.0, 0.9, 0.95], bins=4)
    np.testing.assert_allclose(linked.local, [1 / 3, 0, 0, 0])


def test_a_score_on_an_edge_belongs_to_the_bin_above():
    linked = linkability([0.0, 0.5, 1.0], [0.0, 0.0, 1.0], bins=2)
    np.testing.assert_allclose(linked.mated, [1 / 3, 2 / 3])


def test_limits():
    rng = np.random.default_rng(0)
    sample = rng.normal(size=500)
    assert d_sys(sample, sample) == 0
    assert d_sys(sample, np.repeat(sample, 3)) == 0
    assert d_sys(sample + 20, sample) == 1
    assert d_sys(sample, sample + 20) == 1
    assert d_sys([0.5] * 5, [0.5] * 9) == 0
    assert d_sys([0.5] * 5, [0.5] * 9, omega=2.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("size", "bound"), [(100, 0.064), (500, 0.037), (2000, 0.024)])
def test_the_bias_of_equal_distributions_is_at_most_the_one_documented(size, bound):
    rng = np.random.default_rng(size)
    linked = [d_sys(rng.normal(size=size), rng.normal(size=20 * size)) for _ in range(40)]
    limit = 0.2 * np.sqrt(automatic_bins(size, 20 * size) * (1 / size + 1 / (20 * size)))
    assert 0.5 * limit < np.mean(linked) < limit
    assert limit == pytest.approx(bound, abs=0.002)


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0, 4.0])
def test_normal_scores_have_the_integral_of_their_densities(distance):
    def integrand(score):
        p, q = norm.pdf(score, distance), norm.pdf(score)
        return (2 * (p / q) / (1 + p / q) - 1) * p

    expected = quad(integrand, distance / 2, distance + 8)[0]
    rng = np.random.default_rng(1)
    linked = d_sys(rng.normal(distance, 1, 20_000), rng.normal(0, 1, 60_000))
    assert linked == pytest.approx(expected, abs=0.012)


def test_automatic_bins_by_hand():
    assert [automatic_bins(n, 10**6) for n in (1, 8, 27, 28, 1000)] == [2, 4, 6, 7, 20]
    assert automatic_bins(500, 49500) == automatic_bins(49500, 500) == 16
    assert automatic_bins(10**9, 10**9) == 100
    assert len(linkability(np.arange(8), np.arange(9)).local) == 4


def identities(rng, n=40, others=20, distance=1.5):
    labels = np.repeat(np.arange(n), rng.integers(1, 6, size=n))
    own = rng.normal(0, 0.5, n)[labels]
    mated = rng.normal(distance, 1, len(labels)) + own
    return mated, rng.normal(0, 1, (len(labels), others)) + 0.3 * own[:, None], labels


@pytest.mark.parametrize("omega", [1.0, 0.3])
def test_the_interval_equals_a_loop_over_resamples(omega):
    mated, non_mated, labels = identities(np.random.default_rng(2), 10, 5)
    edges = linkability(mated, non_mated, 6).edges
    draws = np.random.default_rng(3).multinomial(10, np.full(10, 0.1), size=200)
    linked = []
    for counts in draws:
        same = np.histogram(np.repeat(mated, counts[labels]), edges)[0]
        other = np.histogram(np.repeat(non_mated, counts[labels], axis=0), edges)[0]
        total = 0.0
        for p, q in zip(same / same.sum(), other / other.sum(), strict=True):
            if omega * p > q:
                total += p * (2 * (omega * p / q) / (1 + omega * p / q) - 1 if q else 1.0)
        linked.append(total)
    interval = d_sys_interval(
        mated,
        labels,
        non_mated,
        labels,
        confidence_level=0.9,
        n_bootstrap=200,
        seed=3,
        bins=6,
        omega=omega,
    )
    value = d_sys(mated, non_mated, bins=6, omega=omega)
    assert interval.value == value
    high, low = 2 * value - np.quantile(linked, [0.05, 0.95])
    assert interval.low == pytest.approx(min(value, max(0, low)))
    assert interval.high == pytest.approx(max(value, high))
    assert interval.low < interval.value < interval.high


def test_the_order_of_probes_changes_nothing():
    rng = np.random.default_rng(4)
    mated, non_mated, labels = identities(rng)
    first = d_sys_interval(mated, labels, non_mated, labels)
    a, b = rng.permutation(len(labels)), rng.permutation(len(labels))
    assert d_sys_interval(mated[a], labels[a], non_mated[b], labels[b]) == first
    assert d_sys_interval(mated, labels, non_mated, labels, seed=1) != first


def scored(rng, n, images, distance):
    """Scores (P, n) of probes with n people, alike within a person, and each probe's place."""
    own = np.repeat(np.arange(n), images)
    scores = rng.normal(0, 1, (len(own), n)) + 0.5 * rng.normal(0, 1, (n, n))[own]
    scores += 0.5 * rng.normal(0, 1, n)
    scores[np.arange(len(own)), own] += distance
    return scores, own


def linked(rng, scores, own, n_permutations=99, **options):
    probes, n = scores.shape
    is_own = own[:, None] == np.arange(n)
    permuted = [scores[np.arange(probes), rng.permutation(n)[own]] for _ in range(n_permutations)]
    return linkage(
        scores[is_own],
        own,
        scores[~is_own].reshape(probes, n - 1),
        own,
        permuted=np.stack(permuted, axis=1),
        n_bootstrap=100,
        **options,
    )


@pytest.mark.parametrize(("n", "images"), [(50, 5), (20, 9), (8, 4)])
def test_unlinked_scores_are_rarely_said_to_link(n, images):
    rng = np.random.default_rng(5)
    trials = [linked(rng, *scored(rng, n, images, 0.0)) for _ in range(120)]
    values = np.array([trial.interval for trial in trials])
    chance_values = np.array([trial.chance for trial in trials])
    assert (values[:, 1] > 0).mean() <= 0.05
    assert values[:, 0].mean() == pytest.approx(chance_values.mean(), rel=0.15)
    assert chance_values.min() > 0


def test_the_interval_covers_the_integral_of_the_densities():
    rng = np.random.default_rng(6)
    distance, deviation = 1.5, np.sqrt(1.5)

    def integrand(score):
        p, q = norm.pdf(score, distance, deviation), norm.pdf(score, 0, deviation)
        return (2 * (p / q) / (1 + p / q) - 1) * p

    truth = quad(integrand, distance / 2, distance + 10)[0]
    trials = [linked(rng, *scored(rng, 60, 5, distance)) for _ in range(60)]
    assert all(trial.p_value == 0.01 and trial.interval.low > 0 for trial in trials)
    covered = [trial.interval.low <= truth <= trial.interval.high for trial in trials]
    assert np.mean(covered) >= 0.9


def test_permutations_by_hand():
    # Three people, one image each. In the cyclic permutation two images score 3 and one scores 1.
    scores = np.array([[3.0, 3.0, 1.0], [1.0, 3.0, 3.0], [1.0, 1.0, 1.0]])
    mated, permuted = np.array([3.0, 3.0, 1.0]), np.array([[3.0, 3], [3, 3], [1, 1]])
    others = scores[~np.eye(3, dtype=bool)].reshape(3, 2)
    result = linkage(mated, range(3), others, range(3), permuted=permuted, bins=2)
    # Two of three mated and two of six non-mated scores are high: (2/3 - 1/3) / (2/3 + 1/3).
    assert result.interval.value == result.chance == pytest.approx(2 / 3 * 1 / 3)
    assert (result.interval.low, result.p_value) == (0, 1)


def test_permuted_scores_share_the_pool_with_the_others():
    rng = np.random.default_rng(7)
    scores, own = scored(rng, 6, 3, 1.0)
    column = rng.permutation(6)[own]
    is_own, is_drawn = own[:, None] == np.arange(6), column[:, None] == np.arange(6)
    result = linkage(
        scores[is_own],
        own,
        scores[~is_own].reshape(18, 5),
        own,
        permuted=scores[is_drawn][:, None],
        bins=5,
    )
    assert result.chance == pytest.approx(d_sys(scores[is_drawn], scores[~is_drawn], bins=5))


def test_two_people_never_link():
    scores, own = scored(np.random.default_rng(8), 2, 2, 50.0)
    result = linked(np.random.default_rng(9), scores, own)
    assert result.interval.value == result.chance == 1
    assert result.interval.low == 0 and result.p_value > 0.3


def test_lower_mated_scores_are_no_link():
    rng = np.random.default_rng(10)
    result = linked(rng, *scored(rng, 40, 5, -3.0))
    assert result.interval.value > 0.5 and result.interval.low == 0


def test_permuted_scores_that_do_not_fit_are_refused():
    for permuted in (np.zeros(2), np.zeros((3, 5)), np.full((2, 5), np.nan)):
        with pytest.raises(BadInputError, match="permuted must be finite, of shape"):
            linkage([0.5, 0.6], range(2), [[0.1], [0.2]], range(2), permuted=permuted)


def test_outcomes_that_cannot_vary_have_width():
    labels = np.repeat(np.arange(15), 2)
    far, near = np.linspace(9, 10, 30), np.linspace(0, 1, 60).reshape(30, 2)
    assert d_sys_interval(far, labels, near, labels) == wilson(15, 15)
    assert d_sys_interval(np.ones(30), labels, np.ones((30, 2)), labels) == wilson(0, 15)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=30),
    st.lists(st.floats(-1, 1), min_size=1, max_size=30),
    st.integers(1, 12),
    st.floats(0.01, 100),
)
def test_it_is_a_share_and_grows_with_omega(mated, non_mated, bins, omega):
    linked = d_sys(mated, non_mated, bins, omega)
    assert 0 <= linked <= d_sys(mated, non_mated, bins, 2 * omega) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mated": []}, "mated"),
        ({"non_mated": [[np.nan], [0.1]]}, "non-mated"),
        ({"non_mated": [0.1, 0.2]}, "shapes"),
        ({"mated_labels": np.array([1])}, "labels"),
        ({"bins": 0}, "bins"),
        ({"omega": 0.0}, "omega"),
        ({"confidence_level": 0.0}, "confidence_level"),
        ({"n_bootstrap": 0}, "n_bootstrap"),
    ],
)
def test_bad_input_is_refused(changes, message):
    fits = {
        "mated": [0.5, 0.6],
        "mated_labels": np.array([0, 1]),
        "non_mated": [[0.1], [0.2]],
        "non_mated_labels": np.array([0, 1]),
    }
    with pytest.raises(BadInputError, match=message):
        d_sys_interval(**(fits | changes))
