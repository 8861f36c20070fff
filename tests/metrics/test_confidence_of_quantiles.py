"""Quantiles of images: by hand, against NumPy, and against plain resampling."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.confidence import bootstrap_quantiles

SHARES = [0.1, 0.25, 0.5, 0.9, 1.0]


def test_by_hand() -> None:
    values = [3.0, 1.0, 2.0, 4.0]
    intervals = bootstrap_quantiles(values, ["a", "b", "c", "d"], [0.25, 0.26, 0.5, 1.0])
    assert [interval.value for interval in intervals] == [1, 2, 2, 4]
    assert all(interval.low <= interval.value <= interval.high for interval in intervals)


def test_values_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    for size in (1, 7, 50):
        values = random.integers(1, 20, size) / 2
        intervals = bootstrap_quantiles(values, np.arange(size), SHARES, n_bootstrap=5)
        expected = np.quantile(values, SHARES, method="inverted_cdf")
        assert [interval.value for interval in intervals] == expected.tolist()


def test_bounds_are_those_of_plain_resampling() -> None:
    random = np.random.default_rng(1)
    identities = random.integers(0, 12, 60)
    values = random.normal(size=60) + identities
    intervals = bootstrap_quantiles(
        values, identities, [0.5], confidence_level=0.9, n_bootstrap=4000, seed=3
    )[0]
    unique_identities = [values[identities == label] for label in np.unique(identities)]
    drawn = [
        np.quantile(
            np.concatenate(
                [
                    unique_identities[i]
                    for i in random.integers(0, len(unique_identities), len(unique_identities))
                ]
            ),
            0.5,
            method="inverted_cdf",
        )
        for _ in range(4000)
    ]
    low, high = np.quantile(drawn, [0.05, 0.95])
    assert (intervals.low, intervals.high) == pytest.approx((low, high), abs=0.35)
    assert intervals.high - intervals.low > 1


def test_the_order_of_images_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    identities, values = random.integers(0, 9, 40), random.integers(1, 6, 40) / 2
    order = random.permutation(40)
    intervals = bootstrap_quantiles(values, identities, SHARES, n_bootstrap=300, seed=1)
    again = bootstrap_quantiles(values[order], identities[order], SHARES, n_bootstrap=300, seed=1)
    assert intervals == again
    monkeypatch.setattr("cldmray.metrics.confidence.CELLS_PER_CHUNK", 100)
    assert intervals == bootstrap_quantiles(values, identities, SHARES, n_bootstrap=300, seed=1)


def test_one_value_has_no_width() -> None:
    (intervals,) = bootstrap_quantiles([2.0] * 6, list("aabbcc"), [0.5])
    assert intervals == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("values", "identities", "share"),
    [([1.0], ["a", "b"], 0.5), ([], [], 0.5), ([np.nan], ["a"], 0.5), ([1.0], ["a"], 0.0),
     ([1.0], ["a"], 1.1), ([[1.0]], ["a"], 0.5)],
)  # fmt: skip
def test_what_cannot_be_measured(values: list[float], identities: list[str], share: float) -> None:
    with pytest.raises(BadInputError):
        bootstrap_quantiles(values, identities, [share])
