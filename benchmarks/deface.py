"""The audit of images that another tool anonymized: `deface`, which blurs the faces that it finds.

    python -m venv DEFACE && DEFACE/bin/pip install deface onnxruntime
    python benchmarks/deface.py --root DIR --deface DEFACE/bin/deface [--identities 40] [--images 4]

``DIR`` holds aligned images in one sub-folder a person, such as LFW's. They become frames as a
camera leaves them (benchmarks/camera_frames.py), of which ``deface`` makes anonymized ones with its
own settings: a blurred ellipse, and a mosaic. Both folders are audited as images anonymized
elsewhere, by the attackers that need no training. Needs the extra `recognizer`. Writes deface.md
and deface.json.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from camera_frames import SIZE, camera_frame, subjects, whole_images

import cldmray
from cldmray.anonymizers.base import Anonymizer
from cldmray.anonymizers.baselines import NoOp
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.faces.base import FaceSource
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.lfw import LfwFaces

ENDING = "_anonymized"
"""What deface adds to a file's name; it writes beside the originals."""
WAYS = {"deface_blur": ["--replacewith", "blur"], "deface_mosaic": ["--replacewith", "mosaic"]}
"""Options of deface, by the anonymizer's name in tables."""
ATTACKERS = ["pretrained", "condition_match"]


def write_frames(source: FaceSource, pairs: list[tuple[str, str]], folder: Path, seed: int) -> None:
    """A frame of each aligned image, in one sub-folder a person."""
    rng = np.random.default_rng(seed)
    images = whole_images(source, [location for _, location in pairs])
    for number, ((identity, _), image) in enumerate(zip(pairs, images, strict=True)):
        path = folder / identity / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(camera_frame(image, rng).content)


def anonymize(program: str, frames: Path, options: list[str], folder: Path) -> None:
    """Run deface on all frames, and move what it writes into a folder of its own."""
    files = sorted(str(path) for path in frames.rglob("*.*"))
    subprocess.run([program, *options, *files], check=True, capture_output=True)
    for made in frames.rglob(f"*{ENDING}.*"):
        place = folder / made.relative_to(frames)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, place)


def audit(frames: Path, anonymized: dict[str, Path], folder: Path, images: int) -> dict[str, Any]:
    """What attackers reach: rank-1 by anonymizer and attacker, and the faces left untouched."""
    faces = FolderFaces(str(frames), size=SIZE)
    identities = len(list(frames.iterdir()))
    anonymizers: list[Anonymizer] = [NoOp()]
    anonymizers += [Precomputed(str(root), faces, label=name) for name, root in anonymized.items()]
    result = cldmray.audit(
        faces,
        anonymizers,
        ATTACKERS,
        output=str(folder / "out"),
        cache_dir=str(folder / "cache"),
        splits={"n_evaluation_identities": identities, "min_images": images},
        audit={"utility": [], "attribution": False},
    )
    kept = main_rates(result.table)
    columns = ["anonymizer", "attacker", "value", "ci_low", "ci_high", "chance", "n_probes"]
    return {
        "identities": identities,
        "rates": kept[columns].to_dict("records"),
        "untouched": [
            {"anonymizer": each.anonymizer, "n_untouched": each.n_untouched, "n": each.n_images}
            for each in result.record.untouched
        ],
        "notes": [note for note in result.record.notes if note.startswith(tuple(anonymized))],
    }


def main_rates(table: Any) -> Any:
    """Rows of an audit's table: rank-1 of all images, Full-Ref, source excluded."""
    return table[
        (table.measure == "rank_1")
        & (table.protocol == "full_ref")
        & (table.level == "image")
        & (table.subset == "all")
        & (table.gallery == "source_excluded")
    ]


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    rates = [
        f"| {row['anonymizer']} | {row['attacker']} | {row['value']:.1%} ({row['ci_low']:.1%} to "
        f"{row['ci_high']:.1%}) | {row['chance']:.1%} | {row['n_probes']} |"
        for row in report["rates"]
    ]
    untouched = [
        f"| {row['anonymizer']} | {row['n_untouched']} of {row['n']} |"
        for row in report["untouched"]
    ]
    return "\n".join(
        [
            "# Images that deface anonymized",
            "",
            f"Made by `{report['command']}`: {report['identities']} people with "
            f"{report['images_each']} frames each, the source excluded, {report['version']}.",
            "",
            "| anonymizer | attacker | rank-1 (95 %) | chance | images |",
            "| --- | --- | --- | --- | --- |",
            *rates,
            "",
            "| anonymizer | faces left as they were |",
            "| --- | --- |",
            *untouched,
            "",
            *[f"- {note}" for note in report["notes"]],
            "",
        ]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--root", required=True, help="aligned images, a sub-folder a person")
    arguments.add_argument("--layout", choices=["lfw", "folder"], default="lfw")
    arguments.add_argument("--deface", default="deface", help="the program")
    arguments.add_argument("--identities", type=int, default=40)
    arguments.add_argument("--images", type=int, default=4)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=Path("docs/results"))
    options = arguments.parse_args()
    source: FaceSource = LfwFaces(options.root)
    if options.layout == "folder":
        source = FolderFaces(options.root, align="none")
    version = subprocess.run(
        [options.deface, "--version"], check=True, capture_output=True, text=True
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = subjects(source, options.identities, options.images)
        write_frames(source, pairs, folder / "frames", options.seed)
        for label, way in WAYS.items():
            anonymize(options.deface, folder / "frames", way, folder / label)
        measured = audit(
            folder / "frames", {label: folder / label for label in WAYS}, folder, options.images
        )
    command = (
        f"python benchmarks/deface.py --root DIR --layout {options.layout} --deface PROGRAM "
        f"--identities {options.identities} --images {options.images} --seed {options.seed}"
    )
    report = {
        "command": command,
        "version": f"deface {version.stdout.split()[-1]}",
        "images_each": options.images,
        "seed": options.seed,
        **measured,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "deface.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    text = markdown(report)
    (options.out / "deface.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
