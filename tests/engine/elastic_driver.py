"""A driver that trains slowly on whatever nodes there are, and then once more on one worker.

Arguments: the cluster's address and a folder. Its file ``sizes`` gets the number of workers at each
point of the learning curve; points take a while until there is a file ``hurry``.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cldmray.attackers.contrastive import CleanTrained
from cldmray.attackers.nn.encoder import SmallEncoder
from cldmray.attackers.nn.pairs import PairSet, Validation
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.cluster import EngineConfig, connect
from cldmray.engine.training import learning_curve
from tests.engine.training_helpers import fit_encoder, load_encoder

PAUSE = 5.0
IDENTITIES, BATCH = 9, 7
TINY = SmallEncoder(width=8, blocks=(1, 1, 1, 1), dimensions=16, pool=2)
TRAINING = TrainingConfig(
    max_steps=90,
    batch_size=BATCH,
    learning_rate=1e-4,
    warmup_steps=1,
    validate_every=1,
    precision="fp32",
)


class Slow(Validation):
    """Writes the number of workers down, and takes its time."""

    __slots__ = ()

    def rank_1(self, embed: object) -> float:
        distributed = torch.distributed.is_initialized()
        if not distributed or torch.distributed.get_rank() == 0:
            with Path(FOLDER, "sizes").open("a") as sizes:
                print(torch.distributed.get_world_size() if distributed else 1, file=sizes)
        if not Path(FOLDER, "hurry").exists():
            time.sleep(PAUSE)
        return 0.5


def trained(name: str, engine: EngineConfig) -> Artifact:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2 * IDENTITIES, 32, 32, 3), np.uint8)
    identities, rows = np.repeat(np.arange(IDENTITIES), 2), np.arange(2 * IDENTITIES)
    pairs = PairSet(images, identities, rows, images, identities, avoid_source=True)
    folder = f"{FOLDER}/{name}"
    attacker = CleanTrained(TINY, TRAINING)
    validation = Slow(images, identities, rows, images, identities)
    fit_encoder(attacker, pairs, validation, engine, folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    return Artifact(folder, manifest, name)


if __name__ == "__main__":
    ADDRESS, FOLDER = sys.argv[1:]
    elastic = EngineConfig(
        address=ADDRESS,
        cpus_per_train_worker=2.0,  # the whole of a node
        train_workers=1,
        max_train_workers=2,
        train_failures=9,
    )
    connect(elastic)
    stages = [
        trained("elastic", elastic),
        trained("alone", replace(elastic, max_train_workers=None)),
    ]
    first, second = (load_encoder(stage, TINY).state_dict() for stage in stages)
    differences = [float((first[key] - second[key]).abs().max()) for key in first]
    curves = [learning_curve(stage) for stage in stages]
    results = {
        "max_steps": [[int(point["step"]) for point in curve] for curve in curves],
        "losses": [[point["loss"] for point in curve] for curve in curves],
        "weights": max(differences),
    }
    print("FOUND " + json.dumps(results), flush=True)
