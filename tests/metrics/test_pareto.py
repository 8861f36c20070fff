import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.pareto import pareto_front


def test_by_hand() -> None:
    #        cheap  dear but better  dear and worse  dear and equal  cheapest, gains nothing
    costs = [10, 100, 100, 50, 5]
    gains = [0.2, 0.5, 0.4, 0.2, 0.0]
    assert pareto_front(costs, gains).tolist() == [True, True, False, False, True]


def test_equal_points_are_all_kept() -> None:
    assert pareto_front([1, 1], [0.5, 0.5]).tolist() == [True, True]
    assert pareto_front([], []).tolist() == []


def test_it_is_the_slow_loop() -> None:
    random = np.random.default_rng(0)
    costs, gains = random.integers(0, 6, 40), random.integers(0, 6, 40)
    kept = []
    for i in range(40):
        kept.append(
            not any(
                costs[j] <= costs[i]
                and gains[j] >= gains[i]
                and (costs[j], gains[j]) != (costs[i], gains[i])
                for j in range(40)
            )
        )
    assert pareto_front(costs, gains).tolist() == kept


@pytest.mark.parametrize(("costs", "gains"), [([1], [1, 2]), ([np.nan], [1]), ([[1]], [[1]])])
def test_errors(costs: object, gains: object) -> None:
    with pytest.raises(BadInputError):
        pareto_front(costs, gains)  # type: ignore[arg-type]
