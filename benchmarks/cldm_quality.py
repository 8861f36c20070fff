"""Whether a CLDM folder is a fair stand-in: measured on people whom it never saw.

    python benchmarks/cldm_quality.py [--model embedded] [--lfw ../shared/lfw] [--images 500]

Two sources: LFW's evaluation and attacker people by the default splits, where ``--lfw`` is given,
and synthetic people of a seed of their own. Prints one table for each, with 95 % intervals from a
bootstrap over identities, and writes ``quality.json`` and one grid of images for each source.
Grids of LFW show real people: keep them out of the repository. Needs the extra ``recognizer``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from quality.drawing import Gallery
from quality.measures import Row, all_rows, table
from quality.subjects import Subjects, lfw_subjects, synthetic_subjects

from cldmray.anonymizers.diffusion import Diffusion
from cldmray.recognizers.sface import SFace

GRID_ROWS = 12
GRID_SIDE = 128
HEADER = 16


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


def record(row: Row) -> dict[str, Any]:
    """A row as JSON data."""
    return {"measure": row.measure, **row.interval._asdict(), "goal": row.goal, "met": row.met}


def measure(model: Diffusion, subjects: Subjects, sface: SFace, out: Path) -> dict[str, Any]:
    """Measure one source: print its table, write its grid, return its results."""
    started = time.perf_counter()
    gallery = Gallery(model, subjects)
    rows = all_rows(subjects, gallery, sface)
    identities = len(np.unique(subjects.identities))
    print(f"\n{subjects.name}: {len(subjects.given)} images of {identities} people", end="")
    print(f", {time.perf_counter() - started:.0f} s\n{table(rows)}", flush=True)
    grid(subjects, gallery).save(out / f"{subjects.name}.png")
    return {
        "images": len(subjects.given),
        "identities": identities,
        "rows": [record(row) for row in rows],
    }


def main() -> None:
    """Parse, measure each source, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="embedded, or a folder of diffusers")
    parser.add_argument("--lfw", help="folder of LFW; without it, synthetic people only")
    parser.add_argument("--images", type=int, default=500, help="at most, of each source")
    parser.add_argument("--align", choices=("fixed", "landmarks"), default="fixed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/cldm_quality"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model, sface = Diffusion(arguments.model), SFace(align=arguments.align)
    sources = []
    if arguments.lfw:
        sources.append(lfw_subjects(arguments.lfw, arguments.images, model))
    synthetic = synthetic_subjects(arguments.images)
    if synthetic is None:
        print("synthetic: left out, this version has no cldmray.faces.synthetic.SyntheticFaces")
    else:
        sources.append(synthetic)
    results = {source.name: measure(model, source, sface, arguments.out) for source in sources}
    about = {"model": arguments.model, "version": model.version(), "sface": sface.version()}
    report = {**about, "align": arguments.align, "sources": results}
    path = arguments.out / "quality.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
