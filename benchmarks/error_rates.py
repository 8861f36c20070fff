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
- *Power*: the same audits, but one attacker identifies a share of the images, whatever it guesses
  of the others. How many audits find that leak.
- *Inference*: embeddings of people that say nothing of an attribute, however alike a person's
  images are. How often a classifier is said to read it
  (:func:`cldmray.evaluation.utility.inference_rows`), beside its accuracy.

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
import pyarrow as pa
from scipy import stats

from cldmray.evaluation.settings import EvaluationSettings
from cldmray.evaluation.utility import inference_rows
from cldmray.faces.records import embeddings_schema
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
POWER_CELLS = {"100 people x 6": (np.full(100, 6), 0.2), "30 people x 9": (np.full(30, 9), 0.2)}
POWER_RATES = (0.01, 0.02, 0.03, 0.05)
"""Shares of the images that one attacker identifies beyond its guesses."""
INFERENCE_CELLS = [(100, 6, 2), (100, 6, 3), (20, 6, 2)]
"""Evaluated people, images of each, and values of the attribute."""
DIMENSIONS = 32
"""Of embeddings whose people have no attribute."""


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


def leaks(
    rng: np.random.Generator, counts: Ints, correlation: float, identified: float = 0.0
) -> tuple[bool, bool]:
    """Whether attacks of one audit beat permuted identities, and whether they beat 1 / N.

    Args:
        identified: share of the images that the first attacker identifies in all of its variants.
    """
    n_identities, identities = len(counts), np.repeat(np.arange(len(counts)), counts)
    share = counts / counts.sum()
    excess, chances, hits = [], [], []
    is_found = rng.random(len(identities)) < identified if identified else None
    for place, guess in enumerate(guesses(rng, counts, identities, correlation)):
        if is_found is not None and place < N_VARIANTS:
            guess = np.where(is_found, identities, guess)
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


def power_rows(rng: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """How many audits find a leak that is there."""
    return [
        {
            "data": name,
            "identified": rate,
            "power": sum(leaks(rng, counts, correlation, rate)[0] for _ in range(trials)) / trials,
        }
        for name, (counts, correlation) in POWER_CELLS.items()
        for rate in POWER_RATES
    ]


def inference_error_rows(rng: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """How often an attribute that the images do not show is said to be read."""
    rows = []
    for n_identities, images, n_values in INFERENCE_CELLS:
        read = [attributeless(rng, n_identities, images, n_values) for _ in range(trials)]
        rows.append(
            {
                "n_identities": n_identities,
                "images": images,
                "n_values": n_values,
                "accuracy": float(np.mean([row.value for row in read])),
                "chance": 1 / n_values,
                "false_positives": float(np.mean([row.low > row.chance for row in read])),
            }
        )
    return rows


def attributeless(rng: np.random.Generator, n_identities: int, images: int, n_values: int) -> Any:
    """What a classifier reads of people whose embeddings do not depend on the attribute."""
    learnt, probes = (embedded(rng, side, n_identities, images) for side in ("learnt", "probed"))
    everybody = sorted({*learnt["identity"].to_pylist(), *probes["identity"].to_pylist()})
    values = [f"v{place % n_values}" for place in range(len(everybody))]
    groups = pa.table({"identity": everybody, "attribute": values})
    (row,) = inference_rows("blur", "pretrained", learnt, probes, groups, EvaluationSettings())
    return row


def embedded(rng: np.random.Generator, side: str, n_identities: int, images: int) -> pa.Table:
    """Embeddings of people, original and anonymized alike; half of the spread is the person's."""
    own = rng.normal(size=(n_identities, DIMENSIONS))
    vectors = np.repeat(own, images, axis=0) + rng.normal(size=(n_identities * images, DIMENSIONS))
    vectors = np.float32(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    identities = np.repeat([f"{side}{place:03d}" for place in range(n_identities)], images)
    rows = [
        {"sample_id": f"{side}{place:05d}", "identity": name, "view": view, "embedding": vector}
        for view in ("original", "blur")
        for place, (name, vector) in enumerate(zip(identities.tolist(), vectors, strict=True))
    ]
    return pa.Table.from_pylist(rows, embeddings_schema(DIMENSIONS))


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
    power = [
        [row["data"], f"{100 * row['identified']:g} %", f"{100 * row['power']:.1f} %"]
        for row in report["power"]
    ]
    inferred = [
        [
            f"{row['n_identities']} x {row['images']}",
            str(row["n_values"]),
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['chance']:.1f} %",
            f"{100 * row['false_positives']:.1f} %",
        ]
        for row in report["inference"]
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
            "## Leaks found where one attacker identifies some images",
            "",
            f"{trials['power']} simulated audits of {N_ATTACKERS * N_VARIANTS} attacks, against "
            "permuted identities.",
            "",
            table(["data", "images identified beyond chance", "leak found"], power),
            "",
            "## Attributes read of people whose images do not show them",
            "",
            f"{trials['inference']} simulated attributes; goal: at most 5 % false positives.",
            "",
            table(
                ["people x images", "values", "mean accuracy", "chance", "false positives"],
                inferred,
            ),
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
    trials = {"rates": 2000, "linkage": 300, "leaks": 200, "power": 100, "inference": 200}
    if options.quick:
        trials = {"rates": 200, "linkage": 15, "leaks": 4, "power": 3, "inference": 4}
    rng = np.random.default_rng(options.seed)
    quick = " --quick" if options.quick else ""
    report = {
        "command": f"python benchmarks/error_rates.py{quick} --seed {options.seed}",
        "trials": trials,
        "rates": rate_rows(rng, trials["rates"]),
        "linkage": linkage_rows(rng, trials["linkage"]),
        "leaks": leak_rows(rng, trials["leaks"]),
        "power": power_rows(rng, trials["power"]),
        "inference": inference_error_rows(rng, trials["inference"]),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "statistics.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    text = markdown(report)
    (options.out / "statistics.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
