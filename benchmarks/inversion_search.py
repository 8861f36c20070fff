"""Trials an hour that a search of inverters ends, one at a time and two at a time.

    python benchmarks/inversion_search.py [--trials 4] [--steps 20] [--people 24] [--out FOLDER]

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

from cldmray.attackers.reconstruction.base import InversionTraining
from cldmray.attackers.reconstruction.pairs import InversionPairs
from cldmray.attackers.reconstruction.unet import UNetInversion
from cldmray.engine.cluster import EngineConfig, connect
from cldmray.engine.reconstruction_training import Queried
from cldmray.engine.tuning import Candidate, Dimension, Material, SearchSettings, search
from cldmray.faces.synthetic.scene import picture
from cldmray.recognizers.sface import SFace

PHOTOS, SIZE, SIGMA = 3, 64, 3.0
SPACE = {
    "widths": Dimension(choose=[[24, 48, 64], [32, 64, 96]]),
    "learning_rate": Dimension(low=3e-4, high=3e-3, log=True),
}


def pairs(people: range) -> InversionPairs:
    """Blurred photographs of synthetic people, and the photographs."""
    photos = np.array(
        [picture(0, person, photo, SIZE) for person in people for photo in range(PHOTOS)], np.uint8
    )
    codes = np.repeat(np.arange(len(people)), PHOTOS)
    return InversionPairs(blurred(photos), codes, np.arange(len(photos)), photos, codes)


def blurred(photos: Any) -> Any:
    """The photographs, blurred."""
    return np.stack([cv2.GaussianBlur(one, (0, 0), SIGMA) for one in photos])


class Make:
    """Candidate of what was drawn.

    Args:
        steps: of every training.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, drawn: Mapping[str, Any]) -> Candidate:
        values = {key: SPACE[key].value(value) for key, value in drawn.items()}
        training = InversionTraining(
            steps=self.steps, warmup=2, validate_every=self.steps, learning_rate=values.pop(
                "learning_rate"
            ),
        )  # fmt: skip
        return Candidate(UNetInversion(**values, identity=0, perceptual=0, training=training), None)


def seconds(
    material: Material, engine: EngineConfig, steps: int, trials: int, at_once: int
) -> float:
    """Wall time of one search."""
    settings = SearchSettings(trials=trials, concurrent=at_once, grace=steps, space=SPACE)
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        search(material, Make(steps), steps, settings, engine, folder)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    engine = EngineConfig(address="local", cpus=2, object_store_mb=200, progress=False)
    connect(engine)
    known = pairs(range(given.people))
    validation = pairs(range(given.people, given.people + given.people // 2))
    samples = [str(row) for row in range(known.queries)]
    material = Material(Queried(known, samples), validation, SFace())
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
        (given.out / "inversion_search.json").write_text(json.dumps(report, indent=1) + "\n")
    ray.shutdown()


if __name__ == "__main__":
    main()
