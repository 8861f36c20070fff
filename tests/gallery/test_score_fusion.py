from collections.abc import Iterator

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.gallery.ranking import rank_scores
from cldmray.gallery.score_fusion import WeightedScores, normalized, stack_scores
from cldmray.gallery.scores import ScoreBlock, Scores
from cldmray.metrics.identification import success_at_rank


class Given(Scores):
    """Scores that are known, in blocks of two probes."""

    def __init__(self, scores: np.ndarray, own: list[int], name: str = "s") -> None:
        self.scores = scores.astype(np.float32)
        self.mated_columns = np.array(own)
        self.gallery_identities = np.array([f"p{i}" for i in range(scores.shape[1])])
        self.sample_ids = np.array([f"{name}{i}" for i in range(len(own))])
        self.identities = self.gallery_identities[self.mated_columns]

    def blocks(self) -> Iterator[ScoreBlock]:
        for start in range(0, len(self.mated_columns), 2):
            rows = np.arange(start, min(start + 2, len(self.mated_columns)))
            yield ScoreBlock(rows, self.scores[rows])


FIRST = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
SECOND = np.array([[0.1, 0.2, 0.3], [0.1, 0.9, 0.2], [0.2, 0.1, 0.3]])
OWN = [0, 1, 2]


def test_the_sum_by_hand() -> None:
    fused = WeightedScores([Given(FIRST, OWN), Given(SECOND, OWN)], np.array([1.0, 0.5]))
    blocks = list(fused.blocks())
    assert [block.rows.tolist() for block in blocks] == [[0, 1], [2]]
    result = np.concatenate([block.scores for block in blocks])
    high = np.sqrt(1.5)
    np.testing.assert_allclose(result[0], [high / 2, 0.0, -high / 2], atol=1e-6)
    np.testing.assert_allclose(result[2], 0.5 * normalized(SECOND)[2], atol=1e-6)


def test_ranks_come_from_the_sum() -> None:
    first, second = Given(FIRST, OWN), Given(SECOND, OWN)
    assert rank_scores(first).n_higher.tolist() == [0, 1, 0]
    assert rank_scores(second).n_higher.tolist() == [2, 0, 0]
    fused = rank_scores(WeightedScores([first, second], np.array([1.0, 1.5])))
    assert fused.n_higher.tolist() == [2, 0, 0]
    assert fused.sample_ids.tolist() == ["s0", "s1", "s2"]
    assert fused.gallery_size == 3


def test_stacked() -> None:
    result = stack_scores([Given(FIRST, OWN), Given(SECOND, OWN)])
    assert result.shape == (3, 3, 2)
    np.testing.assert_allclose(result[..., 1], normalized(SECOND.astype(np.float32)))


@pytest.mark.parametrize("other", [Given(SECOND, OWN, "t"), Given(SECOND[:, :2], [0, 1, 0])])
def test_different_probes_or_people_are_refused(other: Given) -> None:
    with pytest.raises(BadInputError, match="different probes or people"):
        stack_scores([Given(FIRST, OWN), other])
    with pytest.raises(BadInputError, match="different probes or people"):
        WeightedScores([Given(FIRST, OWN), other], np.ones(2))


def one_identity_under_names(rng: np.random.Generator, n_names: int) -> list[Given]:
    """Two attackers' scores of probes whose person has several names; only rounding differs."""
    parts = []
    for scale in (1e-4, 1.0):
        scores = np.full((200, n_names + 2), 0.5) + 0.4 * scale * rng.random((200, n_names + 2))
        scores[:, :n_names] = scores[:, :1]
        scores[:, :n_names] += rng.choice([-3e-7, 0.0, 3e-7], (200, n_names)) / 2
        scores[:, n_names:] = scores[:, :1] - scale * 0.1
        parts.append(Given(scores, [row % n_names for row in range(200)]))
    return parts


@pytest.mark.parametrize("weights", [(3.0, 5.0), (300.0, 1.0), (1.0, 0.0)])
def test_names_of_one_person_tie_whatever_the_weights(weights: tuple[float, float]) -> None:
    parts = one_identity_under_names(np.random.default_rng(0), 4)
    ranks = rank_scores(WeightedScores(parts, np.array(weights)))
    assert success_at_rank(ranks.n_higher, ranks.n_tied, 1).mean() == 0.25
    stacked = stack_scores(parts)
    assert (stacked[:, :4] == stacked[:, :1]).all()


def test_ranks_of_sums_equal_a_loop_over_identities() -> None:
    rng = np.random.default_rng(1)
    own = rng.integers(0, 6, 40).tolist()
    # Scores of few levels, some of them shifted by less than what counts as rounding.
    parts = [
        Given(rng.integers(0, 4, (40, 6)) / 4 + rng.choice([0.0, 4e-7], (40, 6)), own)
        for _ in range(3)
    ]
    weights = np.array([3.0, 5.0, 0.7])
    ranks = rank_scores(WeightedScores(parts, weights))
    for row, mine in enumerate(own):
        levels = [np.round(part.scores[row] * 4) / 4 for part in parts]
        totals = sum(
            weight * (level - level.mean()) / (level.std() or 1.0)
            for weight, level in zip(weights, levels, strict=True)
        )
        others = np.delete(totals, mine)
        assert ranks.n_tied[row] == np.isclose(others, totals[mine], atol=1e-5).sum()
        assert ranks.n_higher[row] == (others > totals[mine] + 1e-5).sum()
