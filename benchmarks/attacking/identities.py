"""Who is attacked and from whom the attacker learns: images and anonymized images."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cldmray.anonymizers.base import Anonymizer, Batch
from cldmray.arrays import Images
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.pairs import Index, PairSet
from cldmray.faces import LfwFaces, SyntheticFaces
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode
from cldmray.faces.records import ATTACKER, EVALUATION
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.hashing import identity_hash, image_seed, unit_hash
from cldmray.recognizers.base import Embeddings

BATCH = 64
SYNTHETIC_SEED = 20_261_130
"""Of the synthetic people measured here; none of the package's trainings uses it."""


class Identities(NamedTuple):
    """Images of some people and their anonymized images.

    Attributes:
        sample_ids: of the images, shape (N,).
        identities: of the images, shape (N,).
        originals: images (N, h, w, 3).
        anonymized: anonymized images, all images in their order, once for each sample.
    """

    sample_ids: np.ndarray
    identities: np.ndarray
    originals: Images
    anonymized: Images

    @property
    def count(self) -> int:
        """Number of people."""
        return len(np.unique(self.identities))

    def pairs(self, attacker: EncoderAttacker, teacher_embeddings: Embeddings | None) -> PairSet:
        """What an attacker learns from; ``taught`` is as in :class:`PairSet`."""
        _, codes = np.unique(self.identities, return_inverse=True)
        identities: Index = codes.astype(np.int64)
        rows = np.arange(len(identities))
        queries, source = self.originals, rows
        if attacker.query == "anonymized":
            queries, source = self.anonymized, np.tile(rows, len(self.anonymized) // len(rows))
        elif attacker.probe_condition is not None:
            queries = attacker.probe_condition(self.originals)
        return PairSet(
            queries,
            identities[source],
            source,
            self.originals,
            identities,
            attacker.query == "image",
            teacher_embeddings,
        )


class Plan(NamedTuple):
    """How many people there are.

    Attributes:
        lfw: folder of LFW; None renders synthetic people.
        evaluated, attackers: people.
        images: of each person, at most.
        samples: anonymized images of each image that the attacker learns from.
    """

    lfw: str | None
    evaluated: int
    attackers: int
    originals: int
    samples: int


def gather(plan: Plan, anonymizer: Anonymizer) -> tuple[Identities, Identities]:
    """The attacker's people and the evaluated ones, all of them strangers to the anonymizer.

    Raises:
        BadInputError: LFW has too few people, or is not there.
    """
    if plan.lfw is None:
        count = plan.evaluated + plan.attackers
        source: FaceSource = SyntheticFaces(
            n_identities=count, images_per_identity=plan.originals, seed=SYNTHETIC_SEED
        )
        config = SplitConfig(n_evaluation_identities=plan.evaluated, min_images=plan.originals)
    else:
        source = LfwFaces(plan.lfw, size=64)
        config = SplitConfig(n_evaluation_identities=plan.evaluated)
    listing = source.listing()
    splits = split_listing(listing, replace(config, validation_fraction=0.0))
    trained_on = anonymizer.trained_on()
    rows: dict[str, list[int]] = {}
    for row, identity in enumerate(listing["identity"].to_pylist()):
        if identity_hash(identity) not in trained_on:
            rows.setdefault(identity, []).append(row)
    attackers = sorted(
        (
            identity
            for identity, own in rows.items()
            if splits[identity] == ATTACKER and len(own) > 1
        ),
        key=lambda identity: unit_hash("benchmark", identity),
    )
    evaluated = [identity for identity in rows if splits[identity] == EVALUATION]
    anonymize = anonymizer.open()

    def take(identities: list[str], samples: int) -> Identities:
        taken = [row for identity in identities for row in rows[identity][: plan.originals]]
        part = listing.take(taken)
        contents = source.read(part["location"].to_pylist())
        originals = np.stack([decode(content, source.crop, source.size) for content in contents])
        ids = part["sample_id"].to_pylist()
        batches = [
            anonymize(batch)
            for sample in range(samples)
            for batch in batched(anonymizer, ids, originals, sample)
        ]
        return Identities(
            np.array(ids),
            np.array(part["identity"].to_pylist()),
            originals,
            np.concatenate(batches),
        )

    return take(attackers[: plan.attackers], plan.samples), take(evaluated, 1)


def batched(
    anonymizer: Anonymizer, ids: list[str], originals: Images, sample: int
) -> Iterator[Batch]:
    """The images in batches, with their condition maps and the seeds of a sample."""
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        yield Batch(
            ids[part],
            originals[part],
            np.array([image_seed(sample_id, sample, 0) for sample_id in ids[part]], np.int64),
            {name: condition(originals[part]) for name, condition in anonymizer.conditions.items()},
        )
