"""Gathers an attacker's training and validation pictures from the stages' tables."""

import numpy as np
import pyarrow as pa

from cldmray.attackers.ladder import Rung
from cldmray.attackers.pairs import Index, PairSet, Validation
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, Pictures, decode_pictures


def pair_set(rung: Rung, faces: StageTable, anonymized: StageTable | None) -> PairSet:
    """Training pairs of a rung, over the attacker's people only.

    Args:
        faces: the faces table.
        anonymized: the anonymizer's table, for rungs that learn from it.

    Raises:
        BadInputError: there are no pictures of attacker people, or of fewer than two.
    """
    return PairSet(*_gather(rung, ATTACKER, faces, anonymized), rung.query == "photo")


def validation_set(rung: Rung, faces: StageTable, anonymized: StageTable | None) -> Validation:
    """Validation queries and gallery of a rung, over the validation people only."""
    return Validation(*_gather(rung, ATTACKER_VALIDATION, faces, anonymized))


def _gather(
    rung: Rung, split: str, faces: StageTable, anonymized: StageTable | None
) -> tuple[Pictures, Index, Index, Pictures, Index]:
    photos = faces.read(split=split)
    if not photos.num_rows:
        raise BadInputError(
            f"{rung.name}: no pictures of {split} people; see splits.attacker, "
            "splits.background_share and splits.validation_share"
        )
    pictures = decode_pictures(photos["image"].to_pylist())
    _, codes = np.unique(np.asarray(photos["identity"].to_pylist()), return_inverse=True)
    people = codes.astype(np.int64)
    rows = np.arange(len(people))
    if rung.query != "anonymized":
        queries = pictures if rung.probe_condition is None else rung.probe_condition(pictures)
        return queries, people, rows, pictures, people
    if anonymized is None:
        raise BadInputError(f"{rung.name}: learns from anonymized pictures, but was given none")
    table: pa.Table = anonymized.read(split=split)
    if not table.num_rows:
        raise BadInputError(f"{rung.name}: no anonymized pictures of {split} people")
    row_of = {sample: row for row, sample in enumerate(photos["sample_id"].to_pylist())}
    source = np.array([row_of[sample] for sample in table["sample_id"].to_pylist()], np.int64)
    return decode_pictures(table["image"].to_pylist()), people[source], source, pictures, people
