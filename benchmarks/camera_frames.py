"""Whether images as a camera leaves them give the audit that aligned images give.

    python benchmarks/camera_frames.py --root DIR [--identities 100] [--images 5] [--seed 0]

``DIR`` holds aligned images in one sub-folder a person, such as LFW's. Each image becomes a frame
of 1600x1200 or 1200x1600 pixels: scaled, turned in the image's plane, placed anywhere on a drawn
background, and written as a JPEG file whose EXIF orientation is one of four. Some frames lie on
their side or upside down without saying so. Every frame shows one face.

Measured is rank-1 of the public recognizer, with the probe itself left out of the references, on

- the aligned images' own crop, as the source of ``--layout`` takes it,
- the largest central square of each frame, which is what was taken before faces were searched for,
- the frames' faces, found and brought into place by their landmarks.

An image without a result counts as not identified. Speed is that of the search and the alignment
of decoded images whose longest side is 640 pixels, one thread, beside decoding them, in CPU time.
Needs the extra `recognizer`. Writes camera_frames.md and camera_frames.json.
"""

import argparse
import io
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from cldmray.arrays import Images
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import InvalidImageError, decode_whole
from cldmray.faces.records import encode_image
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.lfw import LfwFaces
from cldmray.metrics.rates import rate_interval
from cldmray.recognizers.sface import landmark_sface

SIZE = 128
LONG, SHORT = 1600, 1200
SCALES = (0.35, 3.0)
"""Of the aligned image in the frame; faces of LFW are some 40 to 330 pixels wide then."""
TURN = 30.0
"""Degrees in the image's plane, at most."""
LYING = 0.1
"""Share of frames that lie on their side or upside down without saying so."""
QUALITY = 92
ORIENTATIONS = {1: 0, 3: 2, 6: 1, 8: 3}
"""EXIF orientation: quarter turns against the clock of what is stored."""
EXIF_ORIENTATION = 0x0112
GOAL_SHARE, GOAL_SPEED = 0.95, 25.0
TIMED = 64


class Frame(NamedTuple):
    """A frame: the JPEG file, and whether it lies on its side or upside down."""

    content: bytes
    lies: bool


def background(rng: np.random.Generator, height: int, width: int) -> Images:
    """Smooth colours with rectangles and discs, in which there is no face."""
    coarse = rng.integers(40, 216, (4, 5, 3), np.uint8)
    canvas = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    for _ in range(12):
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        x, y = int(rng.integers(width)), int(rng.integers(height))
        reach = int(rng.integers(20, 300))
        if rng.random() < 0.5:
            cv2.rectangle(canvas, (x, y), (x + reach, y + reach // 2), colour, -1)
        else:
            cv2.circle(canvas, (x, y), reach // 2, colour, -1)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 2), np.uint8)


def camera_frame(image: Images, rng: np.random.Generator) -> Frame:
    """A frame that shows one aligned image somewhere.

    Args:
        image: RGB, uint8, shape (side, side, 3).
    """
    height, width = (SHORT, LONG) if rng.random() < 0.7 else (LONG, SHORT)
    side = image.shape[0]
    low, high = (math.log(scale * 250 / side) for scale in SCALES)
    scale = math.exp(rng.uniform(low, high))
    reach = scale * side * 0.75
    centre = [
        rng.uniform(min(reach, edge / 2), max(edge - reach, edge / 2)) for edge in (width, height)
    ]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-TURN, TURN), scale)
    matrix[:, 2] += np.array(centre) - side / 2
    down, across = np.mgrid[:side, :side]
    inside = np.hypot(across - side / 2, down - side / 2) / (side / 2)
    weight = np.clip((1.0 - inside) / 0.15, 0, 1).astype(np.float32)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    placed = cv2.warpAffine(image, matrix, (width, height), flags=way).astype(np.float32)
    mask = cv2.warpAffine(weight, matrix, (width, height))[..., None]
    whole = placed * mask + background(rng, height, width) * (1 - mask)
    scene = np.clip(np.rint(whole), 0, 255).astype(np.uint8)
    lies = bool(rng.random() < LYING)
    if lies:
        scene = np.rot90(scene, int(rng.integers(1, 4)))
    orientation = int(rng.choice(list(ORIENTATIONS)))
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(scene, ORIENTATIONS[orientation])))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, format="JPEG", quality=QUALITY, exif=exif)
    return Frame(buffer.getvalue(), lies)


def subjects(source: FaceSource, identities: int, images: int) -> list[tuple[str, str]]:
    """Identity and location of the first images of the first people who have enough of them."""
    listing = source.listing().sort_by([("identity", "ascending"), ("location", "ascending")])
    names = listing["identity"].to_pylist()
    enough = [name for name, count in Counter(names).items() if count >= images][:identities]
    left = dict.fromkeys(enough, images)
    pairs = []
    for identity, location in zip(names, listing["location"].to_pylist(), strict=True):
        if left.get(identity, 0):
            left[identity] -= 1
            pairs.append((identity, location))
    return pairs


def whole_images(source: FaceSource, locations: list[str]) -> Iterator[Images]:
    """The aligned images, uncropped."""
    for content in source.read(locations):
        yield decode_whole(content)


class Read(NamedTuple):
    """What a source made of its files.

    Attributes:
        images: those of the files that could be read, shape (N, size, size, 3).
        rows: their places among the files.
        reasons: why others could not be read, and how many.
        n_turned: images that were turned by a quarter turn or more.
    """

    images: Images
    rows: list[int]
    reasons: dict[str, int]
    n_turned: int


def read(source: FaceSource, locations: list[str]) -> Read:
    """All files of a source."""
    read_face = source.open()
    images, rows, reasons, n_turned = [], [], Counter[str](), 0
    for row, location in enumerate(locations):
        try:
            face = read_face(source.read([location])[0])
        except InvalidImageError as error:
            reasons[error.reason] += 1
            continue
        images.append(face.image)
        rows.append(row)
        n_turned += bool(face.search and face.search.quarter_turns)
    return Read(np.stack(images), rows, dict(reasons), n_turned)


def identified(
    vectors: npt.NDArray[np.float32], identities: npt.NDArray[np.str_]
) -> npt.NDArray[np.bool_]:
    """Whether the most similar other image shows the same person; vectors (N, d), result (N,)."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.asarray(identities[scores.argmax(1)] == identities)


def rank_1(source: FaceSource, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Rank-1 of the public recognizer on a source, over all of its files."""
    done = read(source, [location for _, location in pairs])
    vectors = landmark_sface().embed(done.images)
    names = np.array([name for name, _ in pairs])
    hits = np.zeros(len(pairs))
    hits[done.rows] = identified(vectors, names[done.rows])
    value, low, high = rate_interval(hits, names)
    return {
        "identified": int(hits.sum()), "images": len(pairs), "rank_1": value, "low": low,
        "high": high, "rejected": done.reasons, "turned": done.n_turned,
    }  # fmt: skip


def speed(source: FolderFaces, locations: list[str]) -> dict[str, float]:
    """Images a second of one core, of 640 pixels: search and alignment; decoding alone."""
    cv2.setNumThreads(1)
    small = []
    for content in source.read(locations[:TIMED]):
        whole = decode_whole(content)
        scale = 640 / max(whole.shape[:2])
        size = (round(whole.shape[1] * scale), round(whole.shape[0] * scale))
        small.append(np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8))
    encoded = [encode_image(image) for image in small]
    read_face = source.open()
    seconds = {"decode": 0.0, "decode, search and align": 0.0}
    for _ in range(3):
        for name, step in (("decode", decode_whole), ("decode, search and align", read_face)):
            started = time.process_time()
            for content in encoded:
                try:
                    step(content)
                except InvalidImageError:
                    continue
            seconds[name] += time.process_time() - started
    count = 3 * len(encoded)
    aligned = seconds["decode, search and align"] - seconds["decode"]
    return {"decoded_per_second": count / seconds["decode"], "aligned_per_second": count / aligned}


def measure(root: str, layout: str, identities: int, images: int, seed: int) -> dict[str, Any]:
    """The three rates and the speed."""
    own: FaceSource = LfwFaces(root, size=SIZE)
    if layout == "folder":
        own = FolderFaces(root, size=SIZE, align="none")
    pairs = subjects(own, identities, images)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        lying = 0
        placed = []
        aligned = whole_images(own, [location for _, location in pairs])
        for number, ((identity, _), image) in enumerate(zip(pairs, aligned, strict=True)):
            frame = camera_frame(image, rng)
            lying += frame.lies
            path = Path(folder) / identity / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(frame.content)
            placed.append((identity, f"{identity}/{number}.jpg"))
        searched = FolderFaces(folder, size=SIZE, align="landmarks")
        rates = {
            "own crops of the aligned images": rank_1(own, pairs),
            "frames, largest central square": rank_1(
                FolderFaces(folder, size=SIZE, align="none"), placed
            ),
            "frames, faces found and aligned": rank_1(searched, placed),
        }
        timed = speed(searched, [location for _, location in placed])
    best, reached = (
        rates[name]["rank_1"]
        for name in ("own crops of the aligned images", "frames, faces found and aligned")
    )
    return {
        "layout": layout, "identities": identities, "images_each": images, "seed": seed,
        "lying": lying, "rates": rates, "share": reached / best if best else 0.0, "speed": timed,
    }  # fmt: skip


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    rows = [
        f"| {name} | {rate['rank_1']:.1%} ({rate['low']:.1%} to {rate['high']:.1%}) | "
        f"{rate['identified']} of {rate['images']} | {sum(rate['rejected'].values())} |"
        for name, rate in report["rates"].items()
    ]
    timed = report["speed"]
    return "\n".join(
        [
            "# Images as a camera leaves them",
            "",
            f"Made by `{report['command']}`: {report['identities']} people with "
            f"{report['images_each']} images each, {LONG}x{SHORT} pixels, faces of any place, "
            f"turned by up to {TURN:g} degrees, all four EXIF orientations; {report['lying']} "
            "frames lie on their side or upside down without saying so. Bounds are over people.",
            "",
            "| images | rank-1 of the public recognizer (95 %) | identified | rejected |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "| goal | wanted | reached |",
            "| --- | --- | --- |",
            f"| rank-1 on frames, as a share of that on own crops | at least {GOAL_SHARE:g} | "
            f"{report['share']:.3f} |",
            f"| faces found and aligned a second and core, 640 pixels | at least {GOAL_SPEED:g} | "
            f"{timed['aligned_per_second']:.0f} ({timed['decoded_per_second']:.0f} are decoded) |",
            "",
        ]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--root", required=True, help="aligned images, a sub-folder a person")
    arguments.add_argument("--layout", choices=["lfw", "folder"], default="lfw")
    arguments.add_argument("--identities", type=int, default=100)
    arguments.add_argument("--images", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=Path("docs/results"))
    options = arguments.parse_args()
    report = measure(options.root, options.layout, options.identities, options.images, options.seed)
    command = (
        f"python benchmarks/camera_frames.py --root DIR --layout {options.layout} "
        f"--identities {options.identities} --images {options.images} --seed {options.seed}"
    )
    report = {"command": command, **report}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "camera_frames.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    text = markdown(report)
    (options.out / "camera_frames.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
