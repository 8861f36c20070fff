"""Whether attacks are above chance: by brute force, by hand, and on simulated null audits."""

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.errors import BadInputError
from cldmray.metrics.chance import permutation_excess, simultaneous_excess

Ints = npt.NDArray[np.int64]


def excess_of(guesses: Ints, identities: Ints, candidates: int) -> npt.NDArray[np.float64]:
    """The excess of an attack that names one candidate for each probe."""
    probes = len(identities)
    share = np.bincount(identities, minlength=candidates) / probes
    attraction = np.bincount(guesses, minlength=candidates) / probes
    return permutation_excess(guesses == identities, share[guesses], attraction[identities])


class TestExcess:
    def test_mean_by_brute_force(self) -> None:
        """Success less the success with the identity of every probe in turn."""
        random = np.random.default_rng(0)
        identities, guesses = random.integers(0, 5, 40), random.integers(0, 7, 40)
        permuted = np.mean([[guess == other for other in identities] for guess in guesses])
        expected = np.mean(guesses == identities) - permuted
        assert excess_of(guesses, identities, 7).mean() == pytest.approx(expected)

    def test_spread_is_that_of_the_difference_by_jackknife(self) -> None:
        """Leaving out one of many people, as probe and as candidate's share, moves it as much."""
        random = np.random.default_rng(1)
        identities = np.sort(random.choice(200, 3000, p=random.dirichlet(np.ones(200))))
        guesses = random.choice(200, 3000, p=np.bincount(identities, minlength=200) / 3000)
        excess = excess_of(guesses, identities, 200)
        change = []
        for identity in (kept := np.unique(identities)):
            others = identities != identity
            left = excess_of(guesses[others], identities[others], 200).mean()
            change.append(((excess.mean() - left) * others.sum() / 3000, identity))
        linear = [
            (excess - excess.mean())[identities == identity].sum() / 3000 for identity in kept
        ]
        assert np.corrcoef([c for c, _ in change], linear)[0, 1] > 0.99

    def test_an_attack_that_names_everybody_alike_has_none(self) -> None:
        """Guesses that ignore the image: nothing but noise around 0, also for the well-known."""
        identities = np.repeat([0, 1, 2], [90, 9, 1])
        assert excess_of(np.zeros(100, np.int64), identities, 3) == pytest.approx(0)


class TestIntervals:
    def test_without_spread_few_identities_bound_it(self) -> None:
        """All of 100 people are identified: with 97.5 % a share of at most 3.6 % is not."""
        unseen = 1 - 0.025 ** (1 / 100)
        (interval,) = simultaneous_excess([np.full(200, 0.99)], [np.arange(200) // 2], [0.01])
        assert interval == pytest.approx((0.99, 0.99 - unseen, 0.99))
        (four,) = simultaneous_excess([np.full(4, 0.75)], [np.arange(4)], [0.25])
        assert four.low == pytest.approx(0.025 ** (1 / 4) - 0.25)

    def test_alone_it_is_a_t_interval(self) -> None:
        """Rounded to the noise of the bootstrap: mean -+ t of 99 degrees times standard error."""
        excess = np.random.default_rng(2).normal(0.1, 0.3, 100)
        (interval,) = simultaneous_excess([excess], [np.arange(100)], [0.01], n_bootstrap=20_000)
        half = 1.984 * excess.std(ddof=1) / 10
        expected = (excess.mean(), excess.mean() - half, excess.mean() + half)
        assert interval == pytest.approx(expected, abs=0.004)

    def test_alike_attacks_cost_nothing(self) -> None:
        random = np.random.default_rng(2)
        excess, identities = random.normal(0.1, 0.3, 300), np.arange(300) // 3
        (alone,) = simultaneous_excess([excess], [identities], [0.01])
        together = simultaneous_excess([excess] * 50, [identities] * 50, [0.01] * 50)
        assert together[0].low == pytest.approx(alone.low)
        others = [random.normal(0, 0.3, 300) for _ in range(49)]
        among = simultaneous_excess([excess, *others], [identities] * 50, [0.01] * 50)[0]
        assert among.value == alone.value and among.low < alone.low and among.high > alone.high

    def test_the_order_of_probes_changes_nothing(self) -> None:
        random = np.random.default_rng(3)
        excess, identities = random.normal(0, 0.1, size=60), np.arange(60) // 3
        order = random.permutation(60)
        first = simultaneous_excess([excess], [identities], [0.1])
        again = simultaneous_excess([excess[order]], [identities[order]], [0.1])
        np.testing.assert_allclose(again, first)

    def test_an_attack_on_few_people_spoils_no_other(self) -> None:
        random = np.random.default_rng(4)
        excess, identities = random.normal(0.2, 0.3, 300), np.arange(300) // 3
        (alone,) = simultaneous_excess([excess], [identities], [0.01])
        beside, few = simultaneous_excess([excess, [0.9, 0.8]], [identities, [0, 1]], [0.01, 0.01])
        assert beside.low == pytest.approx(alone.low, abs=0.02) and few.low < 0.1

    def test_bad_input(self) -> None:
        assert simultaneous_excess([], [], []) == []
        with pytest.raises(BadInputError, match="must share a shape"):
            simultaneous_excess([[0.5, 0.5]], [["ann"]], [0.1])
        with pytest.raises(BadInputError, match="must share a shape"):
            simultaneous_excess([[]], [[]], [0.1])
        with pytest.raises(BadInputError, match="confidence_level"):
            simultaneous_excess([[0.5]], [["ann"]], [0.1], confidence_level=1)


def null_audit(
    random: np.random.Generator, counts: Ints, correlation: float, signal: float = 0.0
) -> tuple[list[Ints], Ints]:
    """Guesses of 6 attackers in 6 protocols and galleries that ignore the images, and identities.

    A person with many images attracts guesses; the probes of a person share their guess with the
    given probability, and the protocols of an attacker with probability 0.6. A share ``signal`` of
    the probes is identified.
    """
    n_identities = len(counts)
    identities = np.repeat(np.arange(n_identities), counts)
    guesses = []
    for _ in range(6):
        weight = counts * np.exp(random.normal(size=n_identities))
        weight = weight / weight.sum()

        def draw(weight: npt.NDArray[np.float64] = weight) -> Ints:
            common = random.choice(n_identities, n_identities, p=weight)[identities]
            alone = random.choice(n_identities, len(identities), p=weight)
            return np.where(random.random(len(identities)) < correlation, common, alone)

        shared, hits = draw(), random.random(len(identities)) < signal
        for _ in range(6):
            variant = np.where(random.random(len(identities)) < 0.6, shared, draw())
            guesses.append(np.where(hits, identities, variant))
    return guesses, identities


def heavy_tailed(random: np.random.Generator) -> Ints:
    """Numbers of images of 100 people: from 5 to 530."""
    counts = (5 * (random.pareto(0.9, 100) + 1)).astype(np.int64).clip(5, 530)
    counts[0] = 530
    return counts


def leak_rate(
    audits: int, counts: Ints | None, correlation: float, signal: float = 0.0, seed: int = 0
) -> float:
    """Share of simulated audits in which an attack is called significantly above chance."""
    random = np.random.default_rng(seed)
    leaks = 0
    for _ in range(audits):
        sizes = heavy_tailed(random) if counts is None else counts
        guesses, identities = null_audit(random, sizes, correlation, signal)
        excess = [excess_of(guess, identities, len(sizes)) for guess in guesses]
        chances = [np.bincount(identities)[guess].mean() / len(identities) for guess in guesses]
        intervals = simultaneous_excess(
            excess, [identities] * len(excess), chances, n_bootstrap=1000
        )
        leaks += any(interval.low > 0 for interval in intervals)
    return leaks / audits


NULL_CELLS = {
    "100 x 6": (np.full(100, 6), 0.2),
    "100 x 9, alike": (np.full(100, 9), 0.5),
    "100 x 1": (np.full(100, 1), 0.0),
    "30 x 9": (np.full(30, 9), 0.5),
    "10 x 9": (np.full(10, 9), 0.5),
    "5 x 9": (np.full(5, 9), 0.5),
    "heavy-tailed": (None, 0.3),
}
"""Probes of each person, and how often a person's probes share their guess."""


class TestErrorRates:
    @pytest.mark.parametrize("cell", ["100 x 6", "heavy-tailed"])
    def test_few_null_audits_are_called_leaks(self, cell: str) -> None:
        assert leak_rate(20, *NULL_CELLS[cell]) <= 0.1

    @pytest.mark.slow
    @pytest.mark.parametrize("cell", NULL_CELLS)
    def test_at_most_one_null_audit_in_forty_is_called_a_leak(self, cell: str) -> None:
        """2.5 %, and what 300 audits leave to luck."""
        assert leak_rate(300, *NULL_CELLS[cell], seed=1) <= 0.025 + 0.018

    @pytest.mark.parametrize("cell", ["100 x 6", "heavy-tailed"])
    def test_a_leak_of_five_percent_is_found(self, cell: str) -> None:
        assert leak_rate(10, *NULL_CELLS[cell], signal=0.05) >= 0.9
