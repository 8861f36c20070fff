"""What a report says of the images of an audit: how faces were found, and which are copies."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import hashing
from cldmray.anonymizers.base import Anonymizer
from cldmray.engine.artifacts import Artifact
from cldmray.engine.map_stages.faces import SEARCH_COLUMNS
from cldmray.faces.base import FaceSource
from cldmray.faces.records import EVALUATION

logger = logging.getLogger(__name__)


def alignment_notes(source: FaceSource, faces: Artifact) -> list[str]:
    """What the report says of how faces were found; where none was searched for, only the log.

    Args:
        faces: the table of originals of the source.
    """
    if not source.finds_faces:
        logger.info(f"{source.name}: images are taken as aligned; no face was searched for")
        return []
    searches = faces.read(SEARCH_COLUMNS.names)
    least = getattr(source, "min_face", 0)
    kinds = {
        "show several faces, of which the largest and most central one was taken": pc.greater(
            searches["n_faces"], 1
        ),
        "were turned by 90, 180 or 270 degrees": pc.greater(searches["quarter_turns"], 0),
        f"show a face of fewer than {least} pixels a side (faces.min_face), of which a recognizer "
        "may read little": pc.less(searches["side"], least),
    }
    counts = {kind: pc.sum(rows).as_py() or 0 for kind, rows in kinds.items()}
    parts = [f"{count} {kind}" for kind, count in counts.items() if count]
    note = "; ".join(
        [
            f"The face of each of {len(searches)} images was found by "
            f"{type(getattr(source, 'detector', source)).__name__} and brought into place by its "
            "five landmarks",
            *parts,
        ]
    )
    logger.info(f"{source.name}: {note}")
    return [f"{note}."]


def duplicates_of_evaluated(pairs: pa.Table) -> list[str]:
    """Samples of other splits that are near-duplicates of evaluated ones, sorted.

    Args:
        pairs: schema :data:`cldmray.engine.map_stages.near_duplicates.NEAR_DUPLICATES`.
    """
    samples = set()
    for row in pairs.to_pylist():
        if row["split"] != EVALUATION == row["other_split"]:
            samples.add(row["sample_id"])
        if row["split"] == EVALUATION != row["other_split"]:
            samples.add(row["other_sample_id"])
    return sorted(samples)


def duplicate_notes(pairs: pa.Table) -> list[str]:
    """What the report says of near-duplicates, with images and people as hashes.

    Args:
        pairs: schema :data:`cldmray.engine.map_stages.near_duplicates.NEAR_DUPLICATES`.
    """
    rows = pairs.to_pylist()
    evaluated = [row for row in rows if row["split"] == EVALUATION == row["other_split"]]
    same = [row for row in evaluated if row["identity"] == row["other_identity"]]
    strangers = [row for row in rows if row["identity"] != row["other_identity"]]
    leaked = duplicates_of_evaluated(pairs)
    notes = []
    if same:
        notes.append(
            f"{_pairs(len(same))} of near-duplicates show one evaluated person (for example "
            f"images {_examples(same)}): where the source is excluded, a near-duplicate of it "
            "is excluded with it."
        )
    if leaked:
        notes.append(
            f"{len(leaked)} images of other splits are near-duplicates of evaluated images (for "
            f"example image {leaked[0]}); they were left out, so that nothing learns from what is "
            "evaluated."
        )
    if strangers:
        names = " and ".join(hidden(strangers[0][key]) for key in ("identity", "other_identity"))
        notes.append(
            f"{_pairs(len(strangers))} of near-duplicates stand under two different people "
            f"(for example images {_examples(strangers)} of {names}): correct the names, since "
            "an attack that finds such an image counts as wrong."
        )
    return notes


class LostImages(NamedTuple):
    """Images of one split's people that cannot be used.

    Attributes:
        anonymizer: name of the one that they are of.
        split: of the people.
        number: of these images.
        total: images that the anonymizer was asked for.
        reasons: why they cannot be used.
    """

    anonymizer: str
    split: str
    number: int
    total: int
    reasons: str

    @property
    def subject(self) -> str:
        """How many there are, as the first half of a sentence."""
        whose = "" if self.split == EVALUATION else f" of {self.split} people"
        return f"{self.number} of {self.total} images of {self.anonymizer}{whose} cannot be used"

    @property
    def note(self) -> str:
        """What the report says of them."""
        if self.split == EVALUATION:
            return f"{self.subject}, because {self.reasons}."
        return (
            f"{self.subject}, because {self.reasons}: attackers had the others alone to learn from "
            "and to validate on, so that the risk may be understated."
        )


def lost_images(
    table: Artifact,
    anonymizer: Anonymizer,
    listed: Mapping[str, pa.ChunkedArray],
    samples: Mapping[str, int],
) -> list[LostImages]:
    """Which splits lack images of an anonymizer that it was asked for.

    Args:
        table: its images.
        listed: sample ids of the originals of each split.
        samples: how often the images of each split are anonymized.
    """
    rejected, lost = table.rejected(), []
    for split, ids in listed.items():
        # A group has one surrogate, however often it is asked for.
        each = samples[split] if anonymizer.grouping is None else 1
        total = each * int(anonymizer.select(ids.to_pylist()).sum())
        count = total - table.count(split)
        if count:
            those = rejected.filter(pc.is_in(rejected["sample_id"], ids.combine_chunks()))
            reasons = "; ".join(sorted(set(those["reason"].to_pylist())))
            reasons = reasons or "they are no images, or end early"
            lost.append(LostImages(anonymizer.name, split, count, total, reasons))
    return lost


def _pairs(count: int) -> str:
    return f"{count} pair" + ("s" if count > 1 else "")


def _examples(rows: list[dict[str, Any]]) -> str:
    """The samples of at most three pairs; their ids are hashes of the files' names."""
    return ", ".join(f"{row['sample_id']} and {row['other_sample_id']}" for row in rows[:3])


def hidden(identity: str) -> str:
    """An identity in notes, logs and errors, which must not name people."""
    return f"identity {hashing.identity_hash(identity)}"
