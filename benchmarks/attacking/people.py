"""Who is attacked and from whom the attacker learns: photographs and anonymized pictures."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cldmray.anonymizers.base import Anonymizer, Batch
from cldmray.arrays import Pictures
from cldmray.attackers.base import TrainedRung
from cldmray.attackers.nn.pairs import Index, PairSet
from cldmray.faces import LfwFaces, SyntheticFaces
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode
from cldmray.faces.records import ATTACKER, EVALUATION
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.hashing import identity_hash, picture_seed, unit_hash
from cldmray.recognizers.base import Embeddings

BATCH = 64
SYNTHETIC_SEED = 20_261_130
"""Of the synthetic people measured here; none of the package's trainings uses it."""


class People(NamedTuple):
    """Photographs of some people and their anonymized pictures.

    Attributes:
        sample_ids: of the photographs, shape (N,).
        identities: of the photographs, shape (N,).
        photos: pictures (N, h, w, 3).
        redrawn: anonymized pictures, all photographs in their order, once for each draw.
    """

    sample_ids: np.ndarray
    identities: np.ndarray
    photos: Pictures
    redrawn: Pictures

    @property
    def count(self) -> int:
        """Number of people."""
        return len(np.unique(self.identities))

    def pairs(self, rung: TrainedRung, taught: Embeddings | None) -> PairSet:
        """What a rung learns from; ``taught`` is as in :class:`PairSet`."""
        _, codes = np.unique(self.identities, return_inverse=True)
        people: Index = codes.astype(np.int64)
        rows = np.arange(len(people))
        queries, source = self.photos, rows
        if rung.query == "anonymized":
            queries, source = self.redrawn, np.tile(rows, len(self.redrawn) // len(rows))
        elif rung.probe_condition is not None:
            queries = rung.probe_condition(self.photos)
        return PairSet(
            queries, people[source], source, self.photos, people, rung.query == "photo", taught
        )


class Plan(NamedTuple):
    """How many people there are.

    Attributes:
        lfw: folder of LFW; None renders synthetic people.
        evaluated, attackers: people.
        photos: of each person, at most.
        draws: anonymized pictures of each photograph that the attacker learns from.
    """

    lfw: str | None
    evaluated: int
    attackers: int
    photos: int
    draws: int


def gather(plan: Plan, anonymizer: Anonymizer) -> tuple[People, People]:
    """The attacker's people and the evaluated ones, all of them strangers to the anonymizer.

    Raises:
        BadInputError: LFW has too few people, or is not there.
    """
    if plan.lfw is None:
        count = plan.evaluated + plan.attackers
        source: FaceSource = SyntheticFaces(
            people=count, photos_per_person=plan.photos, seed=SYNTHETIC_SEED
        )
        config = SplitConfig(evaluation_people=plan.evaluated, min_photos=plan.photos)
    else:
        source = LfwFaces(plan.lfw)
        config = SplitConfig(evaluation_people=plan.evaluated)
    listing = source.listing()
    splits = split_listing(listing, replace(config, validation_share=0.0))
    trained_on = anonymizer.trained_on()
    rows: dict[str, list[int]] = {}
    for row, person in enumerate(listing["identity"].to_pylist()):
        if identity_hash(person) not in trained_on:
            rows.setdefault(person, []).append(row)
    attackers = sorted(
        (person for person, own in rows.items() if splits[person] == ATTACKER and len(own) > 1),
        key=lambda person: unit_hash("benchmark", person),
    )
    evaluated = [person for person in rows if splits[person] == EVALUATION]
    redraw = anonymizer.open()

    def take(people: list[str], draws: int) -> People:
        taken = [row for person in people for row in rows[person][: plan.photos]]
        part = listing.take(taken)
        contents = source.read(part["location"].to_pylist())
        photos = np.stack([decode(content, source.crop, source.size) for content in contents])
        ids = part["sample_id"].to_pylist()
        batches = [
            redraw(batch)
            for draw in range(draws)
            for batch in batched(anonymizer, ids, photos, draw)
        ]
        return People(
            np.array(ids),
            np.array(part["identity"].to_pylist()),
            photos,
            np.concatenate(batches),
        )

    return take(attackers[: plan.attackers], plan.draws), take(evaluated, 1)


def batched(anonymizer: Anonymizer, ids: list[str], photos: Pictures, draw: int) -> Iterator[Batch]:
    """The photographs in batches, with their condition maps and the seeds of a draw."""
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        yield Batch(
            ids[part],
            photos[part],
            np.array([picture_seed(one, draw, 0) for one in ids[part]], np.int64),
            {name: one(photos[part]) for name, one in anonymizer.conditions.items()},
        )
