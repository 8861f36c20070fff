"""What ``cldmray plan faces=DIR`` says of images as people keep them, in fifteen layouts.

    python benchmarks/layouts.py [--root DIR] [--identities 8] [--images 3] [--seed 0]

The images are those of synthetic people, or of the first people of ``--root``, an aligned folder
with a sub-folder a person. They are written as each layout has them, by the program that writes it
where that is in the environment: `datasets`, `webdataset`, `pyarrow`, `pandas`, and a server of
`moto` for ``s3://``. Then the command is run on it, and every image is read and decoded.

Needs the extras `dev` and `recognizer`. Writes layouts.md and layouts.json.
"""

import argparse
import csv
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cldmray.faces.base import FaceSource
from cldmray.faces.decode import InvalidImageError, decode_whole
from cldmray.faces.sources.folder import FolderFaces
from cldmray.faces.sources.survey import recognize
from cldmray.faces.synthetic import SyntheticFaces

PIXELS = 250
IN_FULL = ("folder by person", "VGGFace2", "FFHQ", "CelebA, Kaggle", "Hugging Face", "WebDataset")
"""Layouts whose plan the page shows in full."""
BUCKET = "people"


class Subject(NamedTuple):
    """A name and JPEG files."""

    name: str
    images: list[bytes]


Subjects = list[Subject]


def jpeg(content: bytes) -> bytes:
    """The image as a JPEG file."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def subjects_of(source: FaceSource, identities: int, images: int) -> Subjects:
    """Identities of a source who have enough images.

    Raises:
        SystemExit: there are fewer.
    """
    by_name: dict[str, list[str]] = {}
    for row in source.listing().sort_by("location").to_pylist():
        by_name.setdefault(row["identity"], []).append(row["location"])
    enough = {name: own[:images] for name, own in by_name.items() if len(own) >= images}
    if len(enough) < identities:
        sys.exit(f"{len(enough)} people have {images} images, {identities} are wanted")
    names = list(enough)[:identities]
    return [
        Subject(name, [jpeg(content) for content in source.read(enough[name]) if content])
        for name in names
    ]


def write(root: Path, subjects: Subjects, name: Callable[[int, int], str]) -> str:
    """The images under names made of the numbers of the person and of the image; the folder."""
    for i, subject in enumerate(subjects):
        for n, content in enumerate(subject.images):
            path = root / name(i, n)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return str(root)


def rows_of(subjects: Subjects) -> Iterator[tuple[int, int, bytes]]:
    """Number of the image among all, number of the person, content."""
    images = ((i, content) for i, subject in enumerate(subjects) for content in subject.images)
    for place, (i, content) in enumerate(images):
        yield place, i, content


def by_identity(root: Path, subjects: Subjects) -> str:
    endings = ("jpg", "JPG", "Jpeg")
    return write(root, subjects, lambda i, n: f"Zoë {i}/holiday {n}/{n}.{endings[n % 3]}")


def vggface2(root: Path, subjects: Subjects) -> str:
    return write(
        root, subjects, lambda i, n: f"data/{'test' if n else 'train'}/n{i:06}/{n:04}_01.jpg"
    )


def casia(root: Path, subjects: Subjects) -> str:
    return write(root, subjects, lambda i, n: f"CASIA-WebFace/{i:07}/{n + 1:03}.jpg")


def lfw(root: Path, subjects: Subjects) -> str:
    return write(root, subjects, lambda i, n: f"lfw/P_{i}/P_{i}_{n + 1:04}.jpg")


def flat(root: Path, subjects: Subjects) -> str:
    return write(root, subjects, lambda i, n: f"Person_{i}_{n}.jpg")


def ffhq(root: Path, subjects: Subjects) -> str:
    count = len(subjects[0].images)
    return write(root, subjects, lambda i, n: f"images1024x1024/00000/{i * count + n:05}.png")


def celeba(root: Path, subjects: Subjects, images: str, identities: str) -> str:
    count = len(subjects[0].images)
    write(root / images, subjects, lambda i, n: f"{i * count + n + 1:06}.jpg")
    path = root / identities
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{place + 1:06}.jpg {i + 1}\n" for place, i, _ in rows_of(subjects)]
    path.write_text("".join(lines), "utf-8")
    return str(root)


def celeba_drive(root: Path, subjects: Subjects) -> str:
    return celeba(root, subjects, "Img/img_align_celeba", "Anno/identity_CelebA.txt")


def celeba_kaggle(root: Path, subjects: Subjects) -> str:
    place = celeba(root, subjects, "img_align_celeba/img_align_celeba", "identity_CelebA.txt")
    rows = "".join(f"{number + 1:06}.jpg,1\n" for number, _, _ in rows_of(subjects))
    (root / "list_attr_celeba.csv").write_text(f"image_id,Male\n{rows}", "utf-8")
    return place


def celeba_torchvision(root: Path, subjects: Subjects) -> str:
    return celeba(root, subjects, "celeba/img_align_celeba", "celeba/identity_CelebA.txt")


def table_csv(root: Path, subjects: Subjects) -> str:
    count = len(subjects[0].images)
    write(root / "images", subjects, lambda i, n: f"{i * count + n}.jpg")
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "identity", "sex"])
        rows.writerows([f"images/{place}.jpg", f"p{i}", "f"] for place, i, _ in rows_of(subjects))
    return str(root)


def table_jsonl(root: Path, subjects: Subjects) -> str:
    count = len(subjects[0].images)
    write(root, subjects, lambda i, n: f"{i * count + n}.jpg")
    lines = [json.dumps({"path": f"{n}.jpg", "identity": f"p{i}"}) for n, i, _ in rows_of(subjects)]
    (root / "people.jsonl").write_text("\n".join(lines), "utf-8")
    return str(root / "people.jsonl")


def table_parquet(root: Path, subjects: Subjects) -> str:
    import pandas as pd

    count = len(subjects[0].images)
    write(root, subjects, lambda i, n: f"{i * count + n}.jpg")
    rows = [{"path": f"{place}.jpg", "identity": f"p{i}"} for place, i, _ in rows_of(subjects)]
    pd.DataFrame(rows).to_parquet(root / "people.parquet")
    return str(root / "people.parquet")


def hugging_face(root: Path, subjects: Subjects) -> str:
    import datasets

    root.mkdir(parents=True)
    names = datasets.ClassLabel(names=[f"p{i}" for i in range(len(subjects))])
    features = datasets.Features(image=datasets.Image(), label=names)
    rows = list(rows_of(subjects))
    columns = {
        "image": [{"bytes": content, "path": f"{place}.jpg"} for place, _, content in rows],
        "label": [i for _, i, _ in rows],
    }
    data = datasets.Dataset.from_dict(columns, features=features)
    data.to_parquet(str(root / "train-00000-of-00001.parquet"))
    return str(root)


def web_dataset(root: Path, subjects: Subjects) -> str:
    import webdataset

    root.mkdir(parents=True)
    with webdataset.ShardWriter(str(root / "faces-%03d.tar"), maxcount=10, verbose=0) as shards:
        for place, i, content in rows_of(subjects):
            record = {"__key__": f"{place:05}", "jpg": content, "json": {"identity": f"p{i}"}}
            shards.write(record)
    return str(root)


def s3(root: Path, subjects: Subjects) -> str:
    import boto3

    folder = Path(by_identity(root, subjects))
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"faces/{path.relative_to(folder).as_posix()}")
    return f"s3://{BUCKET}/faces"


LAYOUTS: dict[str, tuple[str, Callable[[Path, Subjects], str]]] = {
    "folder by person": (
        "this script: folders in folders, endings of any case, accents",
        by_identity,
    ),
    "VGGFace2": ("this script: `data/train/` and `data/test/`", vggface2),
    "CASIA-WebFace": ("this script: one folder around numbered people", casia),
    "names in one folder": ("this script", flat),
    "FFHQ": ("this script", ffhq),
    "LFW": ("this script, as it is downloaded", lfw),
    "CelebA, Google Drive": ("this script", celeba_drive),
    "CelebA, Kaggle": ("this script", celeba_kaggle),
    "CelebA, torchvision": ("this script", celeba_torchvision),
    "folder and CSV": ("`csv`, as an ImageFolder of `datasets` has it", table_csv),
    "folder and JSONL": ("`json`", table_jsonl),
    "folder and Parquet": ("`pandas`", table_parquet),
    "Hugging Face": ("`datasets`: image structs, class labels", hugging_face),
    "WebDataset": ("`webdataset`: several tars", web_dataset),
    "folder on S3": ("`boto3`, on a server of `moto`", s3),
}
"""By name: what writes the layout, and how."""


@contextmanager
def s3_server() -> Iterator[None]:
    """A server that speaks S3, at which the environment points."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        yield
    finally:
        server.stop()


def n_decoded(place: str) -> int:
    """Images of a folder or file that are read and decoded."""
    source = recognize(place).source
    count = 0
    for content in source.read(source.listing()["location"].to_pylist()):
        try:
            count += decode_whole(content, source.max_pixels).size > 0
        except InvalidImageError:
            continue
    return count


def plan(place: str) -> list[str]:
    """What the command says, line by line."""
    program = "import sys; from cldmray.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "plan", f"faces={place}"]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    return process.stdout.splitlines()


def measure(subjects: Subjects, folder: Path) -> list[dict[str, object]]:
    """One row a layout, whose plan has DIR in place of the folder."""
    n_images = sum(len(subject.images) for subject in subjects)
    rows: list[dict[str, object]] = []
    with s3_server():
        for number, (layout, (made_by, writer)) in enumerate(LAYOUTS.items()):
            place = writer(folder / str(number), subjects)
            lines = [line.replace(place, "DIR") for line in plan(place)]
            facts = dict(line.split(None, 1) for line in lines if " " in line)
            rows.append(
                {
                    "layout": layout,
                    "made_by": made_by,
                    "recognized": facts["layout"],
                    "n_written": n_images,
                    "n_read": n_decoded(place),
                    "n_identities": len(recognize(place).source.listing()["identity"].unique()),
                    "use": facts["use"],
                    "plan": lines,
                }
            )
            print(layout, facts["layout"], sep=": ", flush=True)
    return rows


def markdown(command: str, rows: list[dict[str, object]]) -> str:
    """The report as a page."""
    lines = [
        f"| {row['layout']} | {row['made_by']} | {row['n_read']} of {row['n_written']} | "
        f"{row['n_identities']} | `{row['use']}` |"
        for row in rows
    ]
    plans = [
        line
        for row in rows
        if row["layout"] in IN_FULL
        for line in ("", f"## {row['layout']}", "", "```text", *_lines(row), "```")
    ]
    return "\n".join(
        [
            "# Images as people keep them",
            "",
            f"Made by `{command}`. `cldmray plan faces=DIR` was run on each; its last line, the "
            "settings that read the layout, stands in the last column. One image a person (FFHQ) "
            "serves for distractors.",
            "",
            "| layout | made by | images read | people | settings |",
            "| --- | --- | --- | --- | --- |",
            *lines,
            "",
            "What the command says of six of them:",
            *plans,
            "",
        ]
    )


def _lines(row: dict[str, object]) -> list[str]:
    lines = row["plan"]
    assert isinstance(lines, list)
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--root", help="aligned images, a sub-folder a person")
    arguments.add_argument("--identities", type=int, default=8)
    arguments.add_argument("--images", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=Path("docs/results"))
    options = arguments.parse_args()
    source: FaceSource = SyntheticFaces(
        n_identities=options.identities,
        images_per_identity=options.images,
        size=PIXELS,
        seed=options.seed,
    )
    if options.root:
        source = FolderFaces(options.root, align="none")
    subjects = subjects_of(source, options.identities, options.images)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(subjects, Path(folder))
    root = " --root DIR" if options.root else ""
    command = (
        f"python benchmarks/layouts.py{root} --identities {options.identities} "
        f"--images {options.images} --seed {options.seed}"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"command": command, "layouts": rows}
    (options.out / "layouts.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    (options.out / "layouts.md").write_text(markdown(command, rows), "utf-8")


if __name__ == "__main__":
    main()
