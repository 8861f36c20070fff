"""Risk over the size of the gallery: against all subsets, against simulated larger galleries."""

from itertools import combinations

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.evaluation.by_identity.gallery_curve import (
    fit_beta_binomial,
    gallery_curve,
    gallery_sizes,
    rate_ratios,
)
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.ranking import Ranks
from cldmray.metrics.identification import success_at_rank, success_in_smaller_gallery


def over_all_subsets(n_higher: int, n_tied: int, gallery_size: int, size: int) -> float:
    others = ["higher"] * n_higher + ["tied"] * n_tied
    others += ["lower"] * (gallery_size - 1 - len(others))
    rates = [
        0.0 if "higher" in drawn else 1 / (1 + drawn.count("tied"))
        for drawn in combinations(others, size - 1)
    ]
    return sum(rates) / len(rates)


@pytest.mark.parametrize("size", range(1, 8))
def test_the_closed_form_is_the_mean_over_all_subsets(size: int) -> None:
    pairs = [(higher, tied) for higher in range(7) for tied in range(7 - higher)]
    n_higher, n_tied = np.array(pairs).T
    expected = [over_all_subsets(*pair, 7, size) for pair in pairs]
    np.testing.assert_allclose(success_in_smaller_gallery(n_higher, n_tied, 7, size), expected)


def test_the_whole_gallery_is_rank_1() -> None:
    n_higher, n_tied = np.array([0, 0, 5, 4999]), np.array([0, 3, 0, 0])
    whole = success_in_smaller_gallery(n_higher, n_tied, 5000, 5000)
    np.testing.assert_allclose(whole, success_at_rank(n_higher, n_tied, 1), atol=1e-9)


def test_wrong_sizes_are_refused() -> None:
    for size in (0, 8):
        with pytest.raises(BadInputError, match="size"):
            success_in_smaller_gallery(np.array([0]), np.array([0]), 7, size)
    with pytest.raises(BadInputError, match="fewer than 7"):
        success_in_smaller_gallery(np.array([6]), np.array([1]), 7, 2)


def test_sizes() -> None:
    assert gallery_sizes(2) == [2]
    assert gallery_sizes(100) == [2, 5, 10, 20, 50, 100]
    assert gallery_sizes(1234) == [2, 5, 10, 20, 50, 100, 200, 500, 1000, 1234]


def simulated(gallery_size: int, probes: int, seed: int) -> np.ndarray:
    """Impostors above the true identity, whose share is Beta(0.3, 6) among the probes."""
    random = np.random.default_rng(seed)
    return random.binomial(gallery_size - 1, random.beta(0.3, 6.0, probes))


def test_the_fit_finds_the_shapes() -> None:
    a, b = fit_beta_binomial(simulated(200, 20_000, 0).astype(float), 199)
    assert (a, b) == (pytest.approx(0.3, rel=0.05), pytest.approx(6.0, rel=0.1))


def test_larger_galleries_are_extrapolated() -> None:
    small, large = simulated(100, 20_000, 1), simulated(1000, 20_000, 2)
    ratio = (large == 0).mean() / (small == 0).mean()
    assert rate_ratios(small.astype(float), 100, [1000])[0] == pytest.approx(ratio, rel=0.1)


def test_the_curve_of_an_attack() -> None:
    n_higher = simulated(100, 600, 3)
    identities = np.array([f"p{place % 100:02d}" for place in range(600)])
    samples = np.array([f"s{place:03d}" for place in range(600)])
    ranks = Ranks(n_higher, np.zeros(600, np.int64), identities, samples, 100)
    attack = AttackResult("blur", "pretrained", "full_ref", "source_excluded", ranks)
    curve = gallery_curve(attack, EvaluationSettings())
    assert [each.gallery_size for each in curve] == [2, 5, 10, 20, 50, 100, 1000, 10_000]
    assert curve[5].measured.name == "rank_1_at_gallery_100"
    measured = [each.measured for each in curve[:6]]
    values = [each.interval.value for each in measured if each.interval]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx((n_higher == 0).mean())
    for each in curve[6:]:
        assert each.measured.interval is None
        assert each.measured.reason == "extrapolated from 100 candidates, so there are no bounds"
        assert 1 / each.gallery_size <= each.measured.estimate < values[-1]
