"""The search of a better reconstruction model for one anonymizer, and its trials."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from cldmray.attackers.data import AttackData
from cldmray.attackers.reconstruction.pairs import check_validation, queried
from cldmray.config.instantiate import settings_of
from cldmray.config.reconstruction import ReconstructionConfig, candidate_of
from cldmray.engine.artifacts import Artifact
from cldmray.engine.stages import Stages
from cldmray.engine.tuning import SearchData, SearchDimension, TrialSpec, read_trials, search
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.metrics.pareto import pareto_front
from cldmray.results.reconstruction import Search, Trial

TUNED = "tuned"
"""Ends the name of the reconstruction model that a search has found."""


def run_search(
    config: ReconstructionConfig, stages: Stages, name: str, faces: Artifact, anonymized: Artifact
) -> tuple[Search, TrialSpec]:
    """Search a reconstruction model for one anonymizer's images, by Ray Tune.

    Args:
        name: of the anonymizer.
        anonymized: its table.

    Returns:
        All trials, and the best candidate, named after the model that was varied.

    Raises:
        BadInputError: no validation identity has a second image.
        CldmrayError: every trial failed.
    """
    settings = config.reconstruction
    search_settings = settings.search

    def produce(folder: str) -> None:
        data = AttackData(faces, anonymized, name)
        validation = queried(data, ATTACKER_VALIDATION).pairs
        check_validation(validation.original_identities.tolist())
        material = SearchData(queried(data, ATTACKER), validation, settings.validation_recognizer)
        search(material, config.make, longest(config), search_settings, config.audit.engine, folder)

    key_settings = {
        "reconstructor": settings.searched,
        "validation_recognizer": settings.validation_recognizer,
        "budget": settings.budget,
        "search": replace(search_settings, max_concurrent_trials=1, cpus=1.0, gpus=0.0),
        "concurrent": search_settings.max_concurrent_trials,
    }
    stage = stages.run(f"search-{name}", key_settings, [faces.key, anonymized.key], produce)
    trials = trials_of(read_trials(stage), search_settings.space)
    best = best_candidate(config, trials[0])
    key = "reconstruction_best"
    if len(config.audit.anonymizers) > 1:
        key += "_" + re.sub(r"[^A-Za-z0-9]", "_", name)
    text = as_attacker(config, best, key)
    return Search(name, search_settings.objective, trials, key, text), best


def longest(config: ReconstructionConfig) -> int:
    """Steps of the longest training that a trial may take."""
    settings = config.reconstruction
    dimension = settings.search.space.get("training.max_steps")
    return max([settings.searched.max_steps] if dimension is None else dimension.extremes)


def trials_of(table: pa.Table, space: Mapping[str, SearchDimension]) -> list[Trial]:
    """The trials of a search's table; failed ones are neither the best nor optimal."""
    rows = table.to_pylist()
    complete = [row for row in rows if row["status"] != "failed"]
    front = pareto_front(
        [row["queries"] for row in complete], [_rate(row["validation_rank_1"]) for row in complete]
    )
    optimal = {row["trial"] for row, kept in zip(complete, front, strict=True) if kept}
    best = complete[0]["trial"] if complete else ""
    trials = []
    for row in rows:
        sampled = json.loads(row["settings"])
        trials.append(
            Trial(
                trial=row["trial"],
                status=row["status"],
                settings={key: space[key].value(value) for key, value in sampled.items()},
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


def best_candidate(config: ReconstructionConfig, trial: Trial) -> TrialSpec:
    """What the best trial has tried, named after the reconstruction model that was varied."""
    settings = config.reconstruction
    candidate = candidate_of(settings.searched, settings.budget, trial.settings)
    label = f"{settings.searched.name}-{TUNED}"
    return TrialSpec(replace(candidate.reconstruction, label=label), candidate.budget)


def as_attacker(config: ReconstructionConfig, candidate: TrialSpec, key: str) -> str:
    """A candidate as a file of the Hydra group ``attackers``.

    Crops that the source has given are left out: another audit's source gives its own.
    """
    crop = config.audit.faces.face_crop
    attacker: dict[str, Any] = settings_of(config.attacker(*candidate))
    if crop is not None:
        attacker = _without_crop(attacker, list(crop))
    attacker["label"] = key
    attacker["model"]["label"] = None
    text: str = yaml.safe_dump(attacker, sort_keys=False, allow_unicode=True)
    return (
        f"# @package attackers.{key}\n# The best reconstruction model of a search. With the "
        f"folder above this one's folder as --config-dir:\n#   attackers=[pretrained,{key}]\n{text}"
    )


def _without_crop(settings: Any, crop: list[float]) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {
        key: None if key == "crop" and value == crop else _without_crop(value, crop)
        for key, value in settings.items()
    }
