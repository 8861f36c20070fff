"""Risk over the size of the gallery: against all subsets, against simulated larger galleries."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from cldmray.errors import BadInputError
from cldmray.evaluation.by_identity.gallery_curve import (
    fit_binormal,
    gallery_curve,
    gallery_sizes,
    rate_ratios,
)
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.ranking import Ranks, rank_probes
from cldmray.metrics.identification import success_at_rank, success_in_smaller_gallery
from tests.gallery.given_scores import Given


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


def simulated(gallery_size: int, probes: int, seed: int) -> npt.NDArray[np.int64]:
    """Impostors above the true identity, which is normal (1.5, 0.8) deviations above their mean."""
    random = np.random.default_rng(seed)
    return random.binomial(gallery_size - 1, stats.norm.cdf(-random.normal(1.5, 0.8, probes)))


def test_the_fit_finds_mean_and_spread() -> None:
    model = fit_binormal(simulated(200, 20_000, 0).astype(float), 199)
    assert model == (pytest.approx(1.5, abs=0.02), pytest.approx(0.8, abs=0.02))
    assert model.rate(200) == pytest.approx((simulated(200, 20_000, 1) == 0).mean(), abs=0.01)


@pytest.mark.parametrize(("noise", "rate"), [(3.0, 0.595), (5.0, 0.128), (8.0, 0.031)])
def test_larger_galleries_are_extrapolated(noise: float, rate: float) -> None:
    """1,000 people, three images each: what 100 of them say about all."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(1000, 128)), 3, axis=0)
    identities = np.repeat([f"p{number:03d}" for number in range(1000)], 3)
    samples = np.array([f"s{number:04d}" for number in range(3000)])

    def view(spread: float) -> EmbeddingSet:
        vectors = centres + spread * random.normal(size=centres.shape)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return EmbeddingSet(samples, identities, unit.astype(np.float32))

    images = view(0.3)
    ranks = rank_probes(view(noise), images, "full_ref", "source_excluded")
    assert (ranks.n_higher == 0).mean() == pytest.approx(rate, abs=0.01)
    # Of the others 99 are drawn for each probe.
    n_higher = random.hypergeometric(ranks.n_higher, 999 - ranks.n_higher, 99)
    ratio = rate_ratios(n_higher.astype(float), 100, [1000])[0]
    assert (n_higher == 0).mean() * ratio == pytest.approx(rate, rel=0.1)


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


def test_chance_is_measured_at_every_size() -> None:
    """Of five people the first scores highest, whoever is probed, and has half of the probes."""
    own = [0, 0, 0, 0, 1, 2, 3, 4]
    scores = Given(own, [[5, 4, 3, 2, 1]] * 8)
    attack = AttackResult.of("blur", "blind", "full_ref", "source_excluded", scores)
    curve = gallery_curve(attack, EvaluationSettings(n_bootstrap=100))
    shares = np.bincount(own) / 8
    for each in curve[:2]:
        expected = [over_all_subsets(place, 0, 5, each.gallery_size) for place in range(5)]
        assert each.measured.chance == pytest.approx(shares @ expected)
        assert each.measured.interval.value == pytest.approx(each.measured.chance)
    assert [each.gallery_size for each in curve] == [2, 5, 50, 500]
    assert curve[1].measured.chance == attack.chance == 0.5
    assert [each.measured.chance for each in curve[2:]] == pytest.approx([0.05, 0.005])
