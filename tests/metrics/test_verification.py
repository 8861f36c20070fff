"""Verification measures: hand-computed numbers and loop twins."""

import itertools

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.verification import equal_error_rate, tmr_at_fmr


def brute_rates(mated, non_mated, threshold):
    fmr = sum(score >= threshold for score in non_mated) / len(non_mated)
    fnmr = sum(score < threshold for score in mated) / len(mated)
    return fmr, fnmr


def brute_tmr(mated, non_mated, fmr):
    best = 0.0
    for threshold in [*mated, *non_mated, np.inf]:
        false, missed = brute_rates(mated, non_mated, threshold)
        if false <= fmr + 1e-12:
            best = max(best, 1 - missed)
    return best


def brute_eer(mated, non_mated):
    """Cross the polyline of operating points with FMR = FNMR by bisection along it."""
    thresholds = [*sorted({*mated, *non_mated}), np.inf]
    points = [brute_rates(mated, non_mated, t) for t in thresholds]
    for (fmr_0, fnmr_0), (fmr_1, fnmr_1) in itertools.pairwise(points):
        if fnmr_1 >= fmr_1:
            lo, hi = 0.0, 1.0
            for _ in range(60):
                mid = (lo + hi) / 2
                fmr, fnmr = fmr_0 + mid * (fmr_1 - fmr_0), fnmr_0 + mid * (fnmr_1 - fnmr_0)
                lo, hi = (mid, hi) if fmr > fnmr else (lo, mid)
            return fmr_0 + hi * (fmr_1 - fmr_0)
    raise AssertionError("no crossing")


def test_eer_by_hand():
    assert equal_error_rate([0.8, 0.9], [0.1, 0.2]) == 0
    assert equal_error_rate([0.1, 0.2], [0.8, 0.9]) == 1
    assert equal_error_rate([0.5, 0.5], [0.5, 0.5, 0.5]) == 0.5
    assert equal_error_rate([0.3, 0.7, 0.8, 0.9], [0.1, 0.2, 0.4, 0.6]) == 0.25


def test_eer_where_a_riser_is_crossed():
    assert equal_error_rate([1, 3, 4, 5, 6], [0, 2]) == pytest.approx(0.2)


def test_tmr_by_hand():
    mated, non_mated = [0.3, 0.5, 0.7, 0.9], [0.1, 0.2, 0.4, 0.6]
    assert tmr_at_fmr(mated, non_mated, 0.0) == 0.5
    assert tmr_at_fmr(mated, non_mated, 0.24) == 0.5
    assert tmr_at_fmr(mated, non_mated, 0.25) == 0.75
    assert tmr_at_fmr(mated, non_mated, 1.0) == 1.0


def test_a_constant_score_verifies_nobody():
    assert tmr_at_fmr([0.5] * 10, [0.5] * 100, 0.01) == 0


def test_the_allowance_is_not_lost_to_rounding():
    non_mated = np.arange(100)
    assert tmr_at_fmr([71.5, 70.5, 69.5], non_mated, 0.29) == pytest.approx(2 / 3)


@pytest.mark.parametrize("levels", [5, 40, 10_000])
def test_measures_equal_their_loop_twins(levels):
    rng = np.random.default_rng(levels)
    for _ in range(15):
        mated = (rng.integers(0, levels, size=rng.integers(1, 30)) + levels // 5).tolist()
        non_mated = rng.integers(0, levels, size=rng.integers(1, 60)).tolist()
        assert equal_error_rate(mated, non_mated) == pytest.approx(
            brute_eer(mated, non_mated), abs=1e-9
        )
        for fmr in (0.0, 0.01, 0.1, 0.5, 1.0):
            assert tmr_at_fmr(mated, non_mated, fmr) == pytest.approx(
                brute_tmr(mated, non_mated, fmr)
            )


@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf]])
def test_bad_scores_are_refused(bad):
    with pytest.raises(BadInputError, match="mated scores|scores must"):
        equal_error_rate(bad, [0.1])
    with pytest.raises(BadInputError):
        tmr_at_fmr([0.1], bad, 0.1)


def test_bad_rate_is_refused():
    with pytest.raises(BadInputError, match="fmr"):
        tmr_at_fmr([0.1], [0.1], 1.5)
