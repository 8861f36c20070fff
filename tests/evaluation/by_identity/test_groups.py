"""Groups: impostors of the same group, and differences between groups."""

import numpy as np
import pytest

from cldmray.evaluation.by_identity.groups import (
    difference_interval,
    group_rates,
    rate_differences,
    within_rates,
)
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.scores import Scores
from cldmray.metrics.confidence import wilson
from cldmray.metrics.rates import rate_interval
from tests.gallery.given_scores import Given

SETTINGS = EvaluationSettings(n_bootstrap=100)
GROUPS = {"sex=f": np.array(["p0", "p1"]), "sex=m": np.array(["p2", "p3"])}


def attack(scores: Scores) -> AttackResult:
    return AttackResult.of("blur", "pretrained", "full_ref", "source_excluded", scores)


SCORES = Given([0, 1, 2, 3], [[5, 4, 9, 0], [5, 5, 0, 0], [0, 0, 1, 2], [9, 9, 1, 2]])


def test_only_candidates_of_the_group_are_impostors() -> None:
    whole = {each.subset: each for each in group_rates(attack(SCORES), GROUPS, SETTINGS)}
    within = {each.subset: each for each in within_rates(attack(SCORES), GROUPS, SETTINGS)}
    # p0 loses to p2 alone; p1 ties with p0; p2 loses to p3; p3 loses to p0 and p1.
    assert [whole[name].measured.interval.value for name in GROUPS] == [0.25, 0.0]
    assert [within[f"{name}|within"].measured.interval.value for name in GROUPS] == [0.75, 0.5]
    assert [each.gallery_size for each in within.values()] == [2, 2]
    assert [each.measured.chance for each in within.values()] == [0.5, 0.5]
    assert whole["sex=f"].gallery_size == 4
    assert within["sex=m|within"].in_subset.tolist() == [False, False, True, True]


def test_chance_within_a_group_is_measured() -> None:
    """Whoever is probed, p0 scores highest of all, and p3 is before p2; p0 and p3 have more."""
    own = [0, 0, 0, 1, 2, 3, 3, 3, 3]
    blind = attack(Given(own, [[9, 1, 2, 3]] * 9))
    within = {each.subset: each.measured for each in within_rates(blind, GROUPS, SETTINGS)}
    assert [each.chance for each in within.values()] == pytest.approx([0.75, 0.8])
    assert [each.interval.value for each in within.values()] == pytest.approx([0.75, 0.8])
    twice = AttackResult.of("blur", "blind", "full_ref", "source_excluded", *blind.scores * 2)
    assert within_rates(twice, GROUPS, SETTINGS)[1].measured.chance == pytest.approx(0.8)


def test_ranks_alone_have_no_rate_within_a_group() -> None:
    ranks = attack(SCORES).ranks
    bare = AttackResult("blur", "pretrained", "full_ref", "source_excluded", ranks)
    assert within_rates(bare, GROUPS, SETTINGS) == []
    assert within_rates(attack(SCORES), {}, SETTINGS) == []


def test_differences_are_those_of_one_attribute() -> None:
    rates = group_rates(attack(SCORES), {**GROUPS, "age=old": np.array(["p0", "p3"])}, SETTINGS)
    (difference,) = rate_differences(rates)
    assert difference.subset == "sex=f-m"
    assert difference.measured.name == "rank_1_difference"
    assert difference.measured.chance == 0
    assert difference.measured.interval.value == 0.25
    assert difference.in_subset.all()


def test_the_interval_is_that_of_newcombe() -> None:
    """Example (a) of Newcombe 1998: 56 of 70 and 48 of 80, method 10."""
    interval = difference_interval(wilson(56, 70), wilson(48, 80))
    assert interval == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_the_difference_of_small_groups_is_covered() -> None:
    """Five and eight people with four images each, whose rates differ by 0.2."""
    random, missed = np.random.default_rng(0), 0
    for _ in range(300):
        intervals = []
        for size, mean in ((5, 0.5), (8, 0.3)):
            rates = random.beta(4 * mean, 4 * (1 - mean), size)
            hits = random.binomial(1, np.repeat(rates, 4)).astype(float)
            intervals.append(rate_interval(hits, np.repeat(np.arange(size), 4)))
        low, high = difference_interval(*intervals)[1:]
        missed += not low <= 0.2 <= high
    assert missed <= 0.05 * 300
