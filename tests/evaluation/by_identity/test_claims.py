"""Precision of the most confident claims: by hand, at chance, and where there are too few."""

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.evaluation.by_identity.claims import (
    Claims,
    collect_claims,
    most_confident,
    precision_measures,
)
from cldmray.evaluation.measures import Measured
from cldmray.evaluation.settings import EvaluationSettings
from tests.gallery.given_scores import Given

SETTINGS = EvaluationSettings(n_bootstrap=100)


def by_name(measured: list[Measured]) -> dict[str, Measured]:
    return {each.name: each for each in measured}


def test_claims_by_hand() -> None:
    claims = collect_claims(
        Given([0, 1, 0, 3], [[9, 1, 2, 3], [4, 8, 8, 0], [5, 6, 1, 9], [2] * 4])
    )
    assert claims.correct.tolist() == [1, 0.5, 0, 0.25]
    assert claims.confidence.tolist() == [6, 0, 3, 0]
    # Half of the probes belong to p0, a quarter each to p1 and p3, none to p2.
    assert claims.permuted.tolist() == [1 / 2, 1 / 8, 1 / 4, 1 / 4]


def test_the_most_confident_are_at_least_one_and_ties_come_along() -> None:
    confidence = np.array([0.1, 0.4, 0.4, 0.2])
    assert most_confident(confidence, 0.25).tolist() == [False, True, True, False]
    assert most_confident(confidence, 0.01).sum() == 2
    assert most_confident(confidence, 0.75).tolist() == [False, True, True, True]
    assert most_confident(confidence, 1).all()


def claims(correct: npt.ArrayLike, confidence: npt.ArrayLike) -> Claims:
    hits = np.asarray(correct, np.float64)
    names = np.array([f"s{row:03d}" for row in range(len(hits))])
    return Claims(hits, np.full(len(hits), 0.02), np.asarray(confidence, np.float64), names, names)


def test_precision_by_hand() -> None:
    correct = [1.0] * 3 + [0.0] * 2 + [1.0] * 1 + [0.0] * 94
    measured = by_name(precision_measures([claims(correct, np.arange(100)[::-1])], SETTINGS))
    values = {name: each.interval.value for name, each in measured.items() if each.interval}
    assert values == pytest.approx(
        {"precision_top_1pct": 1.0, "precision_top_5pct": 0.6, "precision_top_10pct": 0.4}
    )
    assert measured["precision_top_5pct"].chance == pytest.approx(0.02)
    assert measured["precision_top_5pct"].n_claims == (5, 5)
    # Clopper and Pearson's bounds of 3 in 5.
    assert measured["precision_top_5pct"].interval[1:] == pytest.approx((0.1466, 0.9473), abs=1e-4)


def test_an_attacker_without_confidence_is_as_good_as_on_the_whole() -> None:
    scores = Given(list(range(10)) * 20, np.full((200, 10), 0.5))
    for measured in precision_measures([collect_claims(scores)], SETTINGS):
        assert measured.interval is not None
        assert measured.interval.value == pytest.approx(0.1)
        assert measured.chance == pytest.approx(0.1)


def test_trainings_have_their_own_most_confident_claims() -> None:
    first = claims([1.0] + [0.0] * 99, np.arange(100)[::-1])
    second = claims([0.0] * 100, 1000 * np.arange(100)[::-1])
    measured = by_name(precision_measures([first, second], SETTINGS))
    assert measured["precision_top_1pct"].interval.value == 0.5


def test_an_image_that_all_trainings_name_weighs_more_than_one_that_a_single_training_names() -> (
    None
):
    """Each of three trainings is right once in three claims, of the same image."""
    trainings = []
    for training in range(3):
        confidence = np.zeros(30)
        confidence[[0, 2 * training + 1, 2 * training + 2]] = 1
        trainings.append(claims([1.0] + [0.0] * 29, confidence))
    precisions = [by_name(precision_measures([each], SETTINGS)) for each in trainings]
    together = by_name(precision_measures(trainings, SETTINGS))["precision_top_10pct"]
    assert together.interval == pytest.approx(precisions[0]["precision_top_10pct"].interval)
    assert together.interval.value == pytest.approx(1 / 3)
    assert together.n_claims == (7, 7)


def test_trainings_with_the_same_claims_say_no_more_than_one() -> None:
    repeated = claims([1.0, 0.0, 1.0, 0.0] * 25, np.arange(100))
    alone, together = (precision_measures([repeated] * times, SETTINGS) for times in (1, 3))
    for single, pooled in zip(alone, together, strict=True):
        assert pooled.interval == pytest.approx(single.interval)
        assert pooled.n_claims == single.n_claims


def test_one_claim_of_each_training_has_bounds() -> None:
    trainings = [claims([1.0] * 100, np.eye(100)[place]) for place in range(3)]
    measured = by_name(precision_measures(trainings, SETTINGS))["precision_top_1pct"]
    assert measured.interval == pytest.approx((1.0, 0.025, 1.0))


def test_less_than_one_claim_has_no_precision() -> None:
    measured = by_name(precision_measures([claims([1.0] * 60, range(60))], SETTINGS))
    assert measured["precision_top_1pct"].interval is None
    assert measured["precision_top_1pct"].reason == "1% of 60 images is less than one claim"
    assert measured["precision_top_5pct"].interval is not None
