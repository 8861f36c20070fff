"""Example pictures for the report: a few evaluation photographs and what became of them."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from cldmray.conditions.base import Condition
from cldmray.faces.records import decode_picture
from cldmray.report.model import Grid, GridRow


def example_grid(
    faces: pa.Table,
    anonymized: Mapping[str, tuple[Mapping[str, Condition], pa.Table]],
    count: int,
) -> Grid:
    """One photograph each of the first ``count`` people that every anonymizer has redrawn.

    Args:
        faces: evaluation rows of the faces table, sorted by sample id.
        anonymized: by anonymizer name, its conditions and the evaluation rows of its table.
        count: pictures in a row, >= 0.
    """
    redrawn = {
        name: dict(zip(table["sample_id"].to_pylist(), table["image"].to_pylist(), strict=True))
        for name, (_, table) in anonymized.items()
    }
    chosen: dict[str, tuple[str, bytes]] = {}
    columns = (faces[name].to_pylist() for name in ("sample_id", "identity", "image"))
    for sample, identity, image in zip(*columns, strict=True):
        complete = all(sample in pictures for pictures in redrawn.values())
        if complete and identity not in chosen and len(chosen) < count:
            chosen[identity] = (sample, image)
    if not chosen:
        return Grid(np.zeros((0, 1, 1, 3), np.uint8), [])
    originals = np.stack([decode_picture(image) for _, image in chosen.values()])
    rows = []
    for name, (conditions, _) in anonymized.items():
        maps = [condition(originals) for condition in conditions.values()]
        shown = np.maximum.reduce(maps) if maps else None
        pictures = np.stack(
            [decode_picture(redrawn[name][sample]) for sample, _ in chosen.values()]
        )
        rows.append(GridRow(name, shown, pictures))
    return Grid(originals, rows)
