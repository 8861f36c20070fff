"""How face-like and how identifiable the synthetic people are, and how fast they are rendered.

    python benchmarks/synthetic_faces.py [--people 100] [--seed 0]

Needs the extra `recognizer`. Every person has five reference images and one probe, all clear;
rank 1 is the share of probes whose most similar reference is of the same person.

- *YuNet*: the share of 256-pixel images in which the detector finds a face.
- *SFace*: the recognizer on faces that are turned upright by YuNet's landmarks. Images of 64
  pixels are enlarged to 256 for the detector only; what SFace reads is cut out of the 64 pixels.
- *raw pixels*: the nearest reference by Euclidean distance between whole images of 64 pixels.
- *renders*: images of 64 pixels with their PNG encoding, one thread, six of each person in turn
  and one of each person, beside encoding and decoding alone.

Intervals of shares are Wilson's at 95 %; those of rates come from five runs, Student's t.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.detection.yunet import YuNet
from cldmray.faces.records import decode_image, encode_image
from cldmray.faces.synthetic.scene import render_image
from cldmray.metrics.confidence import wilson
from cldmray.recognizers.sface import SFace

REFERENCES, RUNS, T = 5, 5, 2.776
TARGET = 60.0
"""Images per second that the project wants from one core."""


def render_images(seed: int, identities: int, size: int) -> Images:
    """Images (people, 1 + REFERENCES, size, size, 3); the first of each person is the probe."""
    taken = [
        [render_image(seed, identity, index, size) for index in range(1 + REFERENCES)]
        for identity in range(identities)
    ]
    return np.asarray(taken, np.uint8)


def rank_1(features: npt.NDArray[np.float32]) -> int:
    """Probes that find their person; features (people, 1 + REFERENCES, d), nearest by distance."""
    identities = len(features)
    probes, references = features[:, 0], features[:, 1:].reshape(identities * REFERENCES, -1)
    squares = (references.astype(np.float64) ** 2).sum(1)
    nearest = (squares[None] - 2 * probes @ references.T).argmin(1)
    return int((nearest // REFERENCES == np.arange(identities)).sum())


def share(hits: int, of: int) -> str:
    """A share in per cent with its Wilson interval."""
    rate, low, high = (100 * bound for bound in wilson(hits, of))
    return f"{rate:5.1f} % [{low:.1f}, {high:.1f}]"


def rates(step: Callable[[int], object], count: int) -> list[float]:
    """Calls per second in each of several runs; the argument numbers the calls through."""
    rates_measured = []
    for run in range(RUNS):
        started = time.perf_counter()
        for number in range(run * count, (run + 1) * count):
            step(number)
        rates_measured.append(count / (time.perf_counter() - started))
    return rates_measured


def rate(rates_measured: list[float]) -> str:
    """Mean rate with its interval."""
    half = T * statistics.stdev(rates_measured) / np.sqrt(len(rates_measured))
    return (
        f"{statistics.mean(rates_measured):6.1f} /s [{statistics.mean(rates_measured) - half:.1f}, "
        + (f"{statistics.mean(rates_measured) + half:.1f}]")
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--identities", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    identities, seed = options.identities, options.seed
    cv2.setNumThreads(1)
    other = seed + 1
    grouped = rates(lambda n: encode_image(render_image(other, n // 6, n % 6)), 60)
    single = rates(lambda n: encode_image(render_image(other, 1000 + n, 0)), 40)
    example = render_image(other, 0, 0)
    png = rates(lambda _: decode_image(encode_image(example)), 300)
    small, large = render_images(seed, identities, 64), render_images(seed, identities, 256)
    recognizer = SFace(align="landmarks")
    rows = []
    for name, taken in (("256 pixels", large), ("64 pixels", small)):
        flat = taken.reshape(-1, *taken.shape[2:])
        detected = sum(face is not None for face in YuNet().detect(flat))
        rows.append((f"YuNet finds a face, {name}", share(detected, len(flat))))
    for name, taken in (("64 pixels", small), ("256 pixels", large)):
        embedded = recognizer.embed(taken.reshape(-1, *taken.shape[2:]))
        hits = rank_1(embedded.reshape(identities, 1 + REFERENCES, -1))
        rows.append((f"SFace, rank 1, {name}", share(hits, identities)))
    hits = rank_1(small.reshape(identities, 1 + REFERENCES, -1).astype(np.float32))
    rows.append(("raw pixels, rank 1, 64 pixels", share(hits, identities)))
    rows.append(("chance", f"{100 / identities:5.1f} %"))
    rows.append(("renders, six images of a person", rate(grouped)))
    rows.append(("renders, one image of a person", rate(single)))
    rows.append(("PNG encoding and decoding alone", rate(png)))
    ratio = statistics.mean(grouped) / TARGET
    rows.append(("six images of a person, against 60 /s", f"{ratio:6.2f}"))
    slower = statistics.mean(png) / statistics.mean(grouped)
    rows.append(("PNG alone against six images of a person", f"{slower:6.1f}"))
    for label, text in rows:
        print(f"{label:42}{text}")


if __name__ == "__main__":
    main()
