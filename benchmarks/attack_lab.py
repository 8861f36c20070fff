"""A laboratory of attackers: one recipe a run, rated by attacker-validation people only.

    python benchmarks/attack_lab.py RECIPE [RECIPE ...] --cache DIR [--root LFW] [--seeds 1]
    python benchmarks/attack_lab.py --list
    python benchmarks/attack_lab.py --table

Images are anonymized once into the folder of ``--cache``, which keeps trained students too, so that
a recipe that only scores otherwise takes seconds. Without ``--root`` people are synthetic. Printed
is the rank-1 rate (Full-Ref, source excluded) with its 95 % interval over people, chance as it is
measured, the rate by albums, and the paired difference to the recipe of ``--against``. ``--final``
alone looks at evaluation people: nothing may be tuned by what it prints.

Each run appends a row to ``docs/results/attack_lab.jsonl``, of which ``--table`` makes
``docs/results/attack_lab.md``. Needs the extra `recognizer`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from attacking import environment, lab_subjects

ROWS, PAGE = "attack_lab.jsonl", "attack_lab.md"
SETTING = (
    "split", "source", "size", "anonymizer", "model", "people", "images", "attacker_people",
    "seeds",
)  # fmt: skip
"""Keys of a row that all rows of one table share."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    lab_subjects.add_options(parser)
    parser.add_argument("--seeds", type=int, default=1, help="trainings, whose hits are averaged")
    parser.add_argument("--against", default="as_is", help="recipe of the paired difference")
    parser.add_argument("--list", action="store_true", help="print the recipes")
    parser.add_argument("--table", action="store_true", help="write the page")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    return parser.parse_args()


def rated(options: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """A row of each recipe."""
    from attacking.lab_recipes import RECIPES
    from attacking.laboratory import Outcome, difference

    laboratory = lab_subjects.laboratory_of(options)
    attackers, probed = laboratory.attackers, laboratory.probed
    outcomes: dict[str, Outcome] = {}

    def outcome(name: str) -> Outcome:
        if name not in outcomes:
            recipe = RECIPES[name]
            seeds = range(options.seeds if recipe.students else 1)
            outcomes[name] = mean_outcome(
                [laboratory.run(recipe.with_seed(seed)) for seed in seeds]
            )
        return outcomes[name]

    rows = []
    for name in names:
        own, base = outcome(name), outcome(options.against)
        gain = None if name == options.against else difference(own, base)
        recipe = RECIPES[name]
        row = {
            "recipe": name,
            "about": recipe.about,
            "anonymizer": probed.anonymizer.name,
            "model": lab_subjects.model_name(options.model),
            "size": options.size,
            "source": probed.source.name,
            "split": probed.split,
            "people": len(np.unique(probed.identities)),
            "images": len(own.hits),
            "attacker_people": len(np.unique(attackers.identities)),
            "seeds": options.seeds,
            "steps": [student.attacker.max_steps for student in recipe.students],
            "cpu_seconds": round(own.cpu_seconds),
            "rank_1": list(own.rank_1),
            "album": list(own.album),
            "chance": own.chance,
            "against": options.against,
            "difference": None if gain is None else list(gain),
            "command": command(options, name),
        }
        print(line(row), flush=True)
        rows.append(row)
    return rows


def mean_outcome(outcomes: list[Any]) -> Any:
    """The outcome of several trainings: hits are averaged image by image, before the interval."""
    from cldmray.metrics.rates import rate_interval

    first = outcomes[0]
    if len(outcomes) == 1:
        return first
    hits = np.mean([each.hits for each in outcomes], 0)
    named = np.mean([each.named for each in outcomes], 0)
    return first._replace(
        hits=hits,
        named=named,
        rank_1=rate_interval(hits, first.identities),
        album=rate_interval(named, np.unique(first.identities)),
        chance=float(np.mean([each.chance for each in outcomes])),
        cpu_seconds=sum(each.cpu_seconds for each in outcomes),
    )


def command(options: argparse.Namespace, name: str) -> str:
    """The command that makes a row, without folders of this machine."""
    parts = ["python benchmarks/attack_lab.py", name, "--cache DIR"]
    parts += ["--root DIR"] if options.root else []
    parts += ["--model DIR"] if options.model else []
    parts += [f"--side {options.side}"] if options.side else []
    defaults = {
        "layout": "lfw", "anonymizer": "cldm_canny", "size": 128, "attackers": 600,
        "validation": 150, "images": 5, "seeds": 1, "against": "as_is",
    }  # fmt: skip
    parts += [
        f"--{key} {getattr(options, key)}"
        for key, value in defaults.items()
        if getattr(options, key) != value
    ]
    return " ".join(parts + (["--final"] if options.final else []))


def percent(interval: list[float], sign: str = "") -> str:
    """An interval in percent."""
    value, low, high = (100 * bound for bound in interval)
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    gain = "" if row["difference"] is None else f"; difference {percent(row['difference'], '+')}"
    return (
        f"{row['recipe']}: rank-1 {percent(row['rank_1'])} %, chance {100 * row['chance']:.1f} %; "
        f"albums {percent(row['album'])} %{gain}; {row['cpu_seconds']} CPU s"
    )


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as a page, the latest setting first; of rows of one command the last counts."""
    last = {row["command"]: row for row in rows}
    text = [
        "# Laboratory of attackers",
        "",
        "What each recipe identifies, made by `benchmarks/attack_lab.py`: rank-1 rate in % and its "
        "95 % interval over people, Full-Ref, source image excluded. *Difference* is that to "
        "another recipe on the same images, paired. *Albums* pool all anonymized images of a "
        "person. Recipes are accepted or rejected by attacker-validation people only; evaluation "
        "people are looked at where the table says so. CPU seconds are of the trainings.",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in last.values():
        groups.setdefault(tuple(row[key] for key in SETTING), []).append(row)
    for group in reversed(groups.values()):
        first = group[0]
        text += [
            "",
            f"## `{first['anonymizer']}`, {first['source']}, {first['split']} people",
            "",
            f"{first['images']} images of {first['people']} people, {first['size']} pixels; "
            f"{first['attacker_people']} others to learn from; model {first['model']}; trainings "
            f"of each student: {first['seeds']}.",
            "",
            "| recipe | what it does | rank-1 | difference | to | albums | chance | CPU s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        text += [
            f"| `{row['recipe']}` | {row['about']} | {percent(row['rank_1'])} | "
            f"{'' if row['difference'] is None else percent(row['difference'], '+')} | "
            f"{'' if row['difference'] is None else '`' + row['against'] + '`'} | "
            f"{percent(row['album'])} | {100 * row['chance']:.1f} | {row['cpu_seconds']} |"
            for row in group
        ]
        text += ["", f"`{first['command'].replace(first['recipe'], 'RECIPE', 1)}`"]
    return "\n".join([*text, ""])


def main() -> None:
    options = parsed()
    if options.list:
        from attacking.lab_recipes import RECIPES

        for name, recipe in RECIPES.items():
            print(f"{name:28} {recipe.about}")
        return
    path = options.out / ROWS
    if options.recipes:
        if options.cache is None:
            sys.exit("--cache: name a folder outside of the repository")
        environment.enter()
        import cv2
        import torch

        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
        options.out.mkdir(parents=True, exist_ok=True)
        for name in options.recipes:
            for row in rated(options, [name]):
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    if options.table:
        rows = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
        (options.out / PAGE).write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main()
