"""Example images for the report, and the references that attacks match them to as evidence."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import cv2
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
from cldmray.settings import checked_dataclass

MATCHES = 3
"""References that stand beside an image as evidence."""
MOST_ANONYMIZERS = 6
HITS, MISSES = 4, 2
"""Images of each anonymizer that stand as evidence: identified ones, and others."""


@checked_dataclass
class ReportSettings:
    """Which images of people the report shows.

    Attributes:
        evidence: whether it shows images that were identified, beside the images that they were
            matched with; None: only where the people are synthetic.
    """

    evidence: bool | None = None

    def shows_evidence(self, synthetic: bool) -> bool:
        """Whether evidence is shown of people who are synthetic, or are not.

        >>> ReportSettings().shows_evidence(True), ReportSettings().shows_evidence(False)
        (True, False)
        """
        return synthetic if self.evidence is None else self.evidence


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
        faces: rows of the samples samples in the faces table.
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
    originals: ImageReader,
    anonymized: Mapping[str, ImageReader],
) -> list[Evidence]:
    """Images that the strongest attacks identify, and some that they do not, highest risk first.

    The attack is the strongest one whose attacker has embeddings and holds other images of the
    person; where none does, the strongest of all with embeddings. Of each anonymizer that leaks and
    has an answer, ``HITS`` identified images and ``MISSES`` others are taken, each of another
    person: the first by their ids, which are hashes, so that neither the clearest nor the closest
    are picked.

    Args:
        risks: the strongest attack on each anonymizer.
        attacks: all attacks, with their scores.
        originals: reads images and references.
        anonymized: reads the images of an anonymizer, by its name.
    """
    leaking = sorted(
        (risk for risk in risks if risk.finding == "leak" and not risk.is_mere_control),
        key=lambda risk: -risk.risk,
    )
    evidence = []
    for risk in leaking[:MOST_ANONYMIZERS]:
        attack = _shown_attack(attacks, risk.anonymizer)
        if attack is None or not isinstance(scores := attack.scores[0], EmbeddingScores):
            continue
        own = anonymized[risk.anonymizer]
        references = own if attack.gallery == "anonymized_only" else originals
        evidence += [
            _evidence_of(
                attack, scores, sample, originals=originals, anonymized=own, references=references
            )
            for sample in _shown_samples(attack, scores)
        ]
    return evidence


def _shown_attack(attacks: Sequence[AttackResult], anonymizer: str) -> AttackResult | None:
    """The attack whose matches are shown; None where no attacker has embeddings."""
    with_embeddings = [
        attack
        for attack in attacks
        if attack.anonymizer == anonymizer
        and attack.scores
        and isinstance(attack.scores[0], EmbeddingScores)
    ]
    return max(
        with_embeddings,
        key=lambda attack: (attack.gallery == "source_excluded", attack.rank_1.mean()),
        default=None,
    )


def _shown_samples(attack: AttackResult, scores: EmbeddingScores) -> list[str]:
    """Identified samples, then others, in order of their ids and each of another person."""
    # Ranks of several trainings stand one after the other; those of the first one count here.
    n_before = (attack.ranks.n_higher + attack.ranks.n_tied)[: len(scores.sample_ids)]
    order = np.argsort(scores.sample_ids, kind="stable")
    seen: set[str] = set()
    samples = []
    for rows, count in ((order[n_before[order] == 0], HITS), (order[n_before[order] > 0], MISSES)):
        for row in rows:
            identity = str(scores.identities[row])
            if identity not in seen:
                seen.add(identity)
                samples.append(str(scores.sample_ids[row]))
                count -= 1
            if count == 0:
                break
    return samples


def _evidence_of(
    attack: AttackResult,
    scores: EmbeddingScores,
    sample: str,
    *,
    originals: ImageReader,
    anonymized: ImageReader,
    references: ImageReader,
) -> Evidence:
    """One image with its best matches."""
    matches = best_identities(scores, sample, len(scores.gallery_identities))
    if matches is None:
        raise KeyError(sample)
    mated = matches.identities[0] == scores.identities[scores.sample_ids == sample][0]
    values = matches.scores[0]
    return Evidence(
        anonymizer=attack.anonymizer,
        attacker=attack.attacker,
        protocol=attack.protocol,
        gallery=attack.gallery,
        anonymized=_images(anonymized, [sample])[0],
        original=_images(originals, [sample])[0],
        matches=_images(references, matches.sample_ids[0][:MATCHES].tolist()),
        mated=tuple(mated[:MATCHES].tolist()),
        scores=tuple(values[:MATCHES].tolist()),
        rank=int(mated.argmax()) + 1,
        margin=float(values[mated][0] - values[~mated].max()) if not mated.all() else 0.0,
    )


def _images(read: ImageReader, samples: Sequence[str]) -> Images:
    """Images of some samples, in their order."""
    table = read(samples)
    columns = (table[name].to_pylist() for name in ("sample_id", "image"))
    by_sample = dict(zip(*columns, strict=True))
    images = [decode_image(by_sample[sample]) for sample in samples]
    height, width, _ = images[0].shape
    # References of different sources may differ in size.
    return np.stack([cv2.resize(each, (width, height)) for each in images])
