"""The k-anonymity test: hand-computed claims, exact fractions, and a loop over all claims."""

import numpy as np
import pytest

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.k_anonymity import KAnonymity, k_anonymity, rejects


def test_by_hand():
    rank_1 = Interval(0.25, 0.2, 0.4)
    assert k_anonymity(rank_1, 100) == KAnonymity(5, 4.0, 2, 100)
    assert not rejects(rank_1, 5)
    assert rejects(rank_1, 6)


def test_the_papers_rate_rejects_every_claim_above_one():
    rank_1 = Interval(0.681, 0.66, 0.70)
    assert k_anonymity(rank_1, 1000).k_not_rejected == 1
    assert rejects(rank_1, 2)
    assert not rejects(rank_1, 1)


def test_exact_fractions_are_not_lost_to_rounding():
    for k in range(1, 500):
        for low in (1 / k, np.nextafter(1 / k, 2), np.nextafter(1 / k, 0), 0.1 / k * 10):
            interval = Interval(1.0, min(float(low), 1.0), 1.0)
            assert k_anonymity(interval, 1000).k_not_rejected == k
            assert not rejects(interval, k)
            assert rejects(interval, k + 1)


def test_largest_k_equals_a_loop_over_claims():
    rng = np.random.default_rng(0)
    for low in rng.random(300) ** 3:
        interval = Interval(1.0, float(low), 1.0)
        surviving = [k for k in range(1, 201) if not rejects(interval, k)]
        assert k_anonymity(interval, 200).k_not_rejected == max(surviving)


def test_no_success_is_capped_by_the_gallery():
    outcome = k_anonymity(Interval(0.0, 0.0, 0.07), 40)
    assert outcome == KAnonymity(40, 40.0, 14, 40)
    assert k_anonymity(Interval(1e-320, 0.0, 1.0), 40).point_estimate == 40


@pytest.mark.parametrize("bad", [Interval(0.5, 0.6, 0.7), Interval(0.5, 0.4, 1.2)])
def test_bad_intervals_are_refused(bad):
    with pytest.raises(BadInputError, match="not an interval"):
        k_anonymity(bad, 10)


def test_bad_claims_are_refused():
    interval = Interval(0.5, 0.4, 0.6)
    with pytest.raises(BadInputError):
        rejects(interval, 0)
    with pytest.raises(BadInputError):
        k_anonymity(interval, 0)
