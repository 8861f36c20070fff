"""The most exposed identities: a mean over images hides a person whom every attacker identifies.

k-anonymity is about nobody, so the report shows the worst identities beside the mean. An image
counts as identified by an attacker where its own identity is ranked first in more than half of the
attacker's trainings, ties counted by their probability.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import Strings
from cldmray.metrics.rates import clopper_pearson
from cldmray.results.exposed import EXPOSED, ExposedIdentity

Floats = npt.NDArray[np.float64]
IDENTIFIED = 0.5
"""Mean success of an attacker's trainings on an image above which it counts as identified."""


class Exposed(NamedTuple):
    """Exposed images and identities.

    Attributes:
        images: schema :data:`cldmray.results.exposed.EXPOSED`.
        identities: of every anonymizer and gallery, the most exposed first.
    """

    images: pa.Table
    identities: list[ExposedIdentity]


class ImageSuccess(NamedTuple):
    """Success of one attack by image, trainings averaged; images sorted by sample id.

    Attributes:
        sample_ids, identities: of the images, shape (S,).
        success: mean rank-1 success over trainings, shape (S,).
        attraction: how often its identity is named, whatever the image shows, shape (S,).
    """

    sample_ids: Strings
    identities: Strings
    success: Floats
    attraction: Floats


class ExposedImage(NamedTuple):
    """One image in one protocol and gallery.

    Attributes:
        identity, sample_id: of the image.
        n_attackers: attackers that tried it.
        attackers: those that identified it, sorted.
    """

    identity: str
    sample_id: str
    n_attackers: int
    attackers: list[str]

    @property
    def record(self) -> dict[str, object]:
        """Columns of :data:`cldmray.results.exposed.EXPOSED`."""
        return {**self._asdict(), "n_identified": len(self.attackers)}


def image_success(attack: AttackResult) -> ImageSuccess:
    """Average the trainings of an attacker image by image."""
    values = attack.rank_1, attack.measured_chance.attraction
    samples, identities, means = attack.by_image(*values)
    return ImageSuccess(samples, identities, *means)


def exposed(attacks: Sequence[AttackResult], settings: EvaluationSettings) -> Exposed:
    """Which images and identities of every anonymizer are identified, and by how many attackers.

    Args:
        attacks: of the whole audit. Attacks of one anonymizer, protocol and gallery need not have
            the same probes.
        settings: ``confidence_level`` of the bounds of all identities together (Bonferroni).
    """
    images: list[dict[str, object]] = []
    identities: list[ExposedIdentity] = []
    for (anonymizer, gallery), group in _grouped(attacks):
        rows: list[ExposedImage] = []
        for members in _by_protocol(group):
            of_protocol = _exposed_images(members)
            where = {
                "anonymizer": anonymizer,
                "protocol": members[0].protocol,
                "gallery": gallery,
            }
            images += [{**where, **row.record} for row in of_protocol]
            rows += of_protocol
        identities += _identities(group, rows, settings)
    identities.sort(key=lambda each: (-each.ci_low, -each.share, each.anonymizer, each.gallery))
    return Exposed(pa.Table.from_pylist(images, EXPOSED), identities)


def _grouped(
    attacks: Iterable[AttackResult],
) -> Iterable[tuple[tuple[str, str], list[AttackResult]]]:
    groups: dict[tuple[str, str], list[AttackResult]] = {}
    for attack in attacks:
        groups.setdefault((attack.anonymizer, attack.gallery), []).append(attack)
    return groups.items()


def _by_protocol(attacks: Sequence[AttackResult]) -> list[list[AttackResult]]:
    protocols = dict.fromkeys(attack.protocol for attack in attacks)
    return [[attack for attack in attacks if attack.protocol == each] for each in protocols]


def _exposed_images(attacks: Sequence[AttackResult]) -> list[ExposedImage]:
    """Of the attacks of one anonymizer, protocol and gallery, sorted by sample id."""
    identity_of: dict[str, str] = {}
    tried: dict[str, int] = {}
    identified_by: dict[str, list[str]] = {}
    for attack in attacks:
        samples, identities, success, _ = image_success(attack)
        identity_of.update(zip(samples.tolist(), identities.tolist(), strict=True))
        for sample in samples.tolist():
            tried[sample] = tried.get(sample, 0) + 1
        for sample in samples[success > IDENTIFIED].tolist():
            identified_by.setdefault(sample, []).append(attack.attacker)
    return [
        ExposedImage(
            identity_of[sample],
            sample,
            n_attackers=tried[sample],
            attackers=sorted(identified_by.get(sample, [])),
        )
        for sample in sorted(tried)
    ]


def _identities(
    attacks: Sequence[AttackResult], rows: Sequence[ExposedImage], settings: EvaluationSettings
) -> list[ExposedIdentity]:
    """The identities of one anonymizer and gallery under its strongest attack."""
    attack = max(attacks, key=lambda each: float(each.rank_1.mean()))
    _, owners, success, attraction = image_success(attack)
    names, codes = np.unique(owners, return_inverse=True)
    n_images = np.bincount(codes).astype(np.float64)
    n_identified = np.minimum(np.bincount(codes, weights=success), n_images)
    chance = np.bincount(codes, weights=attraction) / n_images
    # Bonferroni over identities: the most exposed of many is exposed by luck as well.
    confidence_level = 1 - (1 - settings.confidence_level) / len(names)
    bounds = clopper_pearson(n_identified, n_images, confidence_level)
    attackers: dict[str, set[str]] = {}
    by_any: dict[str, set[str]] = {}
    for row in rows:
        if row.attackers:
            attackers.setdefault(row.identity, set()).update(row.attackers)
            by_any.setdefault(row.identity, set()).add(row.sample_id)
    return [
        ExposedIdentity(
            anonymizer=attack.anonymizer,
            gallery=attack.gallery,
            identity=name,
            attacker=attack.attacker,
            protocol=attack.protocol,
            n_images=int(n_images[place]),
            n_identified=float(n_identified[place]),
            share=float(n_identified[place] / n_images[place]),
            ci_low=float(bounds.low[place]),
            ci_high=float(bounds.high[place]),
            chance=float(chance[place]),
            n_attackers=len(attackers.get(name, ())),
            n_identified_by_any=len(by_any.get(name, ())),
        )
        for place, name in enumerate(names.tolist())
    ]
