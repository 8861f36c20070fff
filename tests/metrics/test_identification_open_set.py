"""Open-set identification: hand-computed numbers and loop twins."""

import numpy as np
import pytest

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Unsupported
from cldmray.metrics.identification import fnir_at_fpir, fnir_at_fpir_interval
from cldmray.metrics.rates import rate_interval

MATED = [0.9, 0.8, 0.55, 0.3]
BEST_NON_MATED = [0.2, 0.85, 0.4, 0.1]
UNKNOWN = [0.1, 0.2, 0.5, 0.6]


def brute(mated, best_non_mated, unknown, fpir):
    """The lowest failure rate of all thresholds that raise few enough false alarms."""
    best = 1.0
    for threshold in [-np.inf, *unknown]:
        alarms = sum(score > threshold for score in unknown)
        if alarms <= fpir * len(unknown) + 1e-9:
            failures = sum(
                not (mine > other and mine > threshold)
                for mine, other in zip(mated, best_non_mated, strict=True)
            )
            best = min(best, failures / len(mated))
    return best


def scores(rng, levels=1000, enrolled=24, unknown=18):
    return (
        rng.integers(0, levels, enrolled) + levels / 4,
        rng.integers(0, levels, enrolled).astype(float),
        rng.integers(0, levels, unknown) + levels / 8,
    )


def test_by_hand():
    assert fnir_at_fpir(MATED, BEST_NON_MATED, UNKNOWN, 0.0) == 0.75
    assert fnir_at_fpir(MATED, BEST_NON_MATED, UNKNOWN, 0.24) == 0.75
    assert fnir_at_fpir(MATED, BEST_NON_MATED, UNKNOWN, 0.25) == 0.5
    assert fnir_at_fpir(MATED, BEST_NON_MATED, UNKNOWN, 0.5) == 0.25
    assert fnir_at_fpir(MATED, BEST_NON_MATED, UNKNOWN, 1.0) == 0.25


def test_ties_do_not_find_anybody():
    assert fnir_at_fpir([0.5], [0.5], [0.1], 1.0) == 1
    assert fnir_at_fpir([0.5], [0.4], [0.5], 0.0) == 1
    assert fnir_at_fpir([0.5] * 9, [0.5] * 9, [0.5] * 9, 0.1) == 1
    assert fnir_at_fpir([0.5], [0.4], [0.5, 0.5, 0.2], 0.5) == 1
    assert fnir_at_fpir([0.5], [0.4], [0.5, 0.5, 0.2], 2 / 3) == 0


def test_the_allowance_is_not_lost_to_rounding():
    unknown = np.arange(100)
    assert fnir_at_fpir([70.5, 69.5], [0, 0], unknown, 0.29) == 0.5


@pytest.mark.parametrize("levels", [4, 30, 10_000])
@pytest.mark.parametrize("fpir", [0.0, 0.05, 0.1, 0.5, 1.0])
def test_it_equals_its_loop_twin(levels, fpir):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        sample = scores(rng, levels)
        assert fnir_at_fpir(*sample, fpir) == pytest.approx(brute(*sample, fpir))


@pytest.mark.parametrize("levels", [6, 1000])
@pytest.mark.parametrize("fpir", [0.1, 0.5])
def test_the_interval_equals_a_loop_over_resamples(levels, fpir):
    rng = np.random.default_rng(levels)
    mated, best_non_mated, unknown = scores(rng, levels)
    enrolled, strangers = rng.integers(0, 8, 24), rng.integers(8, 14, 18)
    names, codes = np.unique([*enrolled, *strangers], return_inverse=True)
    outcome = []
    draws = np.random.default_rng(2).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=150
    )
    for counts in draws:
        ours, theirs = counts[codes[:24]], counts[codes[24:]]
        parts = np.repeat(mated, ours), np.repeat(best_non_mated, ours), np.repeat(unknown, theirs)
        if parts[0].size and parts[2].size:
            outcome.append(fnir_at_fpir(*parts, fpir))
    interval = fnir_at_fpir_interval(
        mated,
        best_non_mated,
        unknown,
        enrolled,
        unknown_labels=strangers,
        fpir=fpir,
        confidence_level=0.8,
        n_bootstrap=150,
        seed=2,
    )
    assert interval.value == fnir_at_fpir(mated, best_non_mated, unknown, fpir)
    low, high = np.quantile(outcome, [0.1, 0.9])
    allowed = int(fpir * len(unknown))
    threshold = np.sort(unknown)[::-1][allowed]
    fails = ~((mated > best_non_mated) & (mated > threshold))
    fixed = rate_interval(fails, enrolled, confidence_level=0.8)
    assert interval.low == pytest.approx(min(low, fixed.low))
    assert interval.high == pytest.approx(max(high, fixed.high))
    assert interval.low < interval.high


def test_the_order_of_probes_changes_nothing():
    rng = np.random.default_rng(0)
    mated, best_non_mated, unknown = scores(rng)
    enrolled, strangers = rng.integers(0, 8, 24), rng.integers(8, 14, 18)
    first = fnir_at_fpir_interval(
        mated, best_non_mated, unknown, enrolled, unknown_labels=strangers, fpir=0.1
    )
    a, b = rng.permutation(24), rng.permutation(18)
    again = fnir_at_fpir_interval(
        mated[a], best_non_mated[a], unknown[b], enrolled[a], unknown_labels=strangers[b], fpir=0.1
    )
    assert again == first
    assert first.low < first.value < first.high


def test_outcomes_that_cannot_vary_have_width():
    identities, strangers = np.arange(12), np.arange(12, 30)
    best, worst = np.ones(12), np.zeros(12)
    outcome = fnir_at_fpir_interval(
        best, worst, np.zeros(18), identities, unknown_labels=strangers, fpir=0.1
    )
    assert outcome == rate_interval(np.zeros(12), identities)
    lost = fnir_at_fpir_interval(
        worst, best, np.zeros(18), identities, unknown_labels=strangers, fpir=0.1
    )
    assert lost == rate_interval(np.ones(12), identities)


def test_one_person_of_either_kind_has_width():
    names = np.array(["a"]), np.array(["b"])
    for n_bootstrap in (1, 100):
        outcome = fnir_at_fpir_interval(
            [0.9],
            [0.1],
            [0.5],
            names[0],
            unknown_labels=names[1],
            fpir=1.0,
            n_bootstrap=n_bootstrap,
        )
        assert outcome == rate_interval([0], names[0])


@pytest.mark.parametrize(("n_unknown", "is_supported"), [(9, False), (10, True)])
def test_a_rate_of_a_tenth_needs_ten_unknown_probes(n_unknown, is_supported):
    outcome = fnir_at_fpir_interval(
        [0.9, 0.8],
        [0.1, 0.1],
        np.full(n_unknown, 0.5),
        np.arange(2),
        unknown_labels=np.arange(2, 2 + n_unknown),
        fpir=0.1,
        n_bootstrap=20,
    )
    assert isinstance(outcome, Interval) == is_supported
    if isinstance(outcome, Unsupported):
        assert "at least 10 probes of people not enrolled; there are 9" in outcome.reason


@pytest.mark.parametrize(
    ("mated", "best_non_mated", "unknown", "fpir", "message"),
    [
        ([0.5], [0.1, 0.2], [0.1], 0.1, "shapes"),
        ([[0.5]], [[0.1]], [0.1], 0.1, "shapes"),
        ([], [], [0.1], 0.1, "^mated"),
        ([0.5], [np.inf], [0.1], 0.1, "best_non_mated"),
        ([0.5], [0.1], [], 0.1, "unknown"),
        ([0.5], [0.1], [0.1], -0.1, "fpir"),
    ],
)
def test_bad_input_is_refused(mated, best_non_mated, unknown, fpir, message):
    with pytest.raises(BadInputError, match=message):
        fnir_at_fpir(mated, best_non_mated, unknown, fpir)


def test_labels_and_options_are_checked():
    names = np.array([0, 1, 2, 3])
    with pytest.raises(BadInputError, match="labels must have shape"):
        fnir_at_fpir_interval(
            MATED, BEST_NON_MATED, UNKNOWN, names[:3], unknown_labels=names, fpir=0.1
        )
    with pytest.raises(BadInputError, match="confidence_level"):
        fnir_at_fpir_interval(
            MATED,
            BEST_NON_MATED,
            UNKNOWN,
            names,
            unknown_labels=names,
            fpir=0.1,
            confidence_level=0,
        )
