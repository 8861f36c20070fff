"""Scores of albums, given or found: by hand, by brute force, and what pooling images does."""

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.gallery.albums import AlbumScores, LinkedScores, linked_probes
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.ranking import rank_scores
from cldmray.gallery.scores import EmbeddingScores, KeptScores, Scores, kept_if_small
from cldmray.metrics.identification import success_at_rank
from tests.gallery.given_scores import Given


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_means_by_hand(rows: int) -> None:
    scores = Given([2, 0, 2, 2], [[1, 2, 3], [9, 0, 0], [4, 5, 0], [1, 2, 3]], rows)
    albums = AlbumScores(scores)
    assert albums.identities.tolist() == albums.sample_ids.tolist() == ["p0", "p2"]
    assert albums.mated_columns.tolist() == [0, 2]
    (block,) = albums.blocks()
    np.testing.assert_allclose(block.scores, [[9, 0, 0], [2, 3, 2]])
    ranks = rank_scores(albums)
    assert (ranks.n_higher.tolist(), ranks.n_tied.tolist()) == ([0, 1], [0, 1])


def test_a_collapsed_encoder_stays_at_chance() -> None:
    noise = np.random.default_rng(0).uniform(-4e-7, 4e-7, (40, 10))
    scores = Given(list(range(10)) * 4, 0.5 + noise)
    assert rank_scores(AlbumScores(scores)).n_tied.tolist() == [9] * 10


def crowd(noise: float, *, is_blank: bool = False, common: float = 0.0) -> Scores:
    """Nine images each of 100 people.

    Args:
        noise: standard deviation of what each anonymized image adds to its person.
        is_blank: whether the anonymized images do not show their people.
        common: standard deviation of what all anonymized images of a person share and no reference
            shows.
    """
    random = np.random.default_rng(1)
    identities = np.repeat([f"p{number:03d}" for number in range(100)], 9)
    samples = np.array([f"s{number:04d}" for number in range(900)])
    centres = np.repeat(random.normal(size=(100, 64)), 9, axis=0)

    def view(centre: npt.NDArray[np.float64], spread: float) -> EmbeddingSet:
        vectors = centre + spread * random.normal(size=centres.shape)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return EmbeddingSet(samples, identities, unit.astype(np.float32))

    shared = common * np.repeat(random.normal(size=(100, 64)), 9, axis=0)
    probes = view(np.zeros_like(centres) if is_blank else centres + shared, noise)
    return EmbeddingScores(probes, view(centres, 0.3), "full_ref", "source_excluded")


def rank_1(scores: Scores) -> float:
    ranks = rank_scores(scores)
    return float(success_at_rank(ranks.n_higher, ranks.n_tied, 1).mean())


def test_nine_images_that_say_little_say_much_together() -> None:
    scores = crowd(5.2)
    assert rank_1(scores) == pytest.approx(0.16, abs=0.02)
    assert rank_1(AlbumScores(scores)) >= 0.85


def test_images_that_say_nothing_say_nothing_together() -> None:
    assert rank_1(AlbumScores(crowd(1.0, is_blank=True))) <= 0.04


def test_kept_scores_are_computed_once() -> None:
    scores = crowd(3.0)
    albums = kept_if_small(AlbumScores(scores))
    assert isinstance(albums, KeptScores)
    for kept in (scores, albums):
        (block,), (again,) = kept.blocks(), kept.blocks()
        assert block is again
    assert rank_1(albums) == rank_1(AlbumScores(scores))


def test_many_scores_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldmray.gallery.scores.KEPT_CELLS", 900 * 100 - 1)
    scores = crowd(3.0)
    (block,), (again,) = scores.blocks(), scores.blocks()
    assert block is not again
    np.testing.assert_array_equal(block.scores, again.scores)


def test_linked_means_by_hand() -> None:
    # The first two rows have one profile, the others one each.
    rows = [[3.0, 0, 0, 1], [9, 1, 0, 3], [0, 4, 0, 1], [0, 0, 2, 1]]
    (block,) = LinkedScores(Given([0, 0, 1, 2], rows), 1).blocks()
    np.testing.assert_allclose(block.scores[:2], [[6, 0.5, 0, 2]] * 2)
    (alone,) = LinkedScores(Given([0, 0, 1, 2], rows), 0).blocks()
    np.testing.assert_allclose(alone.scores, rows)


@pytest.mark.parametrize("n_links", [1, 3, 50])
def test_links_are_mutual_nearest_neighbors(n_links: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldmray.gallery.albums.CELLS", 40)
    table = np.random.default_rng(3).normal(size=(12, 6))
    columns = (table - table.mean(0)) / table.std(0)
    profiles = (columns - columns.mean(1, keepdims=True)) / columns.std(1, keepdims=True)
    nearest = [
        sorted(
            (other for other in range(12) if other != probe),
            key=lambda other, probe=probe: -float(profiles[probe] @ profiles[other]),  # type: ignore[misc]
        )[:n_links]
        for probe in range(12)
    ]
    expected = [[i in nearest[j] and j in nearest[i] for j in range(12)] for i in range(12)]
    np.testing.assert_array_equal(linked_probes(table, n_links).toarray(), expected)


def test_images_that_share_what_no_reference_shows_are_linked() -> None:
    scores = crowd(2.0, common=2.0)
    alone, linked = rank_1(scores), rank_1(LinkedScores(scores, 8))
    assert alone == pytest.approx(0.55, abs=0.05)
    assert alone + 0.15 <= linked <= rank_1(AlbumScores(scores))


def test_linked_images_that_say_nothing_say_nothing_together() -> None:
    assert rank_1(LinkedScores(crowd(1.0, is_blank=True), 8)) <= 0.03
