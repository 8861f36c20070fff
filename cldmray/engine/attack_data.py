"""Gathers an attacker's training and validation pictures from the stages' tables."""

import numpy as np
import pyarrow as pa

from cldmray.attackers.ladder import TrainedRung
from cldmray.attackers.pairs import Index, PairSet, Validation
from cldmray.attackers.recognizer import Embeddings
from cldmray.engine.tables import StageTable
from cldmray.errors import BadInputError
from cldmray.faces.records import (
    ATTACKER_VALIDATION,
    Pictures,
    decode_pictures,
    embedding_matrix,
)

Gathered = tuple[Pictures, Index, Index, Pictures, Index]


def pair_set(
    rung: TrainedRung,
    faces: StageTable,
    anonymized: StageTable | None,
    taught: StageTable | None = None,
) -> PairSet:
    """Training pairs of a rung, over the people of its training splits only.

    Args:
        faces: the faces table.
        anonymized: the anonymizer's table, for rungs that learn from it.
        taught: the teacher's embeddings of the photos, for rungs that have one.

    Raises:
        BadInputError: there are no pictures of attacker people, or of fewer than two; or the
            teacher has not embedded a photo.
    """
    gathered, targets = _gather(rung, rung.training_splits, faces, anonymized, taught)
    return PairSet(*gathered, rung.query == "photo", targets)


def validation_set(
    rung: TrainedRung,
    faces: StageTable,
    anonymized: StageTable | None,
    taught: StageTable | None = None,
) -> Validation:
    """Validation queries and gallery of a rung, over the validation people only."""
    gathered, targets = _gather(rung, (ATTACKER_VALIDATION,), faces, anonymized, taught)
    return Validation(*gathered, targets)


def _gather(
    rung: TrainedRung,
    splits: tuple[str, ...],
    faces: StageTable,
    anonymized: StageTable | None,
    taught: StageTable | None,
) -> tuple[Gathered, Embeddings | None]:
    photos = _rows(faces, splits)
    if not photos.num_rows:
        raise BadInputError(
            f"{rung.name}: no pictures of {splits[0]} people; see splits.attacker, "
            "splits.background_share and splits.validation_share"
        )
    samples = photos["sample_id"].to_pylist()
    pictures = decode_pictures(photos["image"].to_pylist())
    _, codes = np.unique(np.asarray(photos["identity"].to_pylist()), return_inverse=True)
    people = codes.astype(np.int64)
    targets = None if taught is None else _vectors_of(taught, samples)
    if rung.query != "anonymized":
        queries = pictures if rung.probe_condition is None else rung.probe_condition(pictures)
        return (queries, people, np.arange(len(people)), pictures, people), targets
    if anonymized is None:
        raise BadInputError(f"{rung.name}: learns from anonymized pictures, but was given none")
    table = _rows(anonymized, splits)
    if not table.num_rows:
        raise BadInputError(f"{rung.name}: no anonymized pictures of {splits[0]} people")
    row_of = {sample: row for row, sample in enumerate(samples)}
    source = np.array([row_of[sample] for sample in table["sample_id"].to_pylist()], np.int64)
    queries = decode_pictures(table["image"].to_pylist())
    if rung.probe_condition is not None:
        queries = rung.probe_condition(queries)
    return (queries, people[source], source, pictures, people), targets


def _rows(table: StageTable, splits: tuple[str, ...]) -> pa.Table:
    return pa.concat_tables([table.read(split=split) for split in splits])


def _vectors_of(embeddings: StageTable, samples: list[str]) -> Embeddings:
    """The embeddings of the given samples, in their order."""
    table = embeddings.read()
    row_of = {sample: row for row, sample in enumerate(table["sample_id"].to_pylist())}
    absent = [sample for sample in samples if sample not in row_of]
    if absent:
        raise BadInputError(f"the teacher has not embedded {len(absent)} photos, as {absent[0]}")
    return embedding_matrix(table)[[row_of[sample] for sample in samples]]
