"""What the engine does for attackers: it trains, embeds and reconstructs on Ray, each thing once.

Attackers may call it from several threads: what the cluster has room for then runs at once.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from safetensors.numpy import save

from cldmray import storage
from cldmray.attackers.base import Attacker, LearningCurve, Learnt
from cldmray.attackers.data import AttackData, Table
from cldmray.attackers.nn.training import Trainable
from cldmray.attackers.pretrained import Pretrained
from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.engine.artifacts import WEIGHTS, Artifact, ArtifactKey, Manifest, commit
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.map_stages.embed import embed_views, learnt_arrays
from cldmray.engine.map_stages.reconstruct import reconstruct
from cldmray.engine.stages import StageHandle, Stages, StageSpec
from cldmray.engine.training import CURVE, commit_training, train
from cldmray.faces.records import EVALUATION, SPLITS
from cldmray.faces.regions import Region
from cldmray.hashing import fingerprint_rows
from cldmray.recognizers.base import Recognizer

logger = logging.getLogger(__name__)


class AttackContext:
    """The :class:`cldmray.attackers.base.Context` of one audit.

    Args:
        stages: runs the stages and finds finished ones again.
        engine: how the cluster is used.
        faces: the table of originals.
        seed: of the audit, for what is random in reconstructions.
        regions: parts of anonymized images that are embedded by themselves as well.

    Attributes:
        copies: names of the anonymizers whose images are the originals as they are, by the keys of
            their tables: what embeds both alike embeds them once.
    """

    def __init__(
        self,
        stages: Stages,
        engine: EngineConfig,
        faces: Artifact,
        *,
        seed: int = 0,
        regions: Sequence[Region] = (),
    ) -> None:
        self.stages = stages
        self.engine = engine
        self.faces = faces
        self.seed = seed
        self.regions = list(regions)
        self.copies: dict[ArtifactKey, str] = {}
        self._stages: dict[str, StageHandle] = {}
        self._reported: set[str] = set()
        self._lock = threading.Lock()
        self._identities: pa.Table | None = None

    def recognize(self, recognizer: Recognizer, splits: tuple[str, ...] = SPLITS) -> Artifact:
        """A recognizer's embeddings of the originals of some splits."""
        settings: dict[str, Any] = {"recognizer": recognizer}
        if splits != SPLITS:
            settings["splits"] = splits
        attacker = Pretrained(recognizer)
        produce = partial(embed_views, attacker, None, self.faces, [], self.engine, splits=splits)
        return self._artifact(
            f"originals-{recognizer.name}",
            settings,
            [self.faces],
            produce,
            title=f"embed originals by {recognizer.name}",
            resources=self.engine.pool_stage(attacker.gpus_per_actor(self.engine.gpus_per_actor)),
        )

    def identities_of(self, splits: tuple[str, ...]) -> pa.ChunkedArray:
        """The identities of some splits, once for each of their images."""
        if self._identities is None:
            self._identities = self.faces.read(["identity", "split"])
        rows = pc.is_in(self._identities["split"], pa.array(splits))
        return self._identities.filter(rows)["identity"]

    def learn(
        self,
        attacker: Attacker,
        data: AttackData,
        learn: Callable[[AttackData], tuple[Learnt, LearningCurve]],
    ) -> Artifact:
        """What an attacker with a training of its own has learnt, and its learning curve."""

        def produce(folder: str) -> None:
            task = ray.remote(num_cpus=TASK_CPUS, max_retries=3)(_learn)
            curve = ray.get(task.remote(learn, data, self.engine.threads, folder))
            _commit_curve(folder, curve)

        return self._fitted(attacker, data, [], produce, self.engine.task_stage)

    def train(
        self,
        attacker: Attacker,
        data: AttackData,
        make: Callable[[], Trainable],
        inputs: Sequence[Table | None] = (),
    ) -> Artifact:
        """The weights of a network that Ray Train has trained, and its learning curve."""

        def produce(folder: str) -> None:
            commit_training(folder, WEIGHTS, train(make(), self.engine, folder))

        return self._fitted(attacker, data, inputs, produce, self.engine.training_stage)

    def learnt(self, fitted: Table) -> Learnt:
        """The arrays that an attacker has learnt."""
        return learnt_arrays(cast(Artifact, fitted))

    def embed(
        self,
        attacker: Attacker,
        fitted: Table | None,
        tables: Sequence[Table],
        splits: tuple[str, ...] = (EVALUATION,),
        *,
        originals: bool = True,
        samples: Sequence[str] | None = None,
    ) -> Artifact:
        """Embeddings of the images of some splits; of the originals only if asked for.

        Args:
            samples: that are embedded alone; None: all.
        """
        faces = self.faces if originals else None
        settings: dict[str, Any] = {
            "attacker": attacker,
            "regions": self.regions,
            "splits": splits,
        }
        if samples is not None:
            settings["samples"] = fingerprint_rows(samples)
        images = cast(Sequence[Artifact], tables)
        copies = self._copies(attacker, images, splits) if originals else {}
        produce = partial(
            embed_views,
            attacker,
            cast(Artifact | None, fitted),
            faces,
            [table for table in images if table.key not in copies],
            self.engine,
            splits=splits,
            regions=self.regions,
            samples=samples,
            copies=list(copies.values()),
        )
        return self._artifact(
            f"embed-{attacker.name}",
            settings,
            [fitted, faces, *tables],
            produce,
            title=f"embed by {attacker.name}",
            resources=self.engine.pool_stage(attacker.gpus_per_actor(self.engine.gpus_per_actor)),
        )

    def reconstruct(
        self,
        attacker: Attacker,
        fitted: Table,
        table: Table,
        splits: tuple[str, ...] = (EVALUATION,),
    ) -> Artifact:
        """Reconstructions of anonymized images of some splits, and their embeddings."""
        reconstructing = cast(ReconstructionAttacker, attacker)
        settings = {
            "attacker": attacker,
            "seed": self.seed,
            "regions": self.regions,
            "splits": splits,
        }
        produce = partial(
            reconstruct,
            reconstructing,
            cast(Artifact, fitted),
            [cast(Artifact, table)],
            self.seed,
            self.engine,
            splits=splits,
            regions=self.regions,
        )
        return self._artifact(
            f"reconstruct-{reconstructing.model.name}",
            settings,
            [fitted, table],
            produce,
            title=f"reconstruct by {reconstructing.model.name}",
            resources=self.engine.pool_stage(),
        )

    def _copies(
        self, attacker: Attacker, tables: Sequence[Artifact], splits: tuple[str, ...]
    ) -> dict[ArtifactKey, str]:
        """Those of :attr:`copies` in which the attacker sees the originals of the splits."""
        if attacker.probe_condition is not None or self.regions:
            return {}
        return {
            table.key: self.copies[table.key]
            for table in tables
            if table.key in self.copies
            and all(table.count(split) == self.faces.count(split) for split in splits)
        }

    def _fitted(
        self,
        attacker: Attacker,
        data: AttackData,
        inputs: Sequence[Table | None],
        produce: Callable[[str], None],
        resources: Mapping[str, float],
    ) -> Artifact:
        """The artifact of a training; attackers that differ in their labels only share it."""
        anonymized = data.anonymized if attacker.learns_from_anonymized else None
        title = f"train {attacker.name}" + (
            f" on {data.anonymizer}" if anonymized is not None else ""
        )
        artifact = self._artifact(
            f"train-{attacker.kind}",
            {"attacker": attacker.without_labels()},
            [data.faces, anonymized, *inputs],
            produce,
            title=title,
            resources=resources,
        )
        with self._lock:
            is_new = artifact.key not in self._reported
            self._reported.add(artifact.key)
        if is_new:
            last = attacker.learning_curve(artifact)[-1]
            logger.info(
                "%s: loss %.3f, validation rank-1 %.1f %%",
                title,
                last["loss"],
                100 * last["validation_rank_1"],
            )
        return artifact

    def _artifact(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Sequence[Table | None],
        produce: Callable[[str], None],
        *,
        title: str,
        resources: Mapping[str, float],
    ) -> Artifact:
        """The artifact of a stage, which this context runs or looks for only once."""
        keys = [table.key for table in inputs if table is not None]
        stage = StageSpec(name, settings, keys, produce, title, resources)
        with self._lock:
            key = self.stages.plan(stage).key
            if key not in self._stages:
                self._stages[key] = self.stages.submit(stage)
        return self.stages.result(self._stages[key])


def _learn(
    learn: Callable[[AttackData], tuple[Learnt, LearningCurve]],
    data: AttackData,
    threads: int,
    folder: str,
) -> LearningCurve:
    """Ray task: an attacker learns; the arrays are written, the learning curve is returned."""
    import torch

    torch.set_num_threads(threads)
    learnt, curve = learn(data)
    arrays = {name: np.ascontiguousarray(value) for name, value in learnt.items()}
    storage.write_bytes(storage.join(folder, WEIGHTS), save(arrays))
    return curve


def _commit_curve(folder: str, curve: LearningCurve) -> None:
    table = pa.Table.from_pylist(curve)
    storage.write_table(storage.join(folder, CURVE), table)
    commit(folder, Manifest({CURVE: table.num_rows}))
