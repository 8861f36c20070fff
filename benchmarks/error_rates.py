"""How often intervals miss the truth and tests find what is not there, on simulated audits.

    python benchmarks/error_rates.py [--quick] [--seed 0] [--out docs/results]

- *Rates*: people have an own rate, drawn from a beta distribution; their images succeed with it.
  How often the interval covers the rate of all people, how often the upper bound lies below it, and
  how wide the interval is, for the project's interval
  (:func:`cldmray.metrics.rates.rate_interval`), Korn and Graubard's, Wilson's with one trial a
  person, and the percentile bootstrap over people.
- *Linkage*: images of one person are alike, but nothing ties them to their own identity. How often
  D_sys is said to link (:func:`cldmray.metrics.linkage.linkage`), beside its value and chance.
- *Leaks*: 36 attacks guess; some people attract guesses, the more images they have. How many
  audits find a leak (:func:`cldmray.metrics.chance.simultaneous_excess`), beside a test of the
  lower bounds against 1 / N.

Prints the tables and writes `statistics.json` and `statistics.md` to the folder `--out`. It is not
called `statistics.py`, which would hide the module of that name from every benchmark beside it.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from cldmray.metrics.chance import permutation_excess, simultaneous_excess
from cldmray.metrics.confidence import bootstrap_columns, sums_by_identity, wilson
from cldmray.metrics.linkage import linkage
from cldmray.metrics.rates import clopper_pearson, design_effects, rate_intervals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Callable[[Floats, Ints], Floats]
"""Lower and upper bounds, shape (2, M), of successes (P, M) of probes with identities (P,)."""
UNEQUAL = (1, 2, 3, 5, 8, 10, 15, 20, 30, 2)
"""Numbers of images of ten people."""
N_ATTACKERS, N_VARIANTS = 6, 6
N_BOOTSTRAP = 1000


class RateCell(NamedTuple):
    """One simulated situation; ``images`` of a person are 9, or as in ``UNEQUAL``."""

    n_identities: int
    images: str
    rate: float
    correlation: float


RATE_CELLS = [
    *(RateCell(100, "9", 0.02, correlation) for correlation in (0.0, 0.2, 0.5, 0.8)),
    RateCell(100, "9", 0.1, 0.2),
    RateCell(100, "9", 0.5, 0.2),
    RateCell(100, "9", 0.95, 0.2),
    RateCell(100, "unequal", 0.02, 0.2),
    RateCell(100, "unequal", 0.02, 0.5),
    RateCell(30, "9", 0.06, 0.2),
    RateCell(30, "9", 0.06, 0.5),
    RateCell(10, "9", 0.1, 0.2),
    RateCell(10, "9", 0.1, 0.5),
    RateCell(5, "9", 0.1, 0.2),
    RateCell(5, "9", 0.1, 0.5),
]
LINKAGE_CELLS = [(100, 9), (30, 9), (10, 4), (60, 2)]
"""People, and images of each."""
LEAK_CELLS = {
    "100 people x 6": (np.full(100, 6), 0.2),
    "100 people x 9": (np.full(100, 9), 0.5),
    "10 people x 9": (np.full(10, 9), 0.5),
    "100 people x 5 to 530": (None, 0.3),
}
"""Images of each person, None: heavy-tailed; and how often they share their guess."""


def images_of(cell: RateCell) -> Ints:
    """Number of images of each person."""
    equal = np.full(cell.n_identities, 9)
    return equal if cell.images == "9" else np.resize(np.array(UNEQUAL), cell.n_identities)


def successes(rng: np.random.Generator, cell: RateCell, trials: int) -> tuple[Floats, Ints]:
    """Successes (P, trials) of as many audits, and the identities (P,)."""
    own = np.full((cell.n_identities, trials), cell.rate)
    if cell.correlation:
        strength = 1 / cell.correlation - 1
        own = rng.beta(cell.rate * strength, (1 - cell.rate) * strength, own.shape)
    identities = np.repeat(np.arange(cell.n_identities), images_of(cell))
    return (rng.random((len(identities), trials)) < own[identities]).astype(float), identities


def ours(success: Floats, identities: Ints) -> Floats:
    """The project's interval."""
    return np.array(rate_intervals(success, identities)).T[1:]


def korn_graubard(success: Floats, identities: Ints) -> Floats:
    """Korn and Graubard's interval; where the design effect is not defined, one trial a person."""
    sums, sizes = sums_by_identity(success, identities)
    probes, n_identities = sizes.sum(), len(sizes)
    rates, effects = sums.sum(1) / probes, np.maximum(design_effects(sums, sizes), 1e-9)
    fewer = (stats.t.ppf(0.975, probes - 1) / stats.t.ppf(0.975, n_identities - 1)) ** 2
    varies = (rates > 0) & (rates < 1)
    trials = np.where(varies, np.minimum(probes, fewer * probes / effects), n_identities)
    return np.array(clopper_pearson(rates * trials, trials))


def wilson_of_identities(success: Floats, identities: Ints) -> Floats:
    """Wilson's interval as if every identity were one trial."""
    n_identities = len(np.unique(identities))
    return np.array([wilson(rate * n_identities, n_identities)[1:] for rate in success.mean(0)]).T


def bootstrap(success: Floats, identities: Ints) -> Floats:
    """Percentile bootstrap over people, with Wilson's interval where all have the same rate."""
    return np.array(bootstrap_columns(success, identities, n_bootstrap=N_BOOTSTRAP)).T[1:]


METHODS: dict[str, Method] = {
    "cldmray": ours,
    "Korn-Graubard": korn_graubard,
    "Wilson, people": wilson_of_identities,
    "bootstrap": bootstrap,
}


def rate_rows(rng: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """Coverage, truths above the upper bound and mean width, for every cell and method."""
    rows = []
    for cell in RATE_CELLS:
        success, identities = successes(rng, cell, trials)
        row: dict[str, Any] = dict(cell._asdict())
        for name, method in METHODS.items():
            low, high = method(success, identities)
            covered = (low <= cell.rate) & (cell.rate <= high)
            row[name] = {
                "coverage": float(covered.mean()),
                "above": float((cell.rate > high).mean()),
                "width": float((high - low).mean()),
            }
        rows.append(row)
    return rows


def linkage_rows(rng: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """How often scores without a link are said to link."""
    rows = []
    for n_identities, images in LINKAGE_CELLS:
        results = [unlinked(rng, n_identities, images) for _ in range(trials)]
        values = np.array([(r.interval.value, r.chance, r.interval.low > 0) for r in results])
        value, chance, links = values.mean(0).tolist()
        rows.append(
            {
                "n_identities": n_identities,
                "images": images,
                "d_sys": value,
                "chance": chance,
                "false_positives": links,
            }
        )
    return rows


def unlinked(rng: np.random.Generator, n_identities: int, images: int) -> Any:
    """Linkage of scores in which a person's images agree about everybody, and on nobody."""
    own = np.repeat(np.arange(n_identities), images)
    scores = (
        rng.normal(size=(len(own), n_identities))
        + 0.5 * rng.normal(size=(n_identities, n_identities))[own]
    )
    scores += 0.5 * rng.normal(size=n_identities)
    is_own = own[:, None] == np.arange(n_identities)
    rows = np.arange(len(own))
    permuted = np.stack(
        [scores[rows, rng.permutation(n_identities)[own]] for _ in range(199)], axis=1
    )
    others = scores[~is_own].reshape(len(own), -1)
    return linkage(scores[is_own], own, others, own, permuted=permuted, n_bootstrap=100)


def leak_rows(rng: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """How many audits whose attacks guess find a leak."""
    rows = []
    for name, (counts, correlation) in LEAK_CELLS.items():
        leaking = np.zeros(2)
        for _ in range(trials):
            sizes = heavy_tailed(rng) if counts is None else counts
            leaking += leaks(rng, sizes, correlation)
        permuted, fixed = (leaking / trials).tolist()
        rows.append({"data": name, "permuted_identities": permuted, "one_in_n": fixed})
    return rows


def heavy_tailed(rng: np.random.Generator) -> Ints:
    """Numbers of images of 100 people, from 5 to 530."""
    counts = (5 * (rng.pareto(0.9, 100) + 1)).astype(np.int64).clip(5, 530)
    counts[0] = 530
    return counts


def leaks(rng: np.random.Generator, counts: Ints, correlation: float) -> tuple[bool, bool]:
    """Whether attacks of one null audit beat permuted identities, and whether they beat 1 / N."""
    n_identities, identities = len(counts), np.repeat(np.arange(len(counts)), counts)
    share = counts / counts.sum()
    excess, chances, hits = [], [], []
    for guess in guesses(rng, counts, identities, correlation):
        attraction = np.bincount(guess, minlength=n_identities) / len(identities)
        hits.append((guess == identities).astype(float))
        excess.append(permutation_excess(hits[-1], share[guess], attraction[identities]))
        chances.append(float(share[guess].mean()))
    paired = simultaneous_excess(
        excess, [identities] * len(excess), chances, n_bootstrap=N_BOOTSTRAP
    )
    level = 1 - 0.05 / len(hits)
    rates = rate_intervals(np.stack(hits, axis=1), identities, confidence_level=level)
    return (
        any(interval.low > 0 for interval in paired),
        any(interval.low > 1 / n_identities for interval in rates),
    )


def guesses(
    rng: np.random.Generator, counts: Ints, identities: Ints, correlation: float
) -> Iterable[Ints]:
    """Guesses of attackers in several variants that ignore the images, each (P,)."""
    n_identities = len(counts)
    for _ in range(N_ATTACKERS):
        weight = counts * np.exp(rng.normal(size=n_identities))
        weight = weight / weight.sum()

        def draw(weight: Floats = weight) -> Ints:
            common = rng.choice(n_identities, n_identities, p=weight)[identities]
            alone = rng.choice(n_identities, len(identities), p=weight)
            return np.where(rng.random(len(identities)) < correlation, common, alone)

        shared = draw()
        for _ in range(N_VARIANTS):
            yield np.where(rng.random(len(identities)) < 0.6, shared, draw())


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    rates = [
        [
            f"{row['n_identities']} x {row['images']}",
            f"{100 * row['rate']:g} %",
            f"{row['correlation']:g}",
            *(
                f"{100 * row[name]['coverage']:.1f} / {100 * row[name]['above']:.1f} / "
                f"{100 * row[name]['width']:.1f}"
                for name in METHODS
            ),
        ]
        for row in report["rates"]
    ]
    linked = [
        [
            f"{row['n_identities']} x {row['images']}",
            f"{row['d_sys']:.3f}",
            f"{row['chance']:.3f}",
            f"{100 * row['false_positives']:.1f} %",
        ]
        for row in report["linkage"]
    ]
    leaked = [
        [
            row["data"],
            f"{100 * row['permuted_identities']:.1f} %",
            f"{100 * row['one_in_n']:.1f} %",
        ]
        for row in report["leaks"]
    ]
    trials = report["trials"]
    return "\n".join(
        [
            "# Error rates of the statistics",
            "",
            f"Made by `{report['command']}`. Nominal level 95 %.",
            "",
            "## Intervals of rates",
            "",
            f"Coverage / true rate above the upper bound / mean width, in per cent, of "
            f"{trials['rates']} simulated audits; goals of cldmray: coverage of at least 93, at "
            "most 4 above.",
            "",
            table(["people x images", "rate", "correlation", *METHODS], rates),
            "",
            "## Linkage of unlinked scores",
            "",
            f"{trials['linkage']} simulated audits; goal: at most 5 % false positives.",
            "",
            table(["people x images", "mean D_sys", "mean chance", "false positives"], linked),
            "",
            "## Leaks found in audits of attackers that guess",
            "",
            f"{trials['leaks']} simulated audits of {N_ATTACKERS * N_VARIANTS} attacks; goal: at "
            "most 2.5 % against permuted identities.",
            "",
            table(["data", "against permuted identities", "against 1 / N"], leaked),
            "",
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="few audits, for a test")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=Path("docs/results"))
    options = arguments.parse_args()
    trials = {"rates": 2000, "linkage": 300, "leaks": 200}
    if options.quick:
        trials = {"rates": 200, "linkage": 15, "leaks": 4}
    rng = np.random.default_rng(options.seed)
    quick = " --quick" if options.quick else ""
    report = {
        "command": f"python benchmarks/error_rates.py{quick} --seed {options.seed}",
        "trials": trials,
        "rates": rate_rows(rng, trials["rates"]),
        "linkage": linkage_rows(rng, trials["linkage"]),
        "leaks": leak_rows(rng, trials["leaks"]),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "statistics.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    text = markdown(report)
    (options.out / "statistics.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
