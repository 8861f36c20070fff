"""How fast the contrastive step is, and how far each recipe comes for its CPU seconds.

    python benchmarks/attackers.py [--lfw DIR] [--anonymizer blur] [--quick]

- *step*: our loss beside pytorch-metric-learning's NTXentLoss: the same values on the same encoder
  and batches, and the ratio of their speeds. Blocks of both take turns in one process.
- *recipes*: ``clean_trained``, ``adaptive`` afresh, ``adaptive`` that starts from
  ``clean_trained``, and the teacher-guided one, trained in this process by the engine's own loop.
  Rank-1 on people whom neither the anonymizer nor the attacker has seen: Full-Ref, source image
  excluded, 95 % interval by bootstrap over identities.

Writes ``attackers.json`` and ``attackers.png``. Needs the extras ``dev`` and ``recognizer``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from attacking import environment
from attacking.recipes import Recipe, follow, recipes_of, spaced

INK, COLOURS = "#1f2933", ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lfw", help="folder of LFW; without it, synthetic people")
    parser.add_argument("--anonymizer", choices=("cldm_canny", "blur"), default="cldm_canny")
    parser.add_argument("--identities", type=int, default=100, help="who are evaluated: the pool")
    parser.add_argument("--attackers", type=int, default=240, help="people to learn from")
    parser.add_argument("--images", type=int, default=4, help="of each person, at most")
    parser.add_argument("--samples", type=int, default=1, help="anonymized images an original")
    parser.add_argument("--steps", type=int, default=240, help="of each recipe")
    parser.add_argument("--blocks", type=int, default=7, help="of each side of the step")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a block takes about")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128], help="of the step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-teacher", action="store_true", help="leave the teacher out")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small, blurred")
    parser.add_argument("--out", type=Path, default=Path("runs/attack"))
    parser.set_defaults(points=5)
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(
            anonymizer="blur", identities=20, attackers=30, images=3, steps=12, blocks=3, points=2,
            seconds=0.05, batches=[16],
        )  # fmt: skip
    return parser.parse_args()


def figure(recipes: list[Recipe], chance: float, title: str, path: Path) -> None:
    """Rank-1 against all CPU seconds that a recipe needs, intervals as bands, chance dashed."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(8, 4.6), layout="constrained")
    axes = sheet.subplots()
    for recipe, colour in zip(recipes, COLOURS, strict=False):
        seconds = [point.total for point in recipe.curve]
        rates = [point.rank_1 for point in recipe.curve]
        axes.plot(seconds, [point.value for point in rates], "o-", color=colour, label=recipe.name)
        bounds = [point.low for point in rates], [point.high for point in rates]
        axes.fill_between(seconds, *bounds, color=colour, alpha=0.15, lw=0)
    axes.axhline(chance, color=INK, ls="--", lw=1, label="chance")
    axes.set(xscale="log", ylim=(0, None), title=title, ylabel="rank-1 rate",
             xlabel="CPU seconds of training, with what the recipe starts from")  # fmt: skip
    axes.legend(frameon=False)
    sheet.savefig(path, dpi=150)


def table(recipes: list[Recipe], chance: float) -> str:
    """The curves as text."""
    lines = [f"{'recipe':22}{'steps':>6}{'own CPU s':>11}{'all CPU s':>11}   rank-1 % [95 %]"]
    for recipe in recipes:
        for point in recipe.curve:
            value, low, high = (100 * bound for bound in point.rank_1)
            lines.append(
                f"{recipe.name:22}{point.step:6d}{point.own:11.1f}{point.total:11.1f}   "
                f"{value:5.1f} [{low:.1f}, {high:.1f}]"
            )
    return "\n".join([*lines, f"{'chance':50}   {100 * chance:5.1f}"])


def record(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON data."""
    points = [{**point._asdict(), "rank_1": point.rank_1._asdict()} for point in recipe.curve]
    return {"name": recipe.name, "curve": points}


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    environment.enter()
    import cv2
    import torch
    from attacking import identities, step

    from cldmray.anonymizers.baselines import Blur
    from cldmray.anonymizers.diffusion import Control, Diffusion
    from cldmray.attackers.nn.encoder import SmallEncoder
    from cldmray.attackers.nn.training import TrainingConfig
    from cldmray.conditions import Canny

    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    shape = SmallEncoder(width=16)
    comparisons = [
        step.compare(shape, batch, arguments.blocks, arguments.seconds)
        for batch in arguments.batches
    ]
    print(step.table(comparisons), flush=True)

    started = time.perf_counter()
    diffusion = Diffusion(controls={"canny": Control(Canny(), "controlnet-canny")})
    anonymizer = diffusion if arguments.anonymizer == "cldm_canny" else Blur()
    plan = identities.Plan(
        arguments.lfw,
        arguments.identities,
        arguments.attackers,
        arguments.images,
        arguments.samples,
    )
    learner, evaluated = identities.gather(plan, anonymizer)
    about = (
        f"{anonymizer.name}, {'LFW' if arguments.lfw else 'synthetic people'}: "
        f"{len(learner.originals)} images of {learner.count} attacker people, "
        f"{len(evaluated.originals)} of {evaluated.count} evaluated"
    )
    print(f"\n{about}; made in {time.perf_counter() - started:.0f} s", flush=True)
    training = TrainingConfig(
        max_steps=arguments.steps, batch_size=64, warmup_steps=max(1, min(20, arguments.steps // 5))
    )
    recipes: dict[str, Recipe] = {}
    for name, attacker in recipes_of(shape, training, not arguments.no_teacher).items():
        before = recipes[attacker.init_from.name] if attacker.init_from else None
        points = spaced(arguments.steps, arguments.points)
        recipes[name] = follow(name, attacker, learner, evaluated, points, before)
    chance = 1 / evaluated.count
    print(table(list(recipes.values()), chance))
    figure(list(recipes.values()), chance, about, arguments.out / "attackers.png")
    report = {
        "settings": {key: str(value) for key, value in vars(arguments).items() if key != "lfw"},
        "step": [comparison._asdict() for comparison in comparisons],
        "about": about,
        "chance": chance,
        "recipes": [record(recipe) for recipe in recipes.values()],
    }
    path = arguments.out / "attackers.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
