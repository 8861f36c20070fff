"""Intervals of verification measures: loop twins with the same draws, scikit-learn, coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Unsupported, wilson
from cldmray.metrics.rates import rate_interval
from cldmray.metrics.verification import (
    DENSE,
    ScoreSample,
    equal_error_rate,
    equal_error_rates,
    resample_errors,
    tmr_at_fmr,
    true_match_rates,
    verification_intervals,
)


def identities(rng, n, distance, images=(1, 6), others=30):
    """Mated (P,) and non-mated (P, others) scores of n people, and the probes' identities."""
    labels = np.repeat(np.arange(n), rng.integers(*images, size=n))
    own = rng.normal(0, 0.5, n)[labels]
    mated = rng.normal(distance, 1, len(labels)) + own
    return mated, rng.normal(0, 1, (len(labels), others)) + 0.3 * own[:, None], labels


def draws(n, n_bootstrap, seed):
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)


def brute(mated, non_mated, mated_labels, non_mated_labels, measure, n_bootstrap, seed):
    """The exact measure of every resample, its scores repeated one by one."""
    names, codes = np.unique([*mated_labels, *non_mated_labels], return_inverse=True)
    ours, theirs = codes[: len(mated_labels)], codes[len(mated_labels) :]
    resampled = []
    for counts in draws(len(names), n_bootstrap, seed):
        same, other = np.repeat(mated, counts[ours]), np.repeat(non_mated, counts[theirs], axis=0)
        if same.size and other.size:
            resampled.append(measure(same, other))
    return np.array(resampled)


@pytest.mark.parametrize("rounding", [0, 1, 9])
@pytest.mark.parametrize("fmr", [0.0, 0.01, 0.1, 1.0])
def test_small_samples_equal_a_loop_over_resamples(rounding, fmr):
    rng = np.random.default_rng(rounding)
    mated, non_mated, labels = identities(rng, 12, 1.0, others=5)
    mated, non_mated = mated.round(rounding), non_mated.round(rounding)
    kept = labels != 3
    resampled = resample_errors(
        ScoreSample(mated[kept], labels[kept]),
        ScoreSample(non_mated, labels),
        [equal_error_rates, true_match_rates(fmr)],
        200,
        seed=1,
    )
    assert max(mated.size, non_mated.size) <= DENSE
    assert resampled.identities == 11
    for drawn, measure in zip(
        resampled.draws, (equal_error_rate, lambda a, b: tmr_at_fmr(a, b, fmr)), strict=True
    ):
        twin = brute(mated[kept], non_mated, labels[kept], labels, measure, 200, 1)
        np.testing.assert_allclose(drawn, twin, atol=1e-12)


def test_the_allowance_is_not_lost_to_rounding():
    assert 0.29 * 100 < 29
    alone = np.array([0])
    mated, non_mated = (
        ScoreSample(np.array([70.5]), alone),
        ScoreSample(np.arange(100.0)[None], alone),
    )
    (drawn,), _ = resample_errors(mated, non_mated, [true_match_rates(0.29)], 3, seed=0)
    np.testing.assert_array_equal(drawn, [1, 1, 1])


def test_resamples_without_a_sample_are_left_out():
    mated, non_mated = np.array([0.2, 0.9]), np.array([[0.1], [0.5]])
    ours, theirs = np.array(["a", "b"]), np.array(["b", "c"])
    (drawn,), identities = resample_errors(
        ScoreSample(mated, ours), ScoreSample(non_mated, theirs), [equal_error_rates], 300, seed=0
    )
    twin = brute(mated, non_mated, ours, theirs, equal_error_rate, 300, 0)
    assert len(twin) < 300 and identities == 2
    np.testing.assert_allclose(drawn, twin, atol=1e-12)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 3.5])
def test_the_grid_of_large_samples_is_near_the_exact_bootstrap(distance):
    mated, non_mated, labels = identities(np.random.default_rng(0), 80, distance, others=79)
    assert non_mated.size > 4 * DENSE
    measures = [equal_error_rates, true_match_rates(1e-2), true_match_rates(1e-3)]
    resampled = resample_errors(
        ScoreSample(mated, labels), ScoreSample(non_mated, labels), measures, 30, seed=0
    )
    exact = [
        equal_error_rate,
        lambda a, b: tmr_at_fmr(a, b, 1e-2),
        lambda a, b: tmr_at_fmr(a, b, 1e-3),
    ]
    for drawn, measure in zip(resampled.draws, exact, strict=True):
        twin = brute(mated, non_mated, labels, labels, measure, 30, 0)
        tolerance = 0.002 if measure is equal_error_rate else 0.01
        np.testing.assert_allclose(drawn, twin, rtol=0.01, atol=tolerance)
        assert abs((drawn - twin).mean()) < 0.001
    strict = brute(mated, non_mated, labels, labels, exact[2], 30, 0)
    np.testing.assert_array_equal(resampled.draws[2], strict)


def test_weighted_rates_are_those_of_scikit_learn():
    mated, non_mated, labels = identities(np.random.default_rng(2), 20, 1.5, others=8)
    scores = np.concatenate([mated, non_mated.ravel()])
    truth = np.repeat([1, 0], [mated.size, non_mated.size])
    codes = np.concatenate([labels, np.repeat(labels, 8)])
    (eer, tmr), _ = resample_errors(
        ScoreSample(mated, labels),
        ScoreSample(non_mated, labels),
        [equal_error_rates, true_match_rates(0.05)],
        50,
        seed=0,
    )
    for counts, found_eer, found_tmr in zip(draws(20, 50, 0), eer, tmr, strict=True):
        fpr, tpr, _ = roc_curve(truth, scores, sample_weight=counts[codes], drop_intermediate=False)
        assert found_tmr == pytest.approx(tpr[fpr <= 0.05 + 1e-12].max())
        assert found_eer == pytest.approx(np.interp(0, fpr + tpr - 1, fpr))


def test_values_are_exact_and_bounds_are_the_brute_ones():
    mated, non_mated, labels = identities(np.random.default_rng(3), 15, 1.0, others=9)
    eer, (loose, tight) = verification_intervals(
        mated,
        labels,
        non_mated,
        labels,
        fmrs=(0.1, 0.02),
        confidence_level=0.9,
        n_bootstrap=300,
        seed=4,
    )
    assert eer.value == equal_error_rate(mated, non_mated)
    assert loose.value == tmr_at_fmr(mated, non_mated, 0.1)
    assert tight.value == tmr_at_fmr(mated, non_mated, 0.02)
    twin = brute(mated, non_mated, labels, labels, equal_error_rate, 300, 4)
    assert eer[1:] == pytest.approx(np.quantile(twin, [0.05, 0.95]))


def test_the_order_of_probes_changes_nothing():
    rng = np.random.default_rng(5)
    mated, non_mated, labels = identities(rng, 30, 1.5)
    first = verification_intervals(mated, labels, non_mated, labels, n_bootstrap=200)
    a, b = rng.permutation(len(labels)), rng.permutation(len(labels))
    again = verification_intervals(mated[a], labels[a], non_mated[b], labels[b], n_bootstrap=200)
    assert again == first
    other = verification_intervals(mated, labels, non_mated, labels, n_bootstrap=200, seed=1)
    assert other != first


def test_small_blocks_and_double_precision_change_nothing(monkeypatch):
    mated, non_mated, labels = identities(np.random.default_rng(6), 20, 1.5)
    whole = verification_intervals(mated, labels, non_mated, labels, n_bootstrap=100)
    monkeypatch.setattr("cldmray.metrics.confidence.CELLS_PER_CHUNK", 10_000)
    monkeypatch.setattr("cldmray.metrics.verification.EXACT_IN_SINGLE", 0)
    again = verification_intervals(mated, labels, non_mated, labels, n_bootstrap=100)
    np.testing.assert_allclose(again.equal_error_rate, whole.equal_error_rate, atol=1e-12)
    assert again.tmr == whole.tmr


def test_perfect_separation_and_a_single_person_have_width():
    labels = np.repeat(np.arange(20), 3)
    far, near = np.linspace(2, 3, 60), np.linspace(0, 1, 120).reshape(60, 2)
    eer, (tmr,) = verification_intervals(far, labels, near, labels, fmrs=(0.01,))
    assert eer == wilson(0, 20)
    assert tmr == rate_interval(np.ones(60), labels)
    alone = np.full(60, "only")
    mixed = verification_intervals(far - 1.5, alone, near, alone).equal_error_rate
    assert mixed == wilson(mixed.value, 1)
    assert 0 < mixed.low < mixed.value < mixed.high < 1


def test_a_constant_score_is_a_coin():
    labels = np.arange(10)
    eer, (tmr, low) = verification_intervals(
        np.ones(10), labels, np.ones((10, 4)), labels, fmrs=(0.1, 0.01)
    )
    assert eer == wilson(5, 10)
    assert tmr == rate_interval(np.zeros(10), labels)
    assert low == Unsupported(
        "an error rate of 0.01 needs at least 100 non-mated scores; there are 40"
    )


def test_coverage_on_simulated_people():
    rng = np.random.default_rng(7)
    mated, non_mated, _ = identities(rng, 4000, 2.0)
    truth = equal_error_rate(mated, non_mated), tmr_at_fmr(mated, non_mated, 0.01)
    covered, trials = np.zeros(2), 120
    for _ in range(trials):
        mated, non_mated, labels = identities(rng, 60, 2.0)
        eer, (tmr,) = verification_intervals(
            mated, labels, non_mated, labels, fmrs=(0.01,), n_bootstrap=300
        )
        resampled = zip((eer, tmr), truth, strict=True)
        covered += [part.low <= true <= part.high for part, true in resampled]
    assert np.all(covered / trials >= 0.88) and covered[0] / trials <= 0.99


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_bounds_are_ordered_rates_for_any_scores(data):
    score = st.integers(-3, 3).map(float)
    mated = data.draw(st.lists(score, min_size=1, max_size=8))
    width = data.draw(st.integers(1, 3))
    row = st.lists(score, min_size=width, max_size=width)
    non_mated = data.draw(st.lists(row, min_size=1, max_size=6))
    names = [
        data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
        for size in (len(mated), len(non_mated))
    ]
    eer, tmr = verification_intervals(
        mated,
        np.array(names[0]),
        non_mated,
        np.array(names[1]),
        fmrs=(0.0, 0.3, 1.0),
        n_bootstrap=20,
    )
    assert isinstance(tmr[1], Interval) == (len(non_mated) * width >= 4)
    supported = [part for part in tmr if isinstance(part, Interval)]
    for resampled in (eer, *supported):
        assert 0 <= resampled.low <= resampled.value <= resampled.high <= 1
    values = [part.value for part in supported]
    assert values == sorted(values) and values[-1] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mated": [[0.5, 0.6]]}, "shapes"),
        ({"non_mated": [0.1, 0.2]}, "shapes"),
        ({"mated": [0.5, np.nan]}, "finite"),
        ({"non_mated": np.zeros((2, 0))}, "no non-mated"),
        ({"mated_labels": np.array([0])}, "labels must have shape"),
        ({"fmrs": (1.5,)}, "fmr"),
        ({"confidence_level": 1.0}, "confidence_level"),
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
        verification_intervals(**(fits | changes))


def test_a_true_match_more_hardly_moves_the_bounds():
    labels = np.repeat(np.arange(100), 9)
    near = np.tile(np.linspace(0, 1, 900)[:, None], (1, 2))
    mated = np.full(900, -1.0)
    highs = []
    for n_matches in (0, 1, 2):
        mated[:n_matches] = 2.0
        _, (tmr,) = verification_intervals(
            mated, labels, near, labels, fmrs=(0.01,), n_bootstrap=100
        )
        highs.append(tmr.high)
    assert highs == sorted(highs) and highs[2] < 1.2 * highs[0]
