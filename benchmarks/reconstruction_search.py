"""Trials an hour that a search of reconstruction models ends, one at a time and two at a time.

    python benchmarks/reconstruction_search.py [--trials 4] [--steps 20] [--identities 24]
        [--out FOLDER]

Both searches run one after the other in the same Ray of two logical CPUs, after one trial that
warms it up: over the same blurred synthetic people, with the same seed, one torch thread a trial.
None is stopped early. What is timed is the whole search, start of its processes and validation
included; the ratio says what a second trial at a time is worth on this machine, which other work on
it lowers.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import ray

from cldmray.attackers.reconstruction.base import ReconstructionTraining
from cldmray.attackers.reconstruction.pairs import Queried, ReconstructionPairs
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.engine.cluster import EngineConfig, connect
from cldmray.engine.tuning import SearchConfig, SearchData, SearchDimension, TrialSpec, search
from cldmray.faces.synthetic.scene import render_image
from cldmray.recognizers.sface import SFace

IMAGES, SIZE, SIGMA = 3, 64, 3.0
SPACE = {
    "widths": SearchDimension(choices=[[24, 48, 64], [32, 64, 96]]),
    "learning_rate": SearchDimension(low=3e-4, high=3e-3, log=True),
}


def pairs(identities: range) -> ReconstructionPairs:
    """Blurred images of synthetic people, and the images."""
    images = np.array(
        [
            render_image(0, identity, original, SIZE)
            for identity in identities
            for original in range(IMAGES)
        ],
        np.uint8,
    )
    codes = np.repeat(np.arange(len(identities)), IMAGES)
    return ReconstructionPairs(blurred(images), codes, np.arange(len(images)), images, codes)


def blurred(images: Any) -> Any:
    """The images, blurred."""
    return np.stack([cv2.GaussianBlur(image, (0, 0), SIGMA) for image in images])


class Make:
    """TrialSpec of what was drawn.

    Args:
        steps: of every training.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, drawn: Mapping[str, Any]) -> TrialSpec:
        values = {key: SPACE[key].value(value) for key, value in drawn.items()}
        training = ReconstructionTraining(
            max_steps=self.steps,
            warmup_steps=2,
            validate_every=self.steps,
            learning_rate=values.pop("learning_rate"),
        )  # fmt: skip
        return TrialSpec(
            UNetReconstruction(**values, identity=0, perceptual=0, training=training), None
        )


def seconds(
    material: SearchData, engine: EngineConfig, steps: int, trials: int, at_once: int
) -> float:
    """Wall time of one search."""
    settings = SearchConfig(
        trials=trials, max_concurrent_trials=at_once, grace_period=steps, space=SPACE
    )
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        search(material, Make(steps), steps, settings, engine, folder)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--identities", type=int, default=24)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    engine = EngineConfig(address="local", cpus=2, object_store_mb=200, progress=False)
    connect(engine)
    training_pairs = pairs(range(given.identities))
    validation = pairs(range(given.identities, given.identities + given.identities // 2))
    samples = [str(row) for row in range(training_pairs.queries)]
    material = SearchData(Queried(training_pairs, samples), validation, SFace())
    seconds(material, engine, given.steps, 1, 1)
    report: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "trials": given.trials,
        "steps": given.steps,
    }
    for at_once in (1, 2):
        took = seconds(material, engine, given.steps, given.trials, at_once)
        rate = 3600 * given.trials / took
        report[f"trials_per_hour_{at_once}"] = rate
        print(f"{at_once} at a time: {took:6.1f} s, {rate:6.0f} trials an hour", flush=True)
    report["ratio"] = report["trials_per_hour_2"] / report["trials_per_hour_1"]
    print(f"two at a time: {report['ratio']:.2f} times as many")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "reconstruction_search.json").write_text(json.dumps(report, indent=1) + "\n")
    ray.shutdown()


if __name__ == "__main__":
    main()
