"""A driver that searches, slowly, over random images; the test kills it and starts it again."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from torch import Tensor

from cldmray.arrays import Images
from cldmray.attackers.nn.training import Call
from cldmray.attackers.reconstruction.base import ReconstructionBatch, ReconstructionTraining
from cldmray.attackers.reconstruction.pairs import Queried, ReconstructionPairs
from cldmray.attackers.reconstruction.unet import UNetReconstruction, UNetReconstructor
from cldmray.engine.cluster import EngineConfig, connect
from cldmray.engine.stages import Stages
from cldmray.engine.tuning import (
    SearchConfig,
    SearchData,
    SearchDimension,
    TrialSpec,
    read_trials,
    search,
)
from cldmray.recognizers.base import Recognizer

TRIALS, STEPS = 3, 3


@dataclass(frozen=True, kw_only=True)
class Small(Recognizer):
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def name(self) -> str:
        return "small"

    @property
    def dimension(self) -> int:
        return 48

    @property
    def side(self) -> int:
        return 4

    def version(self) -> str:
        return "1"

    def embed_aligned(self, faces: Images) -> Any:
        return faces.reshape(len(faces), -1).astype(np.float64) - 127.5


@dataclass(frozen=True)
class Slow(UNetReconstruction):
    """Every step takes a while and leaves a line in ``log``."""

    log: str = ""
    pause: float = 0.0

    def build(self, device: str = "cpu") -> "SlowReconstructor":
        return SlowReconstructor(self, device)


class SlowReconstructor(UNetReconstructor):
    def loss(self, network: Call, batch: ReconstructionBatch) -> Tensor:
        config: Any = self.config
        with Path(config.log).open("a") as log:
            log.write(json.dumps(config.training.learning_rate) + "\n")
        time.sleep(config.pause)
        return super().loss(network, batch)


def pairs(identities: int) -> ReconstructionPairs:
    random = np.random.default_rng(identities)
    images = random.integers(0, 256, (2 * identities, 16, 16, 3), np.uint8)
    codes = np.repeat(np.arange(identities), 2)
    return ReconstructionPairs(images // 2, codes, np.arange(2 * identities), images, codes)


def make(config: Mapping[str, Any]) -> TrialSpec:
    training = ReconstructionTraining(
        max_steps=STEPS,
        batch_size=4,
        warmup_steps=1,
        validate_every=1,
        precision="fp32",
        learning_rate=config["training.learning_rate"],
    )
    slow = Slow(widths=(8, 8), identity=0, perceptual=0, training=training)
    return TrialSpec(replace(slow, log=LOG, pause=PAUSE), None)


if __name__ == "__main__":
    CACHE, LOG, PAUSE = sys.argv[1], sys.argv[2], float(os.environ.get("PAUSE", "0"))
    engine = EngineConfig(address="local", cpus=2, object_store_mb=100, progress=False)
    for _ in range(4):
        try:
            connect(engine)
            break
        except Exception as error:  # Ray gives a node 30 seconds, which a busy machine may exceed.
            print(error, flush=True)
            ray.shutdown()
    training_pairs = pairs(6)
    samples = [str(row) for row in range(training_pairs.queries)]
    material = SearchData(Queried(training_pairs, samples), pairs(3), Small())
    settings = SearchConfig(
        trials=TRIALS,
        grace_period=STEPS,
        max_concurrent_trials=int(os.environ.get("CONCURRENT", "1")),
        space={"training.learning_rate": SearchDimension(low=1e-4, high=1e-2, log=True)},
    )
    stage = Stages(CACHE).run(
        "search",
        {"trials": TRIALS},
        [],
        lambda folder: search(material, make, STEPS, settings, engine, folder),
    )
    print("TRIALS " + json.dumps(read_trials(stage).to_pylist()), flush=True)
