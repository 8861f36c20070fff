"""The one training loop (:mod:`cldmray.attackers.nn.training`) on the workers of a cluster.

One worker on a CPU is a Ray task: it needs no group of processes, and several trainings share the
machine. Several workers, elastic ones and those with GPUs are Ray Train's.
"""

import io
import json
import logging
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import load
from torch import Tensor, nn

from cldmray import errors, storage
from cldmray.attackers.nn.training import (
    WEIGHTS_FILE,
    Curve,
    Trainable,
    TrainingLoop,
    Worker,
    check_converged,
    saved_curve,
)
from cldmray.engine import cluster
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.failures import final_error, is_final, is_final_alone
from cldmray.errors import CldmrayError

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CURVE = "curve.parquet"
ERROR_FILE = "error.json"
CHECKPOINT_FILE = "checkpoint.tar"
"""The last checkpoint of a training in one process; one file is there whole or not at all."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training has learnt.

    Attributes:
        weights: content of a safetensors file; see :meth:`Trainable.state`.
        curve: points of the learning curve.
    """

    weights: bytes
    curve: Curve

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights by their names."""
        return load(self.weights)


def train(
    trainable: Trainable, engine: EngineConfig, folder: str, run: str = CHECKPOINTS
) -> TrainingResult:
    """Train on the engine's training workers; a training that was cut short goes on.

    Workers that fail are replaced, ``engine.train_failures`` times. What would fail again, a wrong
    setting, unsuitable data, too little memory or a diverged training, is not tried again.

    Args:
        trainable: what is trained; without steps it learns in one task.
        engine: how many workers, on what.
        folder: local, ``s3://`` or ``gs://``; gets the checkpoints, of which the last is kept.
        run: name of their folder in it.

    Raises:
        CldmrayError: the trainable raised one on a worker, a step does not fit into memory, or the
            training diverged.
        RuntimeError: something else that is :func:`~cldmray.engine.failures.is_final`, with the
            worker's traceback.
    """
    cluster.start()
    in_task = engine.trains_in_tasks or not trainable.max_steps
    trainable.check(1 if in_task else engine.most_train_workers)
    if in_task:
        remote = ray.remote(
            num_cpus=TASK_CPUS, max_retries=engine.train_failures, retry_exceptions=True
        )
        task: Any = remote(training_task)
        checkpoints = storage.join(folder, run) if trainable.max_steps else None
        outcome: TrainingResult | Exception = ray.get(
            task.remote(trainable, engine.threads, checkpoints)
        )
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
    error = storage.join(folder, f"{run}-{ERROR_FILE}")
    storage.delete(error)
    config = {"trainable": ray.put(trainable), "threads": engine.threads, "error": error}
    trainer = torch_trainer(train_worker, config, engine, folder, run=run)
    with _error_in(error), last_checkpoint(trainer) as local:
        if storage.exists(error):
            raise _read_error(error)
        if local is None:
            raise CldmrayError(f"training of {trainable.name} ended without a checkpoint")
        result = TrainingResult((local / WEIGHTS_FILE).read_bytes(), saved_curve(local))
    check_converged(trainable.name, result.curve, trainable.remedy)
    return result


def commit_training(folder: str, weights: str, result: TrainingResult) -> None:
    """Commit what was learnt to a stage folder.

    Args:
        weights: name of the file that gets the weights; ``curve.parquet`` gets the curve.
    """
    storage.write_bytes(storage.join(folder, weights), result.weights)
    curve = pa.Table.from_pylist(result.curve)
    storage.write_table(storage.join(folder, CURVE), curve)
    commit(folder, Manifest({CURVE: curve.num_rows}))


def learning_curve(stage: Artifact) -> Curve:
    """Learning curve of a stage that :func:`commit_training` has written."""
    rows: Curve = storage.read_table(storage.join(stage.folder, CURVE)).to_pylist()
    return rows


def train_in_process(
    trainable: Trainable, threads: int = 1, checkpoints: str | None = None
) -> TrainingResult:
    """Train in this process; with checkpoints, a training that was cut short goes on.

    Ray is not asked, so that the process may be stopped for hours, or killed.

    Args:
        threads: of torch.
        checkpoints: folder, local or remote, that gets a checkpoint at each point of the curve, in
            place of the one before; None: nothing is kept.

    Raises:
        CldmrayError: the trainable cannot be built, or the training diverged.
    """
    torch.set_num_threads(threads)
    loop = TrainingLoop(trainable)
    kept = checkpoints and storage.join(checkpoints, CHECKPOINT_FILE)
    if kept and storage.exists(kept):
        _restore(loop, storage.read_bytes(kept))
    for point in loop.points():
        logger.info("%s: step %d of %d, loss %.4f", trainable.name, point["step"],
                    trainable.max_steps, point["loss"])  # fmt: skip
        if kept:
            storage.write_bytes(kept, _saved(loop))
    check_converged(trainable.name, loop.curve, trainable.remedy)
    with TemporaryDirectory() as folder:
        loop.save(folder)
        return TrainingResult(Path(folder, WEIGHTS_FILE).read_bytes(), loop.curve)


def training_task(
    trainable: Trainable, threads: int, checkpoints: str | None
) -> TrainingResult | Exception:
    """:func:`train_in_process` in a task; a final error is returned, since Ray would retry."""
    try:
        return train_in_process(trainable, threads, checkpoints)
    except Exception as error:
        if not is_final_alone(error):
            raise
        return final_error(error, trainable.name)


def _saved(loop: TrainingLoop) -> bytes:
    """What the loop needs to go on, as a tar archive."""
    content = io.BytesIO()
    with TemporaryDirectory() as folder, tarfile.open(fileobj=content, mode="w") as archive:
        loop.save(folder)
        archive.add(folder, ".")
    return content.getvalue()


def _restore(loop: TrainingLoop, saved: bytes) -> None:
    """Go on from what :func:`_saved` gave."""
    with TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        archive.extractall(folder, filter="data")
        loop.restore(folder)


def train_worker(config: dict[str, Any]) -> None:
    """Run the loop as a worker function of Ray Train.

    A final error would come again in another try. It is therefore written to the file
    ``config["error"]``, and the worker ends as if it had succeeded. Where others may wait for this
    worker, only its failure ends them; the workers of the next try find the file and end at once.
    """
    if storage.exists(config["error"]):
        return
    torch.set_num_threads(config["threads"])
    trainable: Trainable = ray.get(config["trainable"])
    worker = this_worker()
    loop = None
    try:
        loop = TrainingLoop(trainable, worker, _wrap_with(trainable))
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                loop.restore(folder)
        for point in loop.points():
            with TemporaryDirectory() as folder:
                saved = None
                if worker.rank == 0:
                    loop.save(folder)
                    saved = Checkpoint.from_directory(folder)
                ray.train.report(point, checkpoint=saved)
    except Exception as error:
        if not is_final(error):
            raise
        _write_error(config["error"], final_error(error, trainable.name))
        raised_by_all = loop is None and isinstance(error, CldmrayError)
        if worker.workers > 1 and not raised_by_all:
            raise


def this_worker() -> Worker:
    """The process of a Ray Train worker, with the device that Ray gave it."""
    from ray.train.torch import get_device

    context = ray.train.get_context()
    device = get_device()
    if device.type == "cuda":
        # Workers of one node see all its GPUs, and collectives take the current one.
        torch.cuda.set_device(device)
    return Worker(int(context.get_world_rank()), int(context.get_world_size()), str(device))


def _wrap_with(trainable: Trainable) -> Any:
    from ray.train.torch import prepare_model

    def wrap(network: nn.Module) -> nn.Module:
        options = {"find_unused_parameters": trainable.find_unused_parameters}
        wrapped: nn.Module = prepare_model(network, parallel_strategy_kwargs=options)
        return wrapped

    return wrap


@contextmanager
def _error_in(uri: str) -> Iterator[None]:
    """Raise what a worker has written instead of what Ray Train makes of the worker's end."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CldmrayError) or not storage.exists(uri):
            raise
        raise _read_error(uri) from error


def _write_error(uri: str, error: Exception) -> None:
    record = {"kind": type(error).__name__, "message": str(error)}
    storage.write_bytes(uri, json.dumps(record).encode())


def _read_error(uri: str) -> Exception:
    record = json.loads(storage.read_bytes(uri))
    kind = getattr(errors, record["kind"], RuntimeError)
    error: Exception = kind(record["message"])
    return error


def torch_trainer(
    worker_function: Any,
    config: dict[str, Any],
    engine: EngineConfig,
    folder: str,
    *,
    run: str = CHECKPOINTS,
) -> TorchTrainer:
    """Ray Train's trainer on the engine's training workers, some of which may fail.

    Args:
        worker_function: called with ``config`` on every worker.
        folder: gets the folder ``run``, from which a training that was cut short goes on, and in
            which the last checkpoint is kept.
    """
    use_gpu = engine.gpus_per_train_worker > 0
    filesystem, path = storage.resolve(folder)
    return TorchTrainer(
        worker_function,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=worker_range(engine.train_workers, engine.max_train_workers),
            use_gpu=use_gpu,
            resources_per_worker=(
                {"GPU": engine.gpus_per_train_worker}
                if use_gpu
                else {"CPU": engine.cpus_per_train_worker}
            ),
        ),
        run_config=RunConfig(
            name=run,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=engine.train_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def worker_range(least: int, most: int | None) -> Any:
    """Ray Train's ``num_workers``: a fixed number, or the pair of ``least`` and ``most``."""
    return least if most is None or most == least else (least, most)


@contextmanager
def last_checkpoint(trainer: TorchTrainer) -> Iterator[Path | None]:
    """Train, and give the last checkpoint as a local folder; None where there is none."""
    # Train's own handler would end the job with exit status 0 and stay after the training.
    vars(trainer)["_register_sigint_handler"] = _leave_to_the_job
    checkpoint = trainer.fit().checkpoint
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _leave_to_the_job(controller: Any) -> None:
    """Ctrl-C is the job's, which stops everything: ``cldmray.cli.runtime``."""
