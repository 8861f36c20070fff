"""Example images for the report, and the references that attacks match them to as evidence."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Images
from cldmray.conditions.base import Condition
from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import decode_image
from cldmray.gallery.matches import best_identities
from cldmray.gallery.scores import EmbeddingScores
from cldmray.results.audit import AnonymizerRisk, Evidence, Grid, GridRow

MATCHES = 5
"""References that stand beside an image as evidence."""
MOST_ANONYMIZERS = 4
SAMPLES = 2
"""Images of each anonymizer that stand as evidence."""

ImageReader = Callable[[Sequence[str]], pa.Table]
"""Reads ``sample_id`` and ``image`` of some samples."""


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


def leak_evidence(
    risks: Sequence[AnonymizerRisk],
    attacks: Sequence[AttackResult],
    samples: Sequence[str],
    originals: ImageReader,
    anonymized: dict[str, ImageReader],
) -> list[Evidence]:
    """The best matches of example images of the anonymizers that leak, highest risk first.

    Args:
        risks: the strongest attack on each anonymizer.
        attacks: all attacks, with their scores. Attacks without embeddings, such as score
            fusion, yield nothing.
        samples: of the example images.
        originals: reads references.
        anonymized: reads the images of an anonymizer, by its name.
    """
    strongest = {
        (attack.anonymizer, attack.attacker, attack.protocol, attack.gallery): attack
        for attack in attacks
    }
    leaking = sorted((r for r in risks if r.finding == "leak"), key=lambda r: -r.risk)
    evidence = []
    for risk in leaking[:MOST_ANONYMIZERS]:
        attack = strongest[risk.anonymizer, risk.attacker, risk.protocol, risk.gallery]
        if not attack.scores or not isinstance(scores := attack.scores[0], EmbeddingScores):
            continue
        references = anonymized[risk.anonymizer] if risk.gallery == "anonymized_only" else originals
        for sample in samples[:SAMPLES]:
            matches = best_identities(scores, sample, MATCHES)
            if matches is None:
                continue
            identity = scores.identities[scores.sample_ids == sample][0]
            probe = _images(anonymized[risk.anonymizer], [sample])
            evidence.append(
                Evidence(
                    risk.anonymizer,
                    risk.attacker,
                    probe[0],
                    _images(references, matches.sample_ids[0].tolist()),
                    tuple((matches.identities[0] == identity).tolist()),
                    tuple(matches.scores[0].tolist()),
                )
            )
    return evidence


def _images(read: ImageReader, samples: Sequence[str]) -> Images:
    """Images of some samples, in their order."""
    table = read(samples)
    columns = (table[name].to_pylist() for name in ("sample_id", "image"))
    by_sample = dict(zip(*columns, strict=True))
    return np.stack([decode_image(by_sample[sample]) for sample in samples])
