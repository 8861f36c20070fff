"""Hyperparameter search: Ray Tune looks for the best reconstruction model.

The best one recovers most of the attacker's validation identities.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes settings, asynchronous
successive halving (Li et al. 2020) stops those that fall behind.
"""

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple

import pyarrow as pa
import ray
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from cldmray import storage
from cldmray.attackers.nn.training import (
    Curve,
    Point,
    TrainingLoop,
    Worker,
    has_diverged,
    saved_curve,
)
from cldmray.attackers.reconstruction.base import ReconstructionModel
from cldmray.attackers.reconstruction.pairs import Queried, ReconstructionPairs
from cldmray.attackers.reconstruction.training import ReconstructionTrainable
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.failures import final_error, is_final_alone
from cldmray.errors import CldmrayError, MissingDependencyError
from cldmray.recognizers.base import Recognizer
from cldmray.settings import Count, checked_dataclass

logger = logging.getLogger(__name__)

Objective = Literal["rank_1", "cosine", "margin"]
BUDGET = "budget"
"""Key of the query budget in a search space; all others are the reconstruction model's."""


@checked_dataclass
class SearchDimension:
    """One setting that a search varies: either ``choices``, or ``low`` and ``high``.

    Attributes:
        choices: the values, plain data.
        low, high: bounds of a number, both included.
        log: whether its logarithm is sampled uniformly.
        integer: whether it is an integer.

    >>> SearchDimension(low=1, high=4, integer=True).extremes
    [1, 4]
    """

    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if self.choices is not None:
            if self.low is not None or self.high is not None:
                raise ValueError("choices: give neither low nor high beside them")
            return
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(
                f"low: give either choices, or low below high, got {self.low}, {self.high}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"low: must be above 0 where log is true, got {self.low}")

    @property
    def extremes(self) -> list[Any]:
        """All choices, or both bounds: if they fit, all values do."""
        if self.choices is not None:
            return self.choices
        return [self.value(bound) for bound in (self.low, self.high)]

    def value(self, sampled: Any) -> Any:
        """The setting's value, from what Ray Tune has sampled of :meth:`domain`."""
        if self.choices is not None:
            return json.loads(sampled)
        return round(sampled) if self.integer else float(sampled)

    def domain(self) -> Any:
        """The dimension as Ray Tune knows it; choices as JSON texts."""
        from ray import tune

        if self.choices is not None:
            return tune.choice([json.dumps(value, sort_keys=True) for value in self.choices])
        low, high = float(self.low or 0), float(self.high or 0)
        if self.integer:
            # Ray Tune leaves the upper bound of integers out.
            bounds = round(low), round(high) + 1
            return tune.lograndint(*bounds) if self.log else tune.randint(*bounds)
        return tune.loguniform(low, high) if self.log else tune.uniform(low, high)


@checked_dataclass
class SearchConfig:
    """How the best reconstruction model is searched.

    Attributes:
        trials: reconstruction models that are tried; 0 searches none.
        model: key of the one whose settings are varied.
        max_concurrent_trials: trials at a time; None: as many as the cluster has room for, so that
            those that fall behind are found early. With 1 the same seed finds the same again.
        cpus, gpus: of one trial, which may be fractions.
        objective: what is maximised, by the validation recognizer on validation identities:
            ``margin``, the likeness to the person less that to others; ``cosine``, the likeness
            alone, which rises for the average face too, and for permuted identities; or
            ``rank_1``, which tells little where few are identified.
        seed: of the sampled settings.
        grace_period: optimizer steps before a trial may be stopped.
        reduction_factor: at each further look, so many times later, one of so many trials goes on.
        space: what is varied: dotted settings of the reconstruction model, and ``budget``, the
            queries.
    """

    trials: NonNegativeInt = 0
    model: str = "unet"
    max_concurrent_trials: Count | None = None
    cpus: NonNegativeFloat = 1.0
    gpus: NonNegativeFloat = 0.0
    objective: Objective = "margin"
    seed: NonNegativeInt = 0
    grace_period: Count = 100
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    space: dict[str, SearchDimension] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cpus and not self.gpus:
            raise ValueError("cpus: must be above 0 where gpus is 0")
        if self.trials and not self.space:
            raise ValueError("space: name what is to be varied")

    def trials_at_once(self, there: Mapping[str, float]) -> int:
        """Trials that run side by side, at least 1.

        Args:
            there: CPUs and GPUs of the cluster.

        >>> SearchConfig(cpus=1.0, gpus=0.5).trials_at_once({"CPU": 8.0, "GPU": 2.0})
        4
        """
        if self.max_concurrent_trials is not None:
            return self.max_concurrent_trials
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        room = [int(there.get(kind, 0.0) / amount) for kind, amount in wanted.items() if amount]
        return max(1, min(room))


INSTALL = "pip install 'cldmray[tune]'"
EXPERIMENT = "tune"
TABLE = "trials.parquet"
OBJECTIVE = "objective"
REASON = "reason"
"""Key of what ended a trial for good, in what it reports to Ray Tune."""
DIVERGED = -2.0
"""Objective of a training that has diverged: below any rate, cosine and margin."""
ENVIRONMENT = {
    # The trials' tables are ours; no files of loggers beside them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The older output, which can be turned off.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Ctrl-C is the job's, which stops everything.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
TRIALS = pa.schema(
    [
        pa.field("trial", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("settings", pa.string(), nullable=False),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("objective", pa.float64(), nullable=False),
        pa.field("validation_rank_1", pa.float64()),
        pa.field("validation_cosine", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("curve", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""One row a trial, the best first. ``status`` is ``finished``, ``stopped`` (fell behind) or
``failed``; ``settings`` holds what was varied and ``curve`` the points, as JSON; ``steps``,
``objective`` and rates are those of the last point; ``queries`` were learnt from; ``seconds`` are
those of the trial's training and validation; ``reason`` says why a trial failed."""


class TrialSpec(NamedTuple):
    """What a trial fits: a reconstruction model within a query budget."""

    reconstruction: ReconstructionModel
    budget: int | None


MakeTrial = Callable[[Mapping[str, Any]], TrialSpec]
"""What a trial fits, from what was sampled of each dimension; picklable."""


class SearchData(NamedTuple):
    """What every trial learns from and is validated on.

    Attributes:
        training: of attacker identities, whom a trial's budget reduces.
        validation: pairs of other identities of the attacker.
        validation_recognizer: embeds them.
    """

    training: Queried
    validation: ReconstructionPairs
    validation_recognizer: Recognizer


def check_tune() -> None:
    """Find out before any work starts whether Optuna is there.

    Raises:
        MissingDependencyError: it is not.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingDependencyError(f"the search needs the package optuna: {INSTALL}")


def train_trial(
    config: dict[str, Any],
    data: SearchData,
    make: MakeTrial,
    objective: str,
    threads: int,
    gpu: bool,
) -> None:
    """One trial, in a process of its own; killed, it goes on from its last point.

    An error that would come again ends it with the reason, since Ray Tune would try it once more.
    """
    from ray import tune

    torch.set_num_threads(threads)
    spec = make(config)
    try:
        trainable = ReconstructionTrainable(
            spec.reconstruction,
            data.training.within(spec.budget),
            validation=data.validation,
            validation_recognizer=data.validation_recognizer,
        )
        loop = TrainingLoop(trainable, Worker(device="cuda" if gpu else "cpu"))
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                loop.restore(folder)
        for point in loop.points():
            with TemporaryDirectory() as folder:
                loop.save(folder)
                saved = tune.Checkpoint.from_directory(folder)
                tune.report({**point, OBJECTIVE: objective_at(point, objective)}, checkpoint=saved)
    except Exception as error:
        if not is_final_alone(error):
            raise
        reason = _last_line(final_error(error, spec.reconstruction.name))
        tune.report({OBJECTIVE: DIVERGED, REASON: reason})


def _last_line(error: Exception) -> str:
    """What an error says, without the traceback of a worker that may stand before it."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def objective_at(point: Point, objective: str) -> float:
    """The objective at a point of a learning curve; ``DIVERGED`` where the training diverged."""
    if has_diverged([point]):
        return DIVERGED
    return point[f"validation_{objective}"]


def search(
    data: SearchData,
    make: MakeTrial,
    max_steps: int,
    settings: SearchConfig,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Run all trials and commit their table to a stage folder.

    A search whose driver was killed goes on from what lies in the folder: trials that had ended
    are kept, others go on from their checkpoints, and only those that are missing are added. Its
    state is written every second, to an object store every half minute.

    Args:
        data: of attacker and of validation identities, never of evaluation identities.
        make: makes what a trial fits.
        max_steps: of the longest training.
        folder: gets Ray Tune's experiment ``tune`` and ``trials.parquet``.

    Raises:
        MissingDependencyError: Optuna is absent.
        CldmrayError: every trial failed.
    """
    check_tune()
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "30" if "://" in folder else "1")
    from ray import tune

    filesystem, path = storage.resolve(folder)
    experiment = storage.join(path, EXPERIMENT)
    trainable = tune.with_resources(
        tune.with_parameters(
            train_trial,
            data=data,
            make=make,
            objective=settings.objective,
            threads=engine.threads,
            gpu=settings.gpus > 0,
        ),
        {"cpu": settings.cpus, "gpu": settings.gpus},
    )
    if tune.Tuner.can_restore(experiment, filesystem):
        tuner = tune.Tuner.restore(
            experiment, trainable, resume_errored=True, storage_filesystem=filesystem
        )
    else:
        tuner = _new_tuner(trainable, max_steps, settings, engine, path, filesystem)
    results = tuner.fit()
    trials = [_row(results[place], make, settings.objective) for place in range(len(results))]
    failed = [row for row in trials if row["status"] == "failed"]
    for row in failed:
        logger.warning("trial %s of the search failed: %s", row["trial"], row["reason"])
    if len(failed) == len(trials):
        reasons = "; ".join(sorted({row["reason"] for row in failed}))
        raise CldmrayError(f"every trial of the search failed ({reasons}); see {experiment}")
    trials.sort(key=lambda row: (row["status"] == "failed", -row["objective"], row["trial"]))
    table = pa.Table.from_pylist(trials, TRIALS)
    storage.write_table(storage.join(folder, TABLE), table)
    commit(folder, Manifest({TABLE: table.num_rows}))


def trial_folder(trial: Any) -> str:
    """Folder of a trial in the experiment: its name in the table, whatever its settings."""
    return str(trial.trial_id)


def _new_tuner(
    trainable: Any,
    max_steps: int,
    settings: SearchConfig,
    engine: EngineConfig,
    path: str,
    filesystem: Any,
) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    longest = max(1, max_steps)
    return tune.Tuner(
        trainable,
        param_space={key: dimension.domain() for key, dimension in settings.space.items()},
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            num_samples=settings.trials,
            max_concurrent_trials=settings.trials_at_once(ray.cluster_resources()),
            reuse_actors=True,
            trial_dirname_creator=trial_folder,
            search_alg=OptunaSearch(seed=settings.seed),
            scheduler=ASHAScheduler(
                time_attr="step",
                max_t=longest,
                grace_period=min(settings.grace_period, longest),
                reduction_factor=settings.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=2),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=1 if engine.progress else 0,
        ),
    )


def _row(result: Any, make: MakeTrial, objective: str) -> dict[str, Any]:
    """A trial's row; what it has reached is read from its last checkpoint."""
    metrics = result.metrics or {}
    spec = make(result.config)
    curve: Curve = []
    if result.checkpoint is not None:
        with result.checkpoint.as_directory() as folder:
            curve = saved_curve(folder)
    last = curve[-1] if curve else {}
    steps = int(last.get("step", 0))
    reason = metrics.get(REASON) or ""
    if not reason and (result.error is not None or not curve):
        reason = _last_line(result.error) if result.error is not None else "it ended early"
    complete = steps >= spec.reconstruction.max_steps
    return {
        "trial": str(metrics.get("trial_id") or Path(result.path).name),
        "status": "failed" if reason else "finished" if complete else "stopped",
        "settings": json.dumps(dict(result.config), sort_keys=True),
        "queries": int(last.get("queries", 0)),
        "steps": steps,
        "objective": objective_at(last, objective) if last else DIVERGED,
        "validation_rank_1": last.get("validation_rank_1"),
        "validation_cosine": last.get("validation_cosine"),
        "seconds": metrics.get("time_total_s"),
        "curve": json.dumps(curve),
        "reason": reason,
    }


def read_trials(stage: Artifact) -> pa.Table:
    """The table of a search's stage, schema :data:`TRIALS`, the best trial first."""
    return storage.read_table(storage.join(stage.folder, TABLE)).cast(TRIALS)
