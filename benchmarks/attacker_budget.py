"""What an attacker identifies by the number of (original, anonymized) pairs that it learnt from.

    python benchmarks/attacker_budget.py --cache DIR [--root LFW] [--recipes as_is paper]
        [--pairs 0 50 100 500 2000 all]

Ray Tune runs the grid of recipes (benchmarks/attack_lab.py) and budgets over images that are
anonymized once; MLflow gets a run of each. Pairs are drawn at random over the attacker's people, a
smaller budget's being among a larger one's. The steps are the recipe's, whatever the budget.
Attacker-validation people are rated; ``--final`` rates evaluation people. Writes
attacker_budget.json, attacker_budget.md and attacker_budget.svg.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from attacking import lab_subjects

INK, COLOURS = "#1f2933", ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
EXPERIMENT = "attacker-budget"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lab_subjects.add_options(parser)
    parser.add_argument("--recipes", nargs="+", default=["as_is", "paper"])
    parser.add_argument("--pairs", nargs="+", default=["0", "50", "100", "500", "2000", "all"])
    parser.add_argument("--at-once", type=int, default=1, help="trials at a time")
    parser.add_argument("--mlflow", help="tracking URI; none: a database beside the cache")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    return parser.parse_args()


def trial(config: dict[str, Any], options: argparse.Namespace) -> None:
    """Train a recipe with a budget, and report what it identifies."""
    import dataclasses

    import torch
    from attacking.lab_recipes import RECIPES
    from ray import tune

    torch.set_num_threads(1)
    laboratory = lab_subjects.laboratory_of(options)
    recipe = RECIPES[config["recipe"]]
    budget = None if config["pairs"] == "all" else int(config["pairs"])
    students = [dataclasses.replace(student, pairs=budget) for student in recipe.students]
    outcome = laboratory.run(dataclasses.replace(recipe, students=tuple(students)))
    available = len(laboratory.attackers.originals) * max(each.samples for each in students)
    tune.report(
        {
            "n_pairs": available if budget is None else min(budget, available),
            "rank_1": outcome.rank_1.value,
            "ci_low": outcome.rank_1.low,
            "ci_high": outcome.rank_1.high,
            "chance": outcome.chance,
            "album_rank_1": outcome.album.value,
            "cpu_seconds": outcome.cpu_seconds,
        }
    )


def studied(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The grid's rows, by recipe and budget."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    folder = options.cache.resolve()
    uri = options.mlflow or f"sqlite:///{folder / 'mlflow.db'}"
    here = str(Path(__file__).resolve().parent)
    ray.init(
        num_cpus=options.at_once, include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": ":".join([here, *filter(None, sys.path)])}},
    )  # fmt: skip
    space = {
        "recipe": tune.grid_search(options.recipes),
        "pairs": tune.grid_search(options.pairs),
    }
    results = tune.Tuner(
        tune.with_parameters(trial, options=options),
        param_space=space,
        tune_config=tune.TuneConfig(max_concurrent_trials=options.at_once),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=str(folder / "tune"),
            callbacks=[MLflowLoggerCallback(uri, experiment_name=EXPERIMENT)],
            verbose=1,
        ),
    ).fit()
    ray.shutdown()
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} trials failed; see {folder / 'tune'}")
    keys = ("n_pairs", "rank_1", "ci_low", "ci_high", "chance", "album_rank_1", "cpu_seconds")
    rows = [
        {**result.config, **{key: result.metrics[key] for key in keys}} for result in list(results)
    ]
    return sorted(rows, key=lambda row: (options.recipes.index(row["recipe"]), row["n_pairs"]))


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Rank-1 against the pairs, intervals as bands, chance dashed."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(7, 4), layout="constrained")
    axes = sheet.subplots()
    for name, colour in zip(dict.fromkeys(row["recipe"] for row in rows), COLOURS, strict=False):
        own = [row for row in rows if row["recipe"] == name]
        pairs = [row["n_pairs"] for row in own]
        axes.plot(pairs, [100 * row["rank_1"] for row in own], "o-", color=colour, label=name)
        bounds = ([100 * row[key] for row in own] for key in ("ci_low", "ci_high"))
        axes.fill_between(pairs, *bounds, color=colour, alpha=0.15, lw=0)
    axes.axhline(100 * rows[0]["chance"], color=INK, ls="--", lw=1, label="chance")
    axes.set_xscale("symlog", linthresh=50)
    pairs = sorted({row["n_pairs"] for row in rows})
    axes.set_xticks(pairs, [f"{number:,}" for number in pairs])
    axes.set(xlim=(0, 1.2 * pairs[-1]), ylim=(0, None), ylabel="rank-1, %")
    axes.set_xlabel("pairs that the attacker learnt from")
    axes.legend(frameon=False)
    sheet.savefig(path)


def page(report: dict[str, Any]) -> str:
    """The study as a page."""
    return "\n".join(
        [
            "# Attacker's budget",
            "",
            f"Made by `{report['command']}`: {report['anonymizer']}, {report['source']}, "
            f"{report['split']} people; rank-1 in % and its 95 % interval over people, Full-Ref, "
            "source image excluded.",
            "",
            "![Rank-1 rate over the pairs that an attacker learnt from](attacker_budget.svg)",
            "",
            "| recipe | pairs | rank-1 | albums | chance | CPU s |",
            "|---|---|---|---|---|---|",
            *[
                f"| `{row['recipe']}` | {row['n_pairs']} | {100 * row['rank_1']:.1f} "
                f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}] | "
                f"{100 * row['album_rank_1']:.1f} | {100 * row['chance']:.1f} | "
                f"{row['cpu_seconds']:.0f} |"
                for row in report["rows"]
            ],
            "",
        ]
    )


def main() -> None:
    options = parsed()
    if options.cache is None:
        sys.exit("--cache: name a folder outside of the repository")
    options.cache.mkdir(parents=True, exist_ok=True)
    laboratory = lab_subjects.laboratory_of(options)
    for part in (laboratory.attackers, laboratory.probed):
        part.anonymized(1)
    rows = studied(options)
    parts = ["python benchmarks/attacker_budget.py --cache DIR"]
    parts += ["--root DIR"] if options.root else []
    parts += [f"--recipes {' '.join(options.recipes)} --pairs {' '.join(options.pairs)}"]
    parts += [f"--anonymizer {options.anonymizer} --attackers {options.attackers}"]
    report = {
        "command": " ".join(parts),
        "anonymizer": laboratory.probed.anonymizer.name,
        "source": laboratory.probed.source.name,
        "split": laboratory.probed.split,
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "attacker_budget.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    (options.out / "attacker_budget.md").write_text(page(report), "utf-8")
    figure(rows, options.out / "attacker_budget.svg")
    print(page(report))


if __name__ == "__main__":
    main()
