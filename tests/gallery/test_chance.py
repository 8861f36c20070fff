"""Chance by permuted identities: against dense formulas, and from a sample of the probes."""

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.gallery.chance import (
    FirstPlaces,
    measured_chance,
    measured_places,
    permuted_places,
    probe_shares,
    probes_of_places,
    with_first_place,
)
from cldmray.gallery.scores import SAME_SCORE, tie_resolved_blocks
from tests.gallery.given_scores import Given


def ties(seed: int = 0, probes: int = 60, identities: int = 7) -> Given:
    """Scores of few values, so that many tie; some people have many probes."""
    random = np.random.default_rng(seed)
    own = (identities * random.random(probes) ** 2).astype(int).tolist()
    return Given(own, random.integers(0, 4, (probes, identities)) / 4, rows=13)


def dense(scores: Given) -> tuple[npt.NDArray[np.float64], ...]:
    """Success, permuted success and attraction of each probe, from (P, N) probabilities."""
    table = scores.table.astype(np.float64)
    first = table >= table.max(1, keepdims=True) - SAME_SCORE
    best = first / first.sum(1, keepdims=True)
    own = np.arange(len(table)), scores.mated_columns
    return best[own], best @ probe_shares(scores), best.mean(0)[scores.mated_columns]


def test_against_dense_probabilities() -> None:
    scores = ties()
    success, permuted, attraction = dense(scores)
    measured = measured_chance([scores])
    np.testing.assert_allclose(measured.permuted, permuted)
    np.testing.assert_allclose(measured.attraction, attraction)
    assert 0.1 < success.mean() < 0.4
    for rows, block in tie_resolved_blocks(scores):
        np.testing.assert_allclose(
            FirstPlaces.of(block).permuted(probe_shares(scores)), permuted[rows]
        )


def test_the_first_of_all_places_is_the_permuted_success() -> None:
    scores = ties(1)
    (_, permuted, _) = dense(scores)
    np.testing.assert_allclose(permuted_places(scores.table, probe_shares(scores))[:, 0], permuted)


def test_where_scores_are_many_places_are_those_of_some_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = ties(2, probes=400)
    whole = measured_places([scores])
    assert probes_of_places(scores).all()
    monkeypatch.setattr("cldmray.gallery.chance.PLACE_SCORES", 7 * 100 + 6)
    sampled = probes_of_places(scores)
    assert sampled.sum() == 100
    places = measured_places([scores, scores])
    share = probe_shares(scores)
    of_sampled = permuted_places(scores.table[sampled], share).mean(0)
    np.testing.assert_allclose(places, with_first_place(of_sampled, dense(scores)[1].mean()))
    np.testing.assert_allclose(places, whole, atol=0.03)
    assert places.sum() == pytest.approx(1)
    monkeypatch.setattr("cldmray.gallery.chance.PLACE_SCORES", 0)
    assert probes_of_places(scores).sum() == 1
