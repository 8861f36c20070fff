"""Gathers an attacker's training and validation images from the stages' tables.

Ray Train fits one attacker's encoder on pairs of attacker people.
"""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch
from ray.train import Checkpoint
from safetensors.torch import load, load_file, save_file

from cldmray import storage
from cldmray.arrays import Images, channels_last
from cldmray.attackers.base import TrainedAttacker
from cldmray.attackers.nn.backbones import synchronised
from cldmray.attackers.nn.encoder import SMALL, EncoderConfig, FaceEncoder, embed
from cldmray.attackers.nn.objectives import objective
from cldmray.attackers.nn.pairs import Index, PairSet, Validation
from cldmray.attackers.nn.training import (
    TrainingConfig,
    optimizer_of,
    starting_encoder,
    training_steps,
)
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import attacker_trainer, last_checkpoint
from cldmray.errors import BadInputError, CldmrayError, ConfigError
from cldmray.faces.records import ATTACKER_VALIDATION, decode_images, embedding_matrix
from cldmray.recognizers.base import Embeddings

Gathered = tuple[Images, Index, Index, Images, Index]


def pair_set(
    attacker: TrainedAttacker,
    faces: Artifact,
    anonymized: Artifact | None,
    teacher_embeddings: Artifact | None = None,
) -> PairSet:
    """Training pairs of an attacker, over the people of its training splits only.

    Args:
        faces: the faces table.
        anonymized: the anonymizer's table, for attackers that learn from it.
        taught: the teacher's embeddings of the images, for attackers that have one.

    Raises:
        BadInputError: there are no images of attacker people, or of fewer than two; or the
            teacher has not embedded a photo.
    """
    gathered, targets = _gather(
        attacker, attacker.training_splits, faces, anonymized, teacher_embeddings
    )
    return PairSet(*gathered, attacker.query == "image", targets)


def validation_set(
    attacker: TrainedAttacker,
    faces: Artifact,
    anonymized: Artifact | None,
    teacher_embeddings: Artifact | None = None,
) -> Validation:
    """Validation queries and gallery of an attacker, over the validation people only."""
    gathered, targets = _gather(
        attacker, (ATTACKER_VALIDATION,), faces, anonymized, teacher_embeddings
    )
    return Validation(*gathered, targets)


def _gather(
    attacker: TrainedAttacker,
    splits: tuple[str, ...],
    faces: Artifact,
    anonymized: Artifact | None,
    teacher_embeddings: Artifact | None,
) -> tuple[Gathered, Embeddings | None]:
    originals = _rows(faces, splits)
    if not originals.num_rows:
        raise BadInputError(
            f"{attacker.name}: no images of {splits[0]} people; see splits.attacker, "
            "splits.auxiliary_fraction and splits.validation_fraction"
        )
    samples = originals["sample_id"].to_pylist()
    images = decode_images(originals["image"].to_pylist())
    _, codes = np.unique(np.asarray(originals["identity"].to_pylist()), return_inverse=True)
    identities = codes.astype(np.int64)
    targets = None if teacher_embeddings is None else _vectors_of(teacher_embeddings, samples)
    if attacker.query != "anonymized":
        queries = images if attacker.probe_condition is None else attacker.probe_condition(images)
        return (queries, identities, np.arange(len(identities)), images, identities), targets
    if anonymized is None:
        raise BadInputError(f"{attacker.name}: learns from anonymized images, but was given none")
    table = _rows(anonymized, splits)
    if not table.num_rows:
        raise BadInputError(f"{attacker.name}: no anonymized images of {splits[0]} people")
    row_of = {sample: row for row, sample in enumerate(samples)}
    source = np.array([row_of[sample] for sample in table["sample_id"].to_pylist()], np.int64)
    queries = decode_images(table["image"].to_pylist())
    if attacker.probe_condition is not None:
        queries = attacker.probe_condition(queries)
    return (queries, identities[source], source, images, identities), targets


def _rows(table: Artifact, splits: tuple[str, ...]) -> pa.Table:
    return pa.concat_tables([table.read(split=split) for split in splits])


def _vectors_of(embeddings: Artifact, samples: list[str]) -> Embeddings:
    """The embeddings of the given samples, in their order."""
    table = embeddings.read()
    row_of = {sample: row for row, sample in enumerate(table["sample_id"].to_pylist())}
    absent = [sample for sample in samples if sample not in row_of]
    if absent:
        raise BadInputError(f"the teacher has not embedded {len(absent)} images, as {absent[0]}")
    return embedding_matrix(table)[[row_of[sample] for sample in samples]]


WEIGHTS = "encoder.safetensors"
CURVE = "curve.parquet"


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train worker function; all randomness depends on (seed, step) and not on the workers."""
    from ray.train.torch import get_device, prepare_model

    training: TrainingConfig = config["training"]
    torch.set_num_threads(config["threads"])
    pairs: PairSet = ray.get(config["pairs"])
    validation: Validation = ray.get(config["validation"])
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = get_device()
    shape: EncoderConfig = config["encoder"]
    start = None if config["start"] is None else ray.get(config["start"])
    encoder = starting_encoder(shape, training, start)
    if shape.norm == "batch" and workers > 1:
        encoder.features = synchronised(encoder.features, shape.backbone)
    # Public networks may have weights that their features do not depend on.
    options = {"find_unused_parameters": shape.backbone != SMALL}
    wrapped = prepare_model(encoder, parallel_strategy_kwargs=options)
    optimizer = optimizer_of(encoder, training)
    goal = objective(pairs, training, workers)
    first, curve = _restore(encoder, optimizer)
    losses: list[float] = []
    max_steps = training_steps(
        goal, wrapped, optimizer, device, first, rank, workers, training.micro_batch_size
    )
    for done, loss in enumerate(max_steps, first + 1):
        losses.append(loss)
        if done % training.validate_every == 0 or done == training.max_steps:
            point = {"step": done, "loss": _mean_over_workers(losses, workers, device)}
            encoder.eval()
            point["validation_rank_1"] = validation.rank_1(
                lambda images: _shared_embeddings(encoder, images, str(device), rank, workers)
            )
            encoder.train()
            losses.clear()
            curve.append(point)
            _report(point, curve, rank, encoder, optimizer)


def _mean_over_workers(losses: list[float], workers: int, device: torch.device) -> float:
    mean = torch.tensor(losses, dtype=torch.float64).mean().float().to(device)
    if workers > 1:
        torch.distributed.all_reduce(mean)
    return float(mean) / workers


def _shared_embeddings(
    encoder: FaceEncoder, images: Images, device: str, rank: int, workers: int
) -> Embeddings:
    """Embeddings of all images, of which every worker computes a share."""
    if workers == 1 or len(images) < workers:
        return embed(encoder, images, device=device)
    count = len(images)
    own = images[rank * count // workers : (rank + 1) * count // workers]
    shares: list[Any] = [None] * workers
    torch.distributed.all_gather_object(shares, embed(encoder, own, device=device))
    return np.concatenate(shares)


def _restore(encoder: FaceEncoder, optimizer: Any) -> tuple[int, list[dict[str, float]]]:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, []
    with checkpoint.as_directory() as folder:
        encoder.load_state_dict(load_file(Path(folder, WEIGHTS)))
        state = torch.load(Path(folder, "state.pt"), map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["curve"][-1]["step"]), list(state["curve"])


def _report(
    point: dict[str, float],
    curve: list[dict[str, float]],
    rank: int,
    encoder: FaceEncoder,
    optimizer: Any,
) -> None:
    with TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            weights = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items()}
            save_file(weights, Path(folder, WEIGHTS))
            state = {"optimizer": optimizer.state_dict(), "curve": curve}
            torch.save(state, Path(folder, "state.pt"))
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(point, checkpoint=checkpoint)


def check_training(attacker: TrainedAttacker, engine: EngineConfig) -> None:
    """Refuse batch normalisation on several workers that cannot share its statistics.

    Raises:
        ConfigError: they have no GPUs; the message names the key.
    """
    if (
        attacker.encoder.norm == "batch"
        and engine.most_train_workers > 1
        and not engine.gpus_per_train_worker
    ):
        raise ConfigError(
            f"encoder.norm: batch on {engine.most_train_workers} training workers needs GPUs; "
            "choose group or frozen, or engine.train_workers=1"
        )


def fit_encoder(
    attacker: TrainedAttacker,
    pairs: PairSet,
    validation: Validation,
    start: Artifact | None,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Train one encoder and commit its weights and learning curve to a stage folder.

    Training that was cut short, worker or driver, goes on from the folder's last checkpoint.

    Args:
        start: trained encoder to start from.
        folder: gets ``encoder.safetensors``, ``curve.parquet`` and Ray Train's checkpoints.

    Raises:
        BadInputError: the attacker people are too few for the training workers.
        CldmrayError: see :func:`check_training` and :func:`check_converged`.
    """
    check_training(attacker, engine)
    objective(pairs, attacker.training, engine.most_train_workers)
    weights = None if start is None else load_encoder(start, attacker.encoder).state_dict()
    config = {
        "training": attacker.training,
        "encoder": attacker.encoder,
        "threads": engine.threads,
        "pairs": ray.put(pairs),
        "validation": ray.put(validation),
        "start": None if weights is None else ray.put(weights),
    }
    trainer = attacker_trainer(train_worker, config, engine, folder)
    with last_checkpoint(trainer, attacker.name) as local:
        trained = (local / WEIGHTS).read_bytes()
        state = torch.load(local / "state.pt", map_location="cpu", weights_only=True)
    check_converged(attacker.name, state["curve"])
    storage.write_bytes(storage.join(folder, WEIGHTS), trained)
    curve = pa.Table.from_pylist(state["curve"])
    storage.write_table(storage.join(folder, CURVE), curve)
    commit(folder, Manifest({CURVE: curve.num_rows}))


def check_converged(name: str, curve: list[dict[str, float]]) -> None:
    """Refuse an encoder whose loss became infinite or not a number.

    Raises:
        CldmrayError: it did; the message names the attacker and what to change.
    """
    if not all(math.isfinite(point["loss"]) for point in curve):
        raise CldmrayError(
            f"{name}: the training diverged; lower its training.learning_rate, or raise its "
            "training.warmup_steps or training.temperature"
        )


def load_encoder(stage: Artifact, config: EncoderConfig) -> FaceEncoder:
    """The trained encoder of a stage; ``config`` is the one it was trained with."""
    encoder = FaceEncoder(config, pretrained=False)
    encoder.load_state_dict(load(storage.read_bytes(storage.join(stage.folder, WEIGHTS))))
    return channels_last(encoder).eval()


def learning_curve(stage: Artifact) -> list[dict[str, float]]:
    """Points ``step``, ``loss`` and ``validation_rank_1`` of a trained encoder."""
    rows: list[dict[str, float]] = storage.read_table(storage.join(stage.folder, CURVE)).to_pylist()
    return rows
