"""Which copies of an image the search for near-duplicates finds, and what else it takes for one.

    python benchmarks/near_duplicates.py [--identities 200] [--lfw DIR] [--out DIR]

- *Copies*: synthetic images are recompressed, resized, made brighter or darker, blurred, made
  noisy, mirrored and shifted. How many copies are found beside their original, and how alike and
  how far apart the worst of them are.
- *Strangers*: two images of each synthetic person. How many pairs of different images are found,
  and how alike the most similar ones are.
- *LFW*: pairs found among all of its images, as the audit crops them. Whether a pair is the same
  frame is told by what the search never saw, the surroundings: the correlation of the fine
  detail of both whole frames outside of the crop. People stay unnamed.

Prints a summary and writes ``near_duplicates.json``.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from cldmray.arrays import Images
from cldmray.faces.decode import decode
from cldmray.faces.near_duplicates import MIN_LIKENESS, fingerprint, likeness
from cldmray.faces.records import decode_image
from cldmray.faces.sources.lfw import LfwFaces
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.gallery.near_duplicates import near_duplicates

IMAGES_PER_IDENTITY = 2
MOST_PAIRS = 1_000_000
"""Pairs of different images whose likeness is computed."""
SAME_FRAME = 0.8
"""Correlation of the surroundings from which on two frames are the same."""
BATCH = 500
FRAME = 250
"""Pixels of an image of LFW a side."""


def recompressed(image: Images) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer))


def resized(image: Images) -> Images:
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC))


def noisy(image: Images) -> Images:
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Images], Images]] = {
    "JPEG, quality 30": recompressed,
    "half the size": resized,
    "brightness x 1.2": lambda image: np.clip(1.2 * image, 0, 255).astype(np.uint8),
    "gamma 1.5": lambda image: (255 * (image / 255) ** 1.5).astype(np.uint8),
    "noise of 8 grey levels": noisy,
    "blur of 1 pixel": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0)),
    "mirrored": lambda image: image[:, ::-1].copy(),
    "shifted by 1 pixel": lambda image: np.roll(image, 1, axis=1),
}
"""How images are copied."""


def synthetic_images(n_identities: int) -> Images:
    """Two images of each person, (N, 64, 64, 3)."""
    source = SyntheticFaces(n_identities, IMAGES_PER_IDENTITY, size=64)
    places = source.listing()["location"].to_pylist()
    return np.stack([decode_image(content) for content in source.read(places) if content])


def copy_rows(images: Images) -> list[dict[str, Any]]:
    """Of each kind of copy: how many are found, least likeness and most differing bits."""
    rows = []
    originals = fingerprint(images)
    for name, change in CHANGES.items():
        copies = np.stack([change(image) for image in images])
        both = fingerprint(np.concatenate([images, copies]))
        pairs = near_duplicates(both)
        n_found = sum(pair.other - pair.row == len(images) for pair in pairs)
        # A mirrored copy is compared as the search compares it: in the mirror.
        marks = fingerprint(copies[:, :, ::-1] if name == "mirrored" else copies)
        alike = likeness(originals.thumbnails, marks.thumbnails)
        bits = np.bitwise_count(originals.hashes ^ marks.hashes).sum(axis=1)
        rows.append(
            {
                "copy": name,
                "recall": n_found / len(images),
                "least_likeness": float(alike.min()),
                "most_bits": int(bits.max()),
            }
        )
    return rows


def stranger_rows(images: Images) -> dict[str, Any]:
    """Pairs of different images that are found, and the likeness of the most similar ones."""
    marks = fingerprint(images)
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(len(images), 1)
    if len(first) > MOST_PAIRS:
        drawn = rng.choice(len(first), MOST_PAIRS, replace=False)
        first, second = first[drawn], second[drawn]
    highest = max(
        float(likeness(marks.thumbnails[first[part]], marks.thumbnails[second[part]]).max())
        for part in np.array_split(np.arange(len(first)), max(1, len(first) // 50_000))
    )
    return {
        "n_images": len(images),
        "n_pairs": len(first),
        "n_duplicates": len(near_duplicates(marks)),
        "highest_likeness": highest,
    }


def lfw_rows(root: str) -> dict[str, Any]:
    """The pairs found in LFW, and which of them are the same frame."""
    source = LfwFaces(root)
    listing = source.listing()
    locations = listing["location"].to_pylist()
    identities = listing["identity"].to_pylist()
    marks = [
        fingerprint(
            np.stack(
                [
                    decode(content, source.crop, source.size)
                    for content in source.read(part.tolist())
                ]
            )
        )
        for part in np.array_split(np.array(locations), max(1, len(locations) // BATCH))
    ]
    merged = marks[0]._make(np.concatenate(parts) for parts in zip(*marks, strict=True))
    pairs = []
    for pair in near_duplicates(merged):
        frames = [frame(source, locations[row]) for row in (pair.row, pair.other)]
        if pair.is_mirrored:
            frames[1] = frames[1][:, ::-1]
        outside = surroundings(frames[0], frames[1], source)
        pairs.append(
            {
                "samples": [listing["sample_id"][row].as_py() for row in (pair.row, pair.other)],
                "likeness": pair.likeness,
                "is_mirrored": pair.is_mirrored,
                "same_person": identities[pair.row] == identities[pair.other],
                "surroundings": outside,
                "same_frame": outside >= SAME_FRAME,
            }
        )
    return {"n_images": len(locations), "pairs": pairs}


def crops(source: LfwFaces, locations: Sequence[str]) -> Images:
    """Images as the audit crops them, (N, 64, 64, 3)."""
    contents = source.read(locations)
    return np.stack([decode(content, source.crop, source.size) for content in contents])


def frame(source: LfwFaces, location: str) -> Images:
    """A whole image, (250, 250, 3)."""
    (content,) = source.read([location])
    return decode(content, None, FRAME)


def surroundings(first: Images, second: Images, source: LfwFaces) -> float:
    """Correlation of the fine detail of two whole frames, outside of the crop, in -1..1."""
    details = []
    for image in (first, second):
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float64)
        details.append(grey - cv2.GaussianBlur(grey, (0, 0), 8.0))
    left, top, right, bottom = source.crop or [0, 0, 0, 0]
    outside = np.ones(details[0].shape, bool)
    outside[top:bottom, left:right] = False
    return float(np.corrcoef(details[0][outside], details[1][outside])[0, 1])


def summary(report: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"Likeness of near-duplicates: at least {MIN_LIKENESS:g}."]
    lines += [
        f"{row['copy']}: {100 * row['recall']:.1f} % of the copies are found; least likeness "
        f"{row['least_likeness']:.2f}, at most {row['most_bits']} bits differ"
        for row in report["copies"]
    ]
    strangers = report["strangers"]
    lines.append(
        f"different images: {strangers['n_duplicates']} pairs found among {strangers['n_images']}; "
        f"highest likeness {strangers['highest_likeness']:.2f} of {strangers['n_pairs']:,} pairs"
    )
    if lfw := report.get("lfw"):
        pairs = lfw["pairs"]
        same = [pair for pair in pairs if pair["same_frame"]]
        lines.append(
            f"LFW: {len(pairs)} pairs among {lfw['n_images']:,} images; {len(same)} are the same "
            f"frame, {sum(not pair['same_person'] for pair in same)} of them under two names"
        )
        lines += [
            f"  {' '.join(pair['samples'])}: likeness {pair['likeness']:.2f}, surroundings "
            f"{pair['surroundings']:.2f}{', two names' if not pair['same_person'] else ''}"
            for pair in pairs
        ]
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--identities", type=int, default=200, help="synthetic people")
    arguments.add_argument("--lfw", help="folder of LFW; without it LFW is left out")
    arguments.add_argument("--out", type=Path, default=Path("near_duplicates"))
    options = arguments.parse_args()
    images = synthetic_images(options.identities)
    report: dict[str, Any] = {"copies": copy_rows(images), "strangers": stranger_rows(images)}
    if options.lfw:
        report["lfw"] = lfw_rows(options.lfw)
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1) + "\n"
    (options.out / "near_duplicates.json").write_text(text, "utf-8")
    print(summary(report))


if __name__ == "__main__":
    main()
