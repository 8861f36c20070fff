"""How an attacker is trained by Ray Train, and where a training ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from cldmray import storage
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import CldmrayError


def attacker_trainer(
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    engine: EngineConfig,
    folder: str,
) -> TorchTrainer:
    """Trains on the engine's training workers, some of which may fail.

    Args:
        loop: worker function, called with ``config``.
        folder: of the stage; gets ``checkpoints``, from which a training that was cut short goes
            on, and of which the last is kept.
    """
    use_gpu = engine.gpus_per_train_worker > 0
    filesystem, path = storage.resolve(folder)
    return TorchTrainer(
        loop,
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
            name="checkpoints",
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
def last_checkpoint(trainer: TorchTrainer, name: str) -> Iterator[Path]:
    """Train, and give the last checkpoint as a local folder.

    Raises:
        CldmrayError: the training reported none; the message has ``name``.
    """
    # Train's own handler would end the job with exit status 0 and stay after the training.
    vars(trainer)["_register_sigint_handler"] = _leave_to_the_job
    checkpoint = trainer.fit().checkpoint
    if checkpoint is None:
        raise CldmrayError(f"training of {name} ended without a checkpoint")
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _leave_to_the_job(controller: Any) -> None:
    """Ctrl-C is the job's, which stops everything: ``cldmray.cli.runtime``."""
