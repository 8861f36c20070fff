"""Searches of better inverters, one for each anonymizer, and what is made of them."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from cldmray.engine.inversion_data import queried
from cldmray.engine.inversion_loop import check_validation
from cldmray.engine.inversion_search import Candidate, Material, read_trials, search
from cldmray.engine.search_space import Dimension
from cldmray.engine.stages import Stages
from cldmray.engine.tables import StageTable
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.inversion_config import InversionConfig, candidate_of, settings_of
from cldmray.metrics.pareto import pareto_front
from cldmray.report.inversion import Search, Trial

TUNED = "tuned"
"""Ends the name of the inverter that a search has found."""


def run_search(
    config: InversionConfig, stages: Stages, name: str, faces: StageTable, redrawn: StageTable
) -> tuple[Search, Candidate]:
    """Search an inverter of one anonymizer's pictures; the stage is found again if it has run.

    Args:
        name: of the anonymizer.
        redrawn: its table.

    Returns:
        All trials, and the best candidate, named after the one that was varied.

    Raises:
        BadInputError: no validation person can be named.
        CldmrayError: every trial failed.
    """
    settings = config.inversion
    space = settings.search

    def produce(folder: str) -> None:
        validation = queried(faces, redrawn, ATTACKER_VALIDATION).pairs
        check_validation(validation)
        material = Material(queried(faces, redrawn, ATTACKER), validation, settings.validator)
        search(material, config.make, longest(config), space, config.audit.engine, folder)

    decides = {
        "inverter": settings.searched,
        "validator": settings.validator,
        "budget": settings.budget,
        "search": replace(space, concurrent=1, cpus=1.0, gpus=0.0),
        "concurrent": space.concurrent,
    }
    stage = stages.run(f"search-{name}", decides, [faces.key, redrawn.key], produce)
    table = read_trials(stage)
    trials = told(table, space.space)
    found = best_candidate(config, trials[0])
    key = (
        "inversion_best"
        if single(config)
        else f"inversion_best_{re.sub(r'[^A-Za-z0-9]', '_', name)}"
    )
    return Search(name, space.objective, trials, key, as_attack(config, found, key)), found


def single(config: InversionConfig) -> bool:
    """Whether one anonymizer alone is inverted."""
    return len(config.audit.anonymizer) == 1


def longest(config: InversionConfig) -> int:
    """Steps of the longest training that a trial may take."""
    settings = config.inversion
    dimension = settings.search.space.get("training.steps")
    return max([settings.searched.steps] if dimension is None else dimension.extremes)


def told(table: pa.Table, space: Mapping[str, Dimension]) -> list[Trial]:
    """The trials of a search's table; failed ones are neither the best nor optimal."""
    rows = table.to_pylist()
    ended = [row for row in rows if row["status"] != "failed"]
    front = pareto_front(
        [row["queries"] for row in ended], [_rate(row["validation_rank_1"]) for row in ended]
    )
    optimal = {row["trial"] for row, kept in zip(ended, front, strict=True) if kept}
    best = ended[0]["trial"] if ended else ""
    trials = []
    for row in rows:
        drawn = json.loads(row["settings"])
        trials.append(
            Trial(
                trial=row["trial"],
                status=row["status"],
                settings={key: space[key].value(value) for key, value in drawn.items()},
                queries=row["queries"],
                steps=row["steps"],
                objective=row["objective"],
                validation_rank_1=_rate(row["validation_rank_1"]),
                validation_cosine=_rate(row["validation_cosine"]),
                seconds=_rate(row["seconds"]),
                curve=json.loads(row["curve"]),
                best=row["trial"] == best,
                optimal=row["trial"] in optimal,
            )
        )
    return trials


def _rate(value: float | None) -> float:
    return 0.0 if value is None or not np.isfinite(value) else value


def best_candidate(config: InversionConfig, trial: Trial) -> Candidate:
    """What the best trial has tried, named after the inverter that was varied."""
    settings = config.inversion
    made = candidate_of(settings.searched, settings.budget, trial.settings)
    label = f"{settings.searched.name}-{TUNED}"
    return Candidate(replace(made.inversion, label=label), made.budget)


def as_attack(config: InversionConfig, found: Candidate, key: str) -> str:
    """A candidate as a file of the Hydra group ``attack``."""
    rung: dict[str, Any] = settings_of(config.rung(*found))
    rung["label"] = key
    rung["inverter"]["label"] = None
    text: str = yaml.safe_dump(rung, sort_keys=False, allow_unicode=True)
    return (
        f"# @package attack.{key}\n# The best inverter of a search. With the folder above "
        f"this one's folder as --config-dir:\n#   attack=[off_the_shelf,{key}]\n{text}"
    )
