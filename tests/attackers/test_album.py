"""The album attack links images where that identifies more, and leaves them alone elsewhere."""

import pytest

from cldmray.attackers.album import Album, best_n_links
from cldmray.errors import BadInputError
from cldmray.gallery.albums import LinkedScores
from cldmray.gallery.scores import Scores
from tests.gallery.given_scores import Given
from tests.gallery.test_albums import crowd, rank_1


def test_links_are_chosen_where_they_identify_more() -> None:
    assert best_n_links(crowd(2.0, common=2.0), (8, 0, 1)) == 8
    assert best_n_links(crowd(3.0), (8, 0, 1)) == 0
    apart = Given([0, 1], [[1.0, 0.0], [0.0, 1.0]])
    assert best_n_links(apart, (1, 0)) == 0, "of several that identify as many the smallest"


def test_the_sum_of_the_others_is_linked() -> None:
    scores: list[Scores] = [crowd(2.0, common=2.0), crowd(2.0, common=2.0)]
    linked, weights = Album(n_links=(0, 8)).combine(scores, scores)
    assert isinstance(linked, LinkedScores)
    assert (weights > 0).all()
    assert rank_1(linked) == pytest.approx(rank_1(LinkedScores(scores[0], 8)), abs=0.02)


def test_errors() -> None:
    with pytest.raises(ValueError, match="^n_links: "):
        Album(n_links=())
    with pytest.raises(ValueError, match="^n_links: "):
        Album(n_links=(0, -1))
    few: list[Scores] = [Given([0, 1], [[1.0, 0.0], [0.0, 1.0]])] * 2
    with pytest.raises(BadInputError, match="album.min_identities"):
        Album().combine(few, few)
