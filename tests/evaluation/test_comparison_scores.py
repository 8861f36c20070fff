"""What is read of scores: by hand, and however the scores come in blocks."""

import numpy as np
import pytest

from cldmray.evaluation.measures import ComparisonScores, collect_comparisons, enrolled_identities
from cldmray.hashing import unit_hash
from tests.gallery.given_scores import Given

TABLE = [[9, 1, 2, 3], [4, 8, 8, 0], [5, 6, 1, 7], [2, 2, 2, 2]]
OWN = [0, 1, 0, 3]


def left_out() -> set[str]:
    """Two of the four people, those whose hashes are lowest."""
    return set(
        sorted(["p0", "p1", "p2", "p3"], key=lambda identity: unit_hash("open_set", identity))[:2]
    )


def test_by_hand() -> None:
    collected = collect_comparisons(Given(OWN, TABLE))
    assert collected.mated.tolist() == [9, 8, 5, 2]
    assert collected.labels.tolist() == ["p0", "p1", "p0", "p3"]
    assert collected.non_mated.tolist() == [[1, 2, 3], [4, 8, 0], [6, 1, 7], [2, 2, 2]]
    assert collected.non_mated_labels.tolist() == collected.labels.tolist()
    # Half of the probes belong to p0, a quarter each to p1 and p3, none to p2. The best of the
    # first is p0; of the second p1 or p2; of the third p3; of the fourth anybody.
    assert collected.shuffled.tolist() == [1 / 2, 1 / 8, 1 / 4, 1 / 4]


def test_the_open_set_by_hand() -> None:
    collected, gone = collect_comparisons(Given(OWN, TABLE)), left_out()
    names = ["p0", "p1", "p2", "p3"]
    assert collected.enrolled_identities == 2
    assert collected.enrolled.tolist() == [names[own] not in gone for own in OWN]
    for best_non_mated, row, own in zip(collected.best_non_mated, TABLE, OWN, strict=True):
        others = [score for score, identity in zip(row, names, strict=True)
                  if identity not in gone and identity != names[own]]  # fmt: skip
        assert best_non_mated == max(others)


@pytest.mark.parametrize("gallery_identities", [2, 3, 8, 101])
def test_half_of_the_people_stay(gallery_identities: int) -> None:
    names = np.array([f"p{number}" for number in range(gallery_identities)])
    stays = enrolled_identities(names)
    assert stays.sum() == gallery_identities - gallery_identities // 2
    order = np.random.default_rng(0).permutation(gallery_identities)
    np.testing.assert_array_equal(enrolled_identities(names[order]), stays[order])


def crowd(rows: int = 1000) -> Given:
    random = np.random.default_rng(0)
    return Given(random.integers(0, 7, 50).tolist(), random.normal(size=(50, 7)), rows)


def assert_same(collected: ComparisonScores, again: ComparisonScores) -> None:
    # The mean over all probes is summed up block by block.
    np.testing.assert_allclose(collected.places, again.places, rtol=1e-12)
    for column, other in zip(collected._replace(places=0), again._replace(places=0), strict=True):
        np.testing.assert_array_equal(column, other)


@pytest.mark.parametrize("rows", [1, 7, 49])
def test_blocks_change_nothing(rows: int) -> None:
    assert_same(collect_comparisons(crowd(rows)), collect_comparisons(crowd()))
    assert_same(collect_comparisons(crowd(rows), most=60), collect_comparisons(crowd(), most=60))


def test_shuffling_is_what_the_closed_form_says() -> None:
    scores = crowd()
    random = np.random.default_rng(1)
    first = scores.table.argmax(1)
    drawn = [np.mean(random.permutation(scores.mated_columns) == first) for _ in range(4000)]
    collected = collect_comparisons(scores)
    assert collected.shuffled.mean() == pytest.approx(np.mean(drawn), abs=0.004)
    place = np.argsort(np.argsort(-scores.table, axis=1), axis=1)
    rows = np.arange(len(place))
    drawn = [
        np.mean(place[rows, random.permutation(scores.mated_columns)] < 3) for _ in range(4000)
    ]
    assert collected.places[:3].sum() == pytest.approx(np.mean(drawn), abs=0.006)


class TestFewerNonMatedScores:
    def test_whole_probes_by_hash(self) -> None:
        collected = collect_comparisons(crowd(), most=65)
        assert collected.non_mated.shape == (10, 6)
        scores = crowd()
        order = sorted(range(50), key=lambda row: unit_hash("non_mated", f"s{row}"))[:10]
        assert collected.non_mated_labels.tolist() == scores.identities[sorted(order)].tolist()
        assert set(collected.non_mated[0]) < set(scores.table[min(order)])
        assert len(collected.mated) == 50

    def test_at_least_one_probe(self) -> None:
        assert collect_comparisons(crowd(), most=1).non_mated.shape == (1, 6)

    def test_the_order_of_probes_chooses_no_others(self) -> None:
        whole = crowd()
        back = Given(whole.mated_columns[::-1].tolist(), whole.table[::-1])
        back.sample_ids = whole.sample_ids[::-1]
        collected, again = collect_comparisons(whole, most=65), collect_comparisons(back, most=65)
        np.testing.assert_array_equal(again.non_mated[::-1], collected.non_mated)
