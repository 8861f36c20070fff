"""Ray fits one inverter on what the anonymizer gave back for attacker people's photographs."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import ray.train
import torch
from ray.train import Checkpoint

from cldmray import storage
from cldmray.attackers.inversion.base import Inversion, Inverter
from cldmray.attackers.inversion.pairs import InversionPairs
from cldmray.attackers.inversion.training import load_inverter
from cldmray.attackers.recognizer import Recognizer
from cldmray.engine.checkpoints import attacker_trainer, last_checkpoint
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.inversion_loop import (
    WEIGHTS,
    InversionLoop,
    Point,
    check_converged,
    saved_state,
)
from cldmray.engine.tables import Manifest, StageTable, commit
from cldmray.errors import BadInputError

CURVE = "curve.parquet"


class Learning(NamedTuple):
    """What an inverter is, learns from and is validated on."""

    inversion: Inversion
    pairs: InversionPairs
    validation: InversionPairs
    validator: Recognizer


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train worker function; all randomness depends on (seed, step) and not on the workers."""
    from ray.train.torch import get_device, prepare_model

    torch.set_num_threads(config["threads"])
    learning: Learning = ray.get(config["learning"])
    context = ray.train.get_context()
    rank, workers = int(context.get_world_rank()), int(context.get_world_size())
    device = get_device()
    loop = InversionLoop(
        learning.inversion,
        learning.pairs,
        learning.validation if rank == 0 else None,
        learning.validator,
        str(device),
        rank,
        workers,
        prepare_model,
    )
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            loop.restore(folder)

    def mean(losses: list[float]) -> float:
        total = torch.tensor(losses, dtype=torch.float64).mean().float().to(device)
        if workers > 1:
            torch.distributed.all_reduce(total)
        return float(total) / workers

    for point in loop.points(mean):
        with TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                loop.save(folder)
                saved = Checkpoint.from_directory(folder)
            ray.train.report(point, checkpoint=saved)


def learn_at_once(learning: Learning, folder: str, threads: int) -> list[Point]:
    """Ray task: an inverter without a network learns; its file is written, its curve returned."""
    torch.set_num_threads(threads)
    loop = InversionLoop(*learning)
    list(loop.points())
    with TemporaryDirectory() as local:
        loop.save(local)
        storage.write_bytes(storage.join(folder, WEIGHTS), Path(local, WEIGHTS).read_bytes())
    return loop.curve


def fit_inverter(
    inversion: Inversion,
    pairs: InversionPairs,
    validation: InversionPairs,
    validator: Recognizer,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Let one inverter learn and commit it with its learning curve to a stage folder.

    A training that was cut short, worker or driver, goes on from the folder's last checkpoint.

    Args:
        pairs: of attacker people, as many as the query budget allows; a control shuffles them
            itself.
        validation: pairs of other people of the attacker.
        validator: embeds them.
        folder: gets ``inverter.safetensors``, ``curve.parquet`` and Ray Train's checkpoints.

    Raises:
        BadInputError: the pairs are too few for the training workers.
        CldmrayError: the training diverged.
    """
    learning = Learning(inversion, pairs, validation, validator)
    if not inversion.steps:
        task = ray.remote(num_cpus=engine.cpus_per_actor, max_retries=3)(learn_at_once)
        curve: list[Point] = ray.get(task.remote(learning, folder, engine.threads))
    else:
        if pairs.queries < engine.most_train_workers:
            raise BadInputError(
                f"{inversion.name}: {pairs.queries} anonymized pictures are too few for "
                f"{engine.most_train_workers} training workers; raise the query budget"
            )
        curve = _train(learning, engine, folder)
    check_converged(inversion.name, curve)
    table = pa.Table.from_pylist(curve)
    storage.write_table(storage.join(folder, CURVE), table)
    commit(folder, Manifest({CURVE: table.num_rows}))


def _train(learning: Learning, engine: EngineConfig, folder: str) -> list[Point]:
    config = {"learning": ray.put(learning), "threads": engine.threads}
    trainer = attacker_trainer(train_worker, config, engine, folder)
    with last_checkpoint(trainer, learning.inversion.name) as local:
        storage.write_bytes(storage.join(folder, WEIGHTS), (local / WEIGHTS).read_bytes())
        curve: list[Point] = saved_state(local)["curve"]
    return curve


def fitted_inverter(stage: StageTable, inversion: Inversion, device: str = "cpu") -> Inverter:
    """The inverter of a stage; ``inversion`` are the settings with which it learnt."""
    return load_inverter(inversion, storage.join(stage.folder, WEIGHTS), device)


def inversion_curve(stage: StageTable) -> list[Point]:
    """The learning curve of a stage's inverter."""
    rows: list[Point] = storage.read_table(storage.join(stage.folder, CURVE)).to_pylist()
    return rows
