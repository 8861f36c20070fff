"""The measures of one attack: by hand, at the extremes, and for several trainings."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.arrays import Interval
from cldmray.evaluation.measures import (
    Measured,
    collect_comparisons,
    det_curves,
    measure,
    rank_1_by_subset,
)
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.chance import measured_places
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.ranking import Ranks, pool_ranks, rank_scores
from cldmray.gallery.scores import EmbeddingScores, Scores
from cldmray.metrics.identification import fnir_at_fpir
from cldmray.metrics.linkage import d_sys
from cldmray.metrics.rates import rate_interval
from cldmray.metrics.verification import equal_error_rate, tmr_at_fmr
from tests.gallery.given_scores import Given

SETTINGS = EvaluationSettings(n_bootstrap=200)
OF_RANKS = ["rank_1", "rank_5", "rank_10", "rank_50", "mean_reciprocal_rank"]
OF_SETS = [
    "mean_rank",
    "median_rank",
    "p10_rank",
    "median_rank_by_identity",
    "p10_rank_by_identity",
    "k_not_rejected",
    "k_point_estimate",
]
OF_SCORES = [
    "eer",
    "tmr_at_fmr_1e-2",
    "tmr_at_fmr_1e-3",
    "d_sys",
    "fnir_at_fpir_1e-1",
    "fnir_at_fpir_1e-2",
    "fnir_at_fpir_3e-3",
]


def supported(measured: dict[str, Measured]) -> dict[str, Interval]:
    """Intervals of those measures that the comparisons support."""
    return {name: result.interval for name, result in measured.items() if result.interval}


def given(n_higher: list[int], n_tied: list[int], identities: list[str], size: int) -> Ranks:
    samples = np.array([f"{place:04d}" for place in range(len(n_higher))])
    return Ranks(np.array(n_higher), np.array(n_tied), np.array(identities), samples, size)


def by_name(measured: list[Measured]) -> dict[str, Measured]:
    results = {result.name: result for result in measured}
    assert len(results) == len(measured)
    return results


def crowd(noise: float, gallery_identities: int = 20, seed: int = 0) -> Scores:
    """Scores of 4 images a person; without noise they are the images' own vectors."""
    random = np.random.default_rng(seed)
    identities = np.repeat([f"p{number:02d}" for number in range(gallery_identities)], 4)
    samples = np.array([f"s{number:03d}" for number in range(len(identities))])
    centres = np.repeat(random.normal(size=(gallery_identities, 24)), 4, axis=0)

    def view(spread: float) -> npt.NDArray[np.float32]:
        vectors = centres + spread * random.normal(size=centres.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    images = EmbeddingSet(samples, identities, view(0.01))
    if np.isinf(noise):
        same = np.tile(view(0.01)[:1], (len(samples), 1))
        return EmbeddingScores(
            EmbeddingSet(samples, identities, same),
            EmbeddingSet(samples, identities, same),
            "full_ref",
            "source_excluded",
        )
    probes = EmbeddingSet(samples, identities, view(noise))
    return EmbeddingScores(probes, images, "full_ref", "source_excluded")


def measured_of(*scores: Scores, settings: EvaluationSettings = SETTINGS) -> dict[str, Measured]:
    return by_name(
        measure(pool_ranks([rank_scores(result) for result in scores]), scores, settings)
    )


class TestRanksByHand:
    RANKS = given([0, 0, 3, 6], [0, 1, 0, 0], ["ann", "ann", "bob", "cat"], 8)

    def results(self) -> dict[str, Measured]:
        return by_name(measure(self.RANKS, [], SETTINGS))

    def test_names(self) -> None:
        assert list(self.results()) == OF_RANKS + OF_SETS

    def test_values(self) -> None:
        values = {name: result.interval.value for name, result in self.results().items()}
        assert values["rank_1"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
        assert values["rank_5"] == pytest.approx(3 / 4)
        assert values["rank_10"] == 1.0
        mean = (1 + (1 + 1 / 2) / 2 + 1 / 4 + 1 / 7) / 4
        assert values["mean_reciprocal_rank"] == pytest.approx(mean)
        # Ranks 1, 1.5, 4 and 7; those of the people are 1.25, 4 and 7.
        assert values["mean_rank"] == pytest.approx(13.5 / 4)
        assert values["median_rank"] == 1.5
        assert values["p10_rank"] == 1
        assert values["median_rank_by_identity"] == 4
        assert values["p10_rank_by_identity"] == 1.25
        assert values["k_point_estimate"] == pytest.approx(8 / 3)

    def test_chance(self) -> None:
        guesses = {name: result.chance for name, result in self.results().items()}
        assert guesses["rank_1"] == pytest.approx(1 / 8)
        assert guesses["rank_5"] == pytest.approx(5 / 8)
        assert guesses["rank_10"] == 1.0
        harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6 + 1 / 7 + 1 / 8
        assert guesses["mean_reciprocal_rank"] == pytest.approx(harmonic / 8)
        assert guesses["mean_rank"] == guesses["median_rank_by_identity"] == 4.5
        assert (guesses["median_rank"], guesses["p10_rank"]) == (4, 1)
        # One image of two people, two of one: variance 63 / 12 times (1 + 1 + 1 / 2) / 3.
        spread = (63 / 12 * 2.5 / 3) ** 0.5
        assert guesses["p10_rank_by_identity"] == pytest.approx(4.5 - 1.2815516 * spread)
        assert guesses["k_not_rejected"] == guesses["k_point_estimate"] == 8

    def test_claims_follow_the_interval_of_rank_1(self) -> None:
        results = self.results()
        low, high = results["rank_1"].interval.low, results["rank_1"].interval.high
        largest = results["k_not_rejected"].interval
        assert largest == (min(8, int(1 / low)) if low else 8, int(1 / high), largest.value)
        estimate = results["k_point_estimate"].interval
        assert estimate.low == pytest.approx(1 / high)
        assert estimate.high == (pytest.approx(1 / low) if low * 8 > 1 else 8)

    def test_the_level_widens_the_bounds(self) -> None:
        ranks = given([0, 9] * 20, [0] * 40, [f"p{place % 13}" for place in range(40)], 20)
        wide, narrow = (
            by_name(measure(ranks, [], replace(SETTINGS, confidence_level=confidence_level)))[
                "rank_1"
            ].interval
            for confidence_level in (0.99, 0.8)
        )
        assert wide.low < narrow.low < narrow.high < wide.high


def test_measures_of_scores_are_the_exact_ones() -> None:
    scores = crowd(1.5)
    comparisons, results = collect_comparisons(scores), measured_of(scores)
    values = {name: interval.value for name, interval in supported(results).items()}
    assert list(results) == [*OF_RANKS, "rank_1_shuffled", *OF_SETS, *OF_SCORES]
    assert values["eer"] == equal_error_rate(comparisons.mated, comparisons.non_mated)
    assert values["tmr_at_fmr_1e-2"] == tmr_at_fmr(comparisons.mated, comparisons.non_mated, 0.01)
    assert values["tmr_at_fmr_1e-3"] == tmr_at_fmr(comparisons.mated, comparisons.non_mated, 0.001)
    assert values["d_sys"] == d_sys(comparisons.mated, comparisons.non_mated)
    mine = comparisons.enrolled
    unknown = comparisons.best_non_mated[~mine]
    expected = fnir_at_fpir(comparisons.mated[mine], comparisons.best_non_mated[mine], unknown, 0.1)
    assert values["fnir_at_fpir_1e-1"] == expected
    assert 0 < values["eer"] < 0.5
    for interval in supported(results).values():
        assert interval.low <= interval.value <= interval.high


def test_a_measure_is_null_where_the_comparisons_cannot_support_it() -> None:
    # 20 people with 4 images each, of whom 10 are not enrolled; then 4 people, of whom 2 are not.
    results, few = measured_of(crowd(1.5)), measured_of(crowd(1.5, gallery_identities=4))
    assert set(results) - set(supported(results)) == {"fnir_at_fpir_1e-2", "fnir_at_fpir_3e-3"}
    result = results["fnir_at_fpir_3e-3"]
    assert (result.interval, result.n_non_mated) == (None, 40)
    assert result.reason == (
        "an error rate of 0.003 needs at least 334 probes of people not enrolled; there are 40"
    )
    assert few["tmr_at_fmr_1e-2"].reason == (
        "an error rate of 0.01 needs at least 100 non-mated scores; there are 48"
    )
    assert few["eer"].reason is None


def test_chance_of_measures_of_scores() -> None:
    guesses = {name: result.chance for name, result in measured_of(crowd(1.5)).items()}
    linked = guesses.pop("d_sys")
    assert [guesses[name] for name in OF_SCORES if name != "d_sys"] == pytest.approx(
        [0.5, 0.01, 0.001, 1 - 0.1 / 10, 1 - 0.01 / 10, 1 - 0.003 / 10]
    )
    assert 0.02 < linked < 0.2
    assert guesses["rank_1_shuffled"] == 1 / 20


def test_chance_at_every_rank_is_that_of_permuted_identities() -> None:
    """Three people with 3, 1 and 1 images, whom the attacker always ranks in this order."""
    scores = Given([0, 0, 0, 1, 2], [[0.9, 0.5, 0.1]] * 5)
    results = measured_of(scores)
    assert results["rank_1"].chance == pytest.approx(3 / 5)
    assert results["rank_5"].chance == 1
    assert results["mean_reciprocal_rank"].chance == pytest.approx((3 + 1 / 2 + 1 / 3) / 5)
    assert results["mean_rank"].chance == pytest.approx((3 + 2 + 3) / 5)
    assert (results["median_rank"].chance, results["p10_rank"].chance) == (1, 1)
    assert results["rank_1"].interval is not None
    assert results["rank_1"].interval.value == pytest.approx(results["rank_1"].chance)


def test_det_curves_pass_through_the_measures() -> None:
    scores, other = crowd(1.5), crowd(2.5, seed=1)
    results = measured_of(scores, other)
    curves = det_curves([scores, other])
    rates, misses = curves["verification"]
    # 80 probes with 19 other people each support rates from 1 / 1520 on.
    assert (rates[0], rates[-1], misses[-1]) == (0.001, 1.0, 0.0)
    assert misses == sorted(misses, reverse=True)
    at_hundredth = dict(zip(rates, misses, strict=True))[0.01]
    assert results["tmr_at_fmr_1e-2"].interval is not None
    assert at_hundredth == pytest.approx(1 - results["tmr_at_fmr_1e-2"].interval.value)
    rates, misses = curves["open_set"]
    assert rates[0] >= 1 / 40
    assert results["fnir_at_fpir_1e-1"].interval is not None
    assert dict(zip(rates, misses, strict=True))[0.1] == pytest.approx(
        results["fnir_at_fpir_1e-1"].interval.value
    )


def test_a_perfect_attack() -> None:
    intervals = supported(measured_of(crowd(0.01)))
    values = {name: interval.value for name, interval in intervals.items()}
    assert intervals["d_sys"].low > 0
    assert values["rank_1"] == values["tmr_at_fmr_1e-3"] == values["d_sys"] == 1
    assert values["eer"] == values["fnir_at_fpir_1e-1"] == 0
    assert values["median_rank_by_identity"] == values["k_not_rejected"] == 1
    assert values["rank_1_shuffled"] == pytest.approx(1 / 20)


def test_a_collapsed_encoder_is_at_chance() -> None:
    results = measured_of(crowd(np.inf))
    values = {name: interval.value for name, interval in supported(results).items()}
    assert [values["rank_1"], values["rank_1_shuffled"]] == pytest.approx([1 / 20] * 2)
    assert values["eer"] == pytest.approx(0.5)
    assert values["d_sys"] == pytest.approx(0, abs=1e-6)
    assert values["tmr_at_fmr_1e-2"] <= 0.1
    assert values["fnir_at_fpir_1e-1"] == 1
    for name in ("mean_rank", "median_rank"):
        assert values[name] == pytest.approx(results["mean_rank"].chance)


def test_trainings_are_averaged() -> None:
    first, second = crowd(1.5), crowd(2.5, seed=1)
    alone, other = measured_of(first), measured_of(second)
    both = measured_of(first, second)
    for name in (*OF_RANKS, "rank_1_shuffled", "mean_rank", *OF_SCORES[:-2]):
        mean = (alone[name].interval.value + other[name].interval.value) / 2
        assert both[name].interval.value == pytest.approx(mean), name
    lows = alone["eer"].interval.low + other["eer"].interval.low
    assert both["eer"].interval.low == pytest.approx(lows / 2)


def test_one_linking_training_of_two_links_not_significantly() -> None:
    linking, blind = crowd(0.5), crowd(50.0, seed=1)
    alone, other = measured_of(linking)["d_sys"], measured_of(blind)["d_sys"]
    assert alone.interval.low > 0 == other.interval.low and alone.chance != other.chance
    both, twice = measured_of(linking, blind)["d_sys"], measured_of(linking, linking)["d_sys"]
    assert both.interval.low == 0
    assert both.interval.value == pytest.approx((alone.interval.value + other.interval.value) / 2)
    assert both.chance == pytest.approx((alone.chance + other.chance) / 2)
    assert twice.interval == pytest.approx(alone.interval)


def test_images_of_one_person_alone() -> None:
    names = np.array(["ann", "ann", "bob", "cat"])
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    images = EmbeddingSet(np.array(["a1", "a2", "b1", "c1"]), names, vectors)
    results = measured_of(EmbeddingScores(images, images, "full_ref", "source_excluded"))
    assert results["rank_1"].interval is not None and results["rank_1"].interval.value == 1
    assert results["median_rank_by_identity"].chance == 1, "whoever is probed, Ann comes first"


def test_a_high_level_has_the_permutations_that_it_needs() -> None:
    """The smallest p-value of R permutations is 1 / (R + 1)."""
    settings = replace(SETTINGS, confidence_level=0.999)
    linked = measured_of(crowd(0.0), settings=settings)["d_sys"].interval
    assert linked is not None and linked.low > 0
    permuted = collect_comparisons(crowd(0.0), confidence_level=0.999).permuted
    assert permuted.shape[1] == 1999


def test_the_first_place_is_that_of_all_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldmray.gallery.chance.PLACE_SCORES", 300)
    scores = crowd(1.5)
    results = measured_of(scores)
    places = measured_places([scores])
    assert places[0] == pytest.approx(results["rank_1"].chance)
    assert places.sum() == pytest.approx(1)
    chances = [results[f"rank_{k}"].chance for k in (1, 5, 10, 50)]
    assert chances == sorted(chances) and chances[-1] == pytest.approx(1)


def test_too_few_people_for_an_open_set() -> None:
    results = measured_of(crowd(0.5, gallery_identities=2))
    assert list(results)[-1] == "d_sys"
    assert list(measured_of(crowd(0.5, gallery_identities=3)))[-1] == "fnir_at_fpir_3e-3"


def test_subsets() -> None:
    ranks = given([0, 0, 3, 6, 0], [0, 1, 0, 0, 0], ["ann", "ann", "bob", "cat", "dan"], 8)
    subsets = {"sex=f": np.array(["ann", "cat"]), "sex=x": np.array(["eve"])}
    ((name, interval, own),) = rank_1_by_subset(ranks, subsets, SETTINGS)
    assert name == "sex=f"
    assert own.tolist() == [True, True, False, True, False]
    expected = rate_interval(
        [1, 0.5, 0], np.array(["ann", "ann", "cat"]), confidence_level=SETTINGS.confidence_level
    )
    assert interval == expected
    assert interval.value == pytest.approx(0.5)
