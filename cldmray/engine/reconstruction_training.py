"""Gathers what an reconstruction model learns from, and is validated on, out of the stages' tables.

The training of one reconstruction model, point by point of its learning curve; it can go on from a folder.

Ray Train's workers and Ray Tune's trials run the same loop.

Ray fits one reconstruction model on what the anonymizer gave back for attacker people's images.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch
from ray.train import Checkpoint
from safetensors.torch import load_file, save_file
from torch import nn

from cldmray import storage
from cldmray.attackers.nn.training import optimizer_of, training_steps
from cldmray.attackers.reconstruction.base import (
    ReconstructionModel,
    Reconstructor,
    TrainedReconstructionModel,
)
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs, within_budget
from cldmray.attackers.reconstruction.training import ReconstructionObjective, load_reconstructor
from cldmray.attackers.reconstruction.validation import validation_point
from cldmray.engine.artifacts import Artifact, Manifest, commit
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.training import attacker_trainer, last_checkpoint
from cldmray.errors import BadInputError, CldmrayError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, decode_images
from cldmray.recognizers.base import Recognizer


@dataclass(frozen=True)
class Queried:
    """Pairs, and the sample behind each anonymized image.

    Attributes:
        pairs: of the people of one split.
        samples: ``sample_id`` of each anonymized image.
    """

    pairs: ReconstructionPairs
    samples: list[str]

    def within(self, budget: int | None) -> ReconstructionPairs:
        """The pairs that so many queries buy; see :func:`within_budget`."""
        return self.pairs.rows(within_budget(self.samples, budget))


def queried(faces: Artifact, anonymized: Artifact, split: str) -> Queried:
    """All images of a split's people, and all anonymized images of theirs.

    Args:
        split: ``ATTACKER`` to learn from, ``ATTACKER_VALIDATION`` to validate on.

    Raises:
        BadInputError: there are no images, or no anonymized images, of such people.
    """
    if split not in (ATTACKER, ATTACKER_VALIDATION):
        raise ValueError(f"an reconstruction model may not learn from {split} people")
    originals = faces.read(split=split)
    table = anonymized.read(split=split)
    if not originals.num_rows or not table.num_rows:
        what = "anonymized images" if originals.num_rows else "photographs"
        raise BadInputError(
            f"inversion: no {what} of {split} people; see splits.attacker, "
            "splits.auxiliary_fraction and splits.validation_fraction"
        )
    samples = originals["sample_id"].to_pylist()
    _, codes = np.unique(np.asarray(originals["identity"].to_pylist()), return_inverse=True)
    identities = codes.astype(np.int64)
    row_of = {sample: row for row, sample in enumerate(samples)}
    sent = table["sample_id"].to_pylist()
    source = np.array([row_of[sample] for sample in sent], np.int64)
    pairs = ReconstructionPairs(
        decode_images(table["image"].to_pylist()),
        identities[source],
        source,
        decode_images(originals["image"].to_pylist()),
        identities,
    )
    return Queried(pairs, sent)


WEIGHTS = "reconstruction_model.safetensors"
STATE = "state.pt"
Point = dict[str, float]
"""``step``, ``loss`` (NaN where nothing is trained), ``validation_rank_1``, ``validation_cosine``,
``validation_margin``, ``validation_difference`` (see :func:`validation_point`) and ``queries``."""


class ReconstructionLoop:
    """One worker's part of a training.

    Args:
        inversion: what is trained.
        pairs: that it learns from, within its budget; not shuffled yet.
        validation: pairs of other people; None measures no points (workers but the first).
        validator: embeds them.
        device: of torch.
        rank, workers: which share of each batch this process takes.
        wrap: puts the network into DistributedDataParallel.

    Attributes:
        reconstruction model: as far as it has learnt.
        curve: points so far.

    Raises:
        CldmrayError: see :meth:`Reconstructor.learn` and :class:`ReconstructionObjective`.
    """

    def __init__(
        self,
        reconstruction: ReconstructionModel,
        pairs: ReconstructionPairs,
        validation: ReconstructionPairs | None,
        validation_recognizer: Recognizer,
        device: str = "cpu",
        rank: int = 0,
        workers: int = 1,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self.reconstruction = reconstruction
        self.validation = validation
        self.validation_recognizer = validation_recognizer
        self.device = torch.device(device)
        self.rank, self.workers = rank, workers
        learnt = reconstruction.training_pairs(pairs)
        self.queries = learnt.queries
        self.reconstructor: Reconstructor = reconstruction.build(device)
        self.reconstructor.learn(learnt)
        self.curve: list[Point] = []
        self.goal: ReconstructionObjective | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.called: nn.Module | None = None
        network = self.reconstructor.network
        if network is not None and isinstance(reconstruction, TrainedReconstructionModel):
            self.called = network if wrap is None else wrap(network)
            self.goal = ReconstructionObjective(
                self.reconstructor, learnt, reconstruction.training, workers
            )
            self.optimizer = optimizer_of(self.called, reconstruction.training)

    def points(self, mean: Callable[[list[float]], float] | None = None) -> Iterator[Point]:
        """Train, and give each point of the curve when it is reached; it is in ``curve`` then.

        Args:
            mean: over the losses since the last point and over workers; None: over the former.
        """
        if self.goal is None or self.called is None or self.optimizer is None:
            if not self.curve:
                yield self._point(0, math.nan)
            return
        training = self.goal.training
        first = int(self.curve[-1]["step"]) if self.curve else 0
        losses: list[float] = []
        max_steps = training_steps(
            self.goal, self.called, self.optimizer, self.device, first, self.rank, self.workers
        )
        for done, loss in enumerate(max_steps, first + 1):
            losses.append(loss)
            if done % training.validate_every == 0 or done == training.max_steps:
                yield self._point(done, (mean or _mean)(losses))
                losses = []

    def _point(self, step: int, loss: float) -> Point:
        point = {"step": float(step), "loss": loss, "queries": float(self.queries)}
        if self.validation is not None:
            network = self.reconstructor.network
            if network is not None:
                network.eval()
            found = validation_point(
                self.reconstructor, self.validation, self.validation_recognizer
            )
            if network is not None:
                network.train()
            point |= {f"validation_{name}": value for name, value in found.items()}
        self.curve.append(point)
        return point

    def save(self, folder: str | Path) -> None:
        """Write all that going on needs."""
        save_file(self.reconstructor.state(), Path(folder, WEIGHTS))
        optimizer = {} if self.optimizer is None else self.optimizer.state_dict()
        torch.save({"optimizer": optimizer, "curve": self.curve}, Path(folder, STATE))

    def restore(self, folder: str | Path) -> None:
        """Go on from what :meth:`save` has written."""
        self.reconstructor.load_state(load_file(Path(folder, WEIGHTS)))
        state = saved_state(folder)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.curve = list(state["curve"])


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


def saved_state(folder: str | Path) -> dict[str, Any]:
    """``optimizer`` and ``curve`` of a folder that :meth:`ReconstructionLoop.save` has written."""
    state: dict[str, Any] = torch.load(Path(folder, STATE), map_location="cpu", weights_only=True)
    return state


def check_converged(name: str, curve: list[Point]) -> None:
    """Refuse an reconstruction model whose loss became infinite or not a number.

    Raises:
        CldmrayError: it did; the message names the reconstruction model and what to change.
    """
    if any(point["step"] and not math.isfinite(point["loss"]) for point in curve):
        raise CldmrayError(
            f"{name}: the training diverged; lower its training.learning_rate or raise its "
            "training.warmup_steps"
        )


def check_validation(pairs: ReconstructionPairs) -> None:
    """Refuse validation people of whom nobody can be named.

    Raises:
        BadInputError: nobody has a second image, so that ``validation_rank_1`` says nothing.
    """
    identities = pairs.original_identities.tolist()
    if len(set(identities)) == len(identities):
        raise BadInputError(
            "inversion: no validation person has two images; see splits.validation_fraction"
        )


CURVE = "curve.parquet"


class Learning(NamedTuple):
    """What an reconstruction model is, learns from and is validated on."""

    reconstruction: ReconstructionModel
    pairs: ReconstructionPairs
    validation: ReconstructionPairs
    validation_recognizer: Recognizer


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train worker function; all randomness depends on (seed, step) and not on the workers."""
    from ray.train.torch import get_device, prepare_model

    torch.set_num_threads(config["threads"])
    learning: Learning = ray.get(config["learning"])
    context = ray.train.get_context()
    rank, workers = int(context.get_world_rank()), int(context.get_world_size())
    device = get_device()
    loop = ReconstructionLoop(
        learning.reconstruction,
        learning.pairs,
        learning.validation if rank == 0 else None,
        learning.validation_recognizer,
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
    """Ray task: an reconstruction model without a network learns; its file is written, its curve returned."""
    torch.set_num_threads(threads)
    loop = ReconstructionLoop(*learning)
    list(loop.points())
    with TemporaryDirectory() as local:
        loop.save(local)
        storage.write_bytes(storage.join(folder, WEIGHTS), Path(local, WEIGHTS).read_bytes())
    return loop.curve


def fit_reconstructor(
    reconstruction: ReconstructionModel,
    pairs: ReconstructionPairs,
    validation: ReconstructionPairs,
    validation_recognizer: Recognizer,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Let one reconstruction model learn and commit it with its learning curve to a stage folder.

    A training that was cut short, worker or driver, goes on from the folder's last checkpoint.

    Args:
        pairs: of attacker people, as many as the query budget allows; a control shuffles them
            itself.
        validation: pairs of other people of the attacker.
        validator: embeds them.
        folder: gets ``reconstruction model.safetensors``, ``curve.parquet`` and Ray Train's checkpoints.

    Raises:
        BadInputError: the pairs are too few for the training workers.
        CldmrayError: the training diverged.
    """
    learning = Learning(reconstruction, pairs, validation, validation_recognizer)
    if not reconstruction.max_steps:
        task = ray.remote(num_cpus=engine.cpus_per_actor, max_retries=3)(learn_at_once)
        curve: list[Point] = ray.get(task.remote(learning, folder, engine.threads))
    else:
        if pairs.queries < engine.most_train_workers:
            raise BadInputError(
                f"{reconstruction.name}: {pairs.queries} anonymized images are too few for "
                f"{engine.most_train_workers} training workers; raise the query budget"
            )
        curve = _train(learning, engine, folder)
    check_converged(reconstruction.name, curve)
    table = pa.Table.from_pylist(curve)
    storage.write_table(storage.join(folder, CURVE), table)
    commit(folder, Manifest({CURVE: table.num_rows}))


def _train(learning: Learning, engine: EngineConfig, folder: str) -> list[Point]:
    config = {"learning": ray.put(learning), "threads": engine.threads}
    trainer = attacker_trainer(train_worker, config, engine, folder)
    with last_checkpoint(trainer, learning.reconstruction.name) as local:
        storage.write_bytes(storage.join(folder, WEIGHTS), (local / WEIGHTS).read_bytes())
        curve: list[Point] = saved_state(local)["curve"]
    return curve


def fitted_reconstructor(
    stage: Artifact, reconstruction: ReconstructionModel, device: str = "cpu"
) -> Reconstructor:
    """The reconstruction model of a stage; ``inversion`` are the settings with which it learnt."""
    return load_reconstructor(reconstruction, storage.join(stage.folder, WEIGHTS), device)


def reconstruction_curve(stage: Artifact) -> list[Point]:
    """The learning curve of a stage's reconstruction model."""
    rows: list[Point] = storage.read_table(storage.join(stage.folder, CURVE)).to_pylist()
    return rows
