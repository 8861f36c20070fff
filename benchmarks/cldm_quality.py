"""Whether a CLDM folder is a fair stand-in: measured on people whom it never saw.

    python benchmarks/cldm_quality.py [--model embedded] [--peer DIR] [--lfw DIR] [--images 500]
        [--scheduler DDIMScheduler] [--steps 8]

Two sources: LFW's evaluation and attacker people by the default splits, where ``--lfw`` is given,
and synthetic people of a seed of their own, both of the size that the model draws, and then both
together, which the images without a condition should look like. Prints one table
for each model, with 95 % intervals over identities, and writes ``quality.json``, one grid of images
for each source and a sheet of 64 outputs for each condition. A peer is measured on the same images,
shrunk and enlarged again where it draws smaller ones. Sampled is as ``anonymizers.cldm_none`` says,
unless ``--scheduler`` and ``--steps`` say otherwise. Sheets of LFW show real people: keep them out
of the repository. Needs the extra ``recognizer``.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from quality.drawing import Gallery, configured, model_size
from quality.measures import Row, all_rows, table
from quality.subjects import Subjects, lfw_subjects, mixture, synthetic_subjects

from cldmray.anonymizers.diffusion import Diffusion
from cldmray.arrays import Images
from cldmray.recognizers.sface import SFace

GRID_ROWS = 12
GRID_SIDE = 128
HEADER = 16
SHEET_SIDE = 8
"""Images of a contact sheet in a row, and rows."""


def grid(subjects: Subjects, gallery: Gallery) -> Image.Image:
    """Images, maps and outputs side by side."""
    columns = {"original": subjects.given}
    for name, maps in gallery.maps.items():
        if name != "soft_edge":
            columns[f"{name} map"] = maps
        columns[f"{name} output"] = gallery.images[name]
    columns |= {"none output": gallery.images["none"], "VAE": gallery.images["round_trip"]}
    rows = min(GRID_ROWS, len(subjects.given))
    sheet = Image.new("RGB", (GRID_SIDE * len(columns), HEADER + GRID_SIDE * rows), "white")
    pen = ImageDraw.Draw(sheet)
    for across, (title, images) in enumerate(columns.items()):
        pen.text((GRID_SIDE * across + 4, 2), title, fill="black")
        for down in range(rows):
            tile = Image.fromarray(np.ascontiguousarray(images[down]))
            tile = tile.resize((GRID_SIDE, GRID_SIDE), Image.Resampling.NEAREST)
            sheet.paste(tile, (GRID_SIDE * across, HEADER + GRID_SIDE * down))
    return sheet


def sheet(images: Images) -> Image.Image:
    """The first 64 images, eight in a row."""
    side = images.shape[1]
    whole = np.zeros((SHEET_SIDE * side, SHEET_SIDE * side, 3), np.uint8)
    for number, image in enumerate(images[: SHEET_SIDE**2]):
        down, across = (side * place for place in divmod(number, SHEET_SIDE))
        whole[down : down + side, across : across + side] = image
    return Image.fromarray(whole)


def record(row: Row) -> dict[str, Any]:
    """A row as JSON data."""
    return {"measure": row.measure, **row.interval._asdict(), "goal": row.goal, "met": row.met}


def measure(
    models: Sequence[Diffusion], subjects: Subjects, sface: SFace, out: Path
) -> dict[str, Any]:
    """Measure models on one source: print tables, write sheets, return the results."""
    identities = len(np.unique(subjects.identities))
    results: dict[str, Any] = {"images": len(subjects.given), "identities": identities}
    galleries = [Gallery(model, subjects) for model in models]
    peers = [*galleries[1:], None]
    for model, gallery, peer in zip(models, galleries, peers, strict=True):
        rows = all_rows(subjects, gallery, sface, peer)
        print(f"\n{model.model}, {subjects.name}: {len(subjects.given)} images of ", end="")
        print(f"{identities} people\n{table(rows)}", flush=True)
        name = f"{subjects.name}-{Path(model.model).name}"
        grid(subjects, gallery).save(out / f"{name}.png")
        for drawn in (*gallery.maps, "none", "round_trip"):
            sheet(gallery.images[drawn]).save(out / f"{name}-{drawn}.png")
        results[model.model] = [record(row) for row in rows]
    sheet(subjects.given).save(out / f"{subjects.name}-originals.png")
    return results


def main() -> None:
    """Parse, measure each source, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="embedded, or a folder of diffusers")
    parser.add_argument("--peer", help="another model, measured beside it")
    parser.add_argument("--scheduler", help="class of diffusers; none: the configuration's")
    parser.add_argument("--steps", type=int, help="of the sampler; none: the configuration's")
    parser.add_argument("--lfw", help="folder of LFW; without it, synthetic people only")
    parser.add_argument("--images", type=int, default=500, help="at most, of each source")
    parser.add_argument("--align", choices=("fixed", "landmarks"), default="fixed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/cldm_quality"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    given = {"scheduler": arguments.scheduler, "num_inference_steps": arguments.steps}
    changed = {key: value for key, value in given.items() if value is not None}
    sampled = configured("cldm_none", input_side=None, **changed)
    models = [replace(sampled, model=name) for name in (arguments.model, arguments.peer) if name]
    size, sface = model_size(models[0]), SFace(align=arguments.align)
    sources = [synthetic_subjects(arguments.images, size)]
    if arguments.lfw:
        real = lfw_subjects(arguments.lfw, arguments.images, models, size)
        sources = [real, *sources, mixture(real, sources[0])]
    results = {source.name: measure(models, source, sface, arguments.out) for source in sources}
    versions = {model.model: model.version() for model in models}
    sampler = {"scheduler": sampled.scheduler, "steps": sampled.num_inference_steps}
    about = {"models": versions, **sampler, "sface": sface.version(), "align": arguments.align}
    path = arguments.out / "quality.json"
    text = json.dumps({**about, "sources": results}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
