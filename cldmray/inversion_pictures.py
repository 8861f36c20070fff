"""Evaluation people's pictures beside their photographs: anonymized ones and reconstructions."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray.engine.tables import StageTable
from cldmray.faces.records import EVALUATION, Pictures, decode_pictures
from cldmray.gallery.references import Strings
from cldmray.inversion_config import RAW
from cldmray.report.model import Grid, GridRow


class Shown(NamedTuple):
    """Pictures of evaluation people beside their photographs, row by row.

    Attributes:
        samples, people: shape (P,).
        photos: shape (P, h, w, 3).
        guesses: shape (P, guesses, h, w, 3).
    """

    samples: list[str]
    people: Strings
    photos: Pictures
    guesses: npt.NDArray[np.uint8]


def shown(faces: StageTable, table: StageTable, column: str) -> Shown:
    """Evaluation people's pictures of a table beside their photographs, by rising sample id.

    Args:
        column: ``image``, one encoded picture a row, or ``guesses``, a list of them; only the first
            draw, and no views of regions, are taken.
    """
    photos = faces.read(["sample_id", "identity", "image"], EVALUATION)
    columns = (photos[name].to_pylist() for name in ("sample_id", "identity", "image"))
    known = {sample: (person, image) for sample, person, image in zip(*columns, strict=True)}
    pictures: dict[str, list[bytes]] = {}
    rows: pa.Table = table.read()
    views = rows["view"].to_pylist() if "view" in rows.column_names else [""] * len(rows)
    for sample, found, view in zip(
        rows["sample_id"].to_pylist(), rows[column].to_pylist(), views, strict=True
    ):
        if sample in known and sample not in pictures and " region=" not in view:
            pictures[sample] = [found] if column == "image" else found
    samples = sorted(pictures)
    flat = decode_pictures(image for sample in samples for image in pictures[sample])
    guesses = flat.reshape(len(samples), -1, *flat.shape[1:])
    return Shown(
        samples,
        np.asarray([known[sample][0] for sample in samples]),
        decode_pictures(known[sample][1] for sample in samples),
        guesses,
    )


def grid(pictures: dict[str, Shown], inverters: list[str], count: int) -> Grid:
    """The first photograph of the first people, and what became of it; no more than ``count``.

    The rows are the anonymized pictures, then each inverter's first guess.
    """
    raw = pictures[RAW]
    _, rows = np.unique(raw.people, return_index=True)
    chosen = rows[:count]
    return Grid(
        raw.photos[chosen],
        [
            GridRow(name, None, pictures[name].guesses[chosen, 0])
            for name in [RAW, *inverters]
            if pictures[name].samples == raw.samples
        ],
    )
