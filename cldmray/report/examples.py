"""Example images for the report: a few evaluation images and their anonymized images."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.conditions.base import Condition
from cldmray.faces.records import decode_image
from cldmray.results.audit import Grid, GridRow


def choose_examples(faces: pa.Table, anonymized: Iterable[pa.Table], count: int) -> list[str]:
    """Samples: one image each of the first ``count`` people that every anonymizer has anonymized.

    Args:
        faces: ``sample_id`` and ``identity`` of the evaluation people, sorted by sample id.
        anonymized: ``sample_id`` of every anonymizer's images.
        count: >= 0.
    """
    complete = faces
    for table in anonymized:
        complete = complete.filter(pc.is_in(complete["sample_id"], table["sample_id"]))
    sample_of: dict[str, str] = {}
    pairs = (complete[name].to_pylist() for name in ("sample_id", "identity"))
    for sample, identity in zip(*pairs, strict=True):
        if len(sample_of) == count:
            break
        sample_of.setdefault(identity, sample)
    return list(sample_of.values())


def example_grid(
    faces: pa.Table, anonymized: Mapping[str, tuple[Mapping[str, Condition], pa.Table]]
) -> Grid:
    """The example images and their anonymized images.

    Args:
        faces: rows of the chosen samples in the faces table.
        anonymized: by anonymizer name, its conditions and its rows of the same samples.
    """
    anonymized_rows = {
        name: dict(zip(table["sample_id"].to_pylist(), table["image"].to_pylist(), strict=True))
        for name, (_, table) in anonymized.items()
    }
    original_of = dict(zip(faces["sample_id"].to_pylist(), faces["image"].to_pylist(), strict=True))
    if not original_of:
        return Grid(np.zeros((0, 1, 1, 3), np.uint8), [])
    originals = np.stack([decode_image(image) for image in original_of.values()])
    rows = []
    for name, (conditions, _) in anonymized.items():
        maps = [condition(originals) for condition in conditions.values()]
        condition_map = np.maximum.reduce(maps) if maps else None
        images = np.stack([decode_image(anonymized_rows[name][sample]) for sample in original_of])
        rows.append(GridRow(name, condition_map, images))
    return Grid(originals, rows)
