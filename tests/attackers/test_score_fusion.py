import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cldmray.attackers.score_fusion import ScoreFusion, fit_weights
from cldmray.gallery.score_fusion import normalized


class TestNormalised:
    def test_by_hand(self) -> None:
        result = normalized(np.array([[1.0, 2.0, 3.0]]))
        np.testing.assert_allclose(result, [[-math.sqrt(1.5), 0.0, math.sqrt(1.5)]])

    def test_scale_and_offset_of_an_attacker_do_not_matter(self) -> None:
        scores = np.random.default_rng(0).normal(size=(5, 7))
        np.testing.assert_allclose(normalized(3 * scores - 8), normalized(scores), atol=1e-12)

    def test_equal_scores_tell_nothing(self) -> None:
        assert not normalized(np.full((2, 4), 0.3, np.float32)).any()


def drawn(probes: int, signals: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of attackers in which the true candidate stands out by a given amount."""
    random = np.random.default_rng(seed)
    own = random.integers(0, 20, probes)
    scores = random.normal(size=(probes, 20, len(signals)))
    scores[np.arange(probes), own] += signals
    return np.stack([normalized(scores[..., r]) for r in range(len(signals))], 2), own


class TestFitWeights:
    def test_the_attacker_that_knows_more_counts_more(self) -> None:
        weights = fit_weights(*drawn(600, [2.0, 1.0, 0.0]), penalty=0.01)
        assert weights[0] > weights[1] + 0.3 > weights[2] + 0.6
        assert (weights >= 0).all()

    def test_an_attacker_that_is_wrong_gets_nothing(self) -> None:
        weights = fit_weights(*drawn(600, [2.0, -1.0]), penalty=0.01)
        assert weights[1] == 0.0

    def test_one_attacker_against_a_search_over_its_likelihood(self) -> None:
        scores, own = drawn(300, [1.5])

        def loss(weight: float) -> float:
            rows = [
                math.log(sum(math.exp(weight * x) for x in row)) - weight * row[mine]
                for row, mine in zip(scores[..., 0].tolist(), own.tolist(), strict=True)
            ]
            return sum(rows) / len(rows) + 0.01 * weight**2

        best = minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 1e-8})
        assert fit_weights(scores, own, 0.01)[0] == pytest.approx(best.x, abs=1e-3)

    def test_perfect_attackers_keep_finite_weights(self) -> None:
        weights = fit_weights(*drawn(50, [30.0, 30.0]), penalty=0.01)
        assert np.isfinite(weights).all() and weights.min() > 0

    def test_adding_up_is_better_than_each_alone(self) -> None:
        scores, own = drawn(800, [1.2, 1.2])
        fresh, truth = drawn(800, [1.2, 1.2], seed=1)

        def rate(weights: np.ndarray) -> float:
            return float(((fresh @ weights).argmax(1) == truth).mean())

        fused = rate(fit_weights(scores, own, 0.01))
        assert fused > max(rate(np.array([1.0, 0.0])), rate(np.array([0.0, 1.0]))) + 0.05


class TestFusion:
    def test_what_it_fuses(self) -> None:
        keys = ["condition_match", "adaptive_contrastive", "clean_trained"]
        assert ScoreFusion().combines(keys) == keys
        assert ScoreFusion(of=("clean_trained", "condition_match")).combines(keys) == [
            keys[0],
            keys[2],
        ]

    @pytest.mark.parametrize(
        ("of", "keys", "message"),
        [
            (("blur",), ["a", "b"], "^of: 'blur' is no other attacker"),
            (("a",), ["a", "b"], "^of: a fusion needs at least two"),
            ((), ["a"], "^of: a fusion needs at least two"),
        ],
    )
    def test_refused(self, of: tuple[str, ...], keys: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ScoreFusion(of=of).combines(keys)

    @pytest.mark.parametrize(("key", "value"), [("penalty", -1.0), ("min_identities", 1)])
    def test_errors_name_the_key(self, key: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"^{key}: "):
            ScoreFusion(**{key: value})  # type: ignore[arg-type]
