"""Photographs of people whom the model never saw, two at a time of each person."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cldmray.anonymizers.diffusion.settings import Diffusion
from cldmray.arrays import Pictures
from cldmray.faces import LfwFaces
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode
from cldmray.faces.records import BACKGROUND
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.hashing import identity_hash, unit_hash

SYNTHETIC_SEED = 20_261_123
"""Of the synthetic people measured here; none of the package's trainings uses it."""


class Subjects(NamedTuple):
    """Pairs of photographs; the pictures are uint8, shape (N, h, w, 3).

    Attributes:
        name: of the source.
        sample_ids: of the given photographs.
        people: identity of each pair, shape (N,).
        given: photographs that the model redraws.
        others: another photograph of the same person; no photograph is used twice.
    """

    name: str
    sample_ids: list[str]
    people: np.ndarray
    given: Pictures
    others: Pictures


def lfw_subjects(root: str, count: int, model: Diffusion) -> Subjects:
    """People of LFW's evaluation and attacker splits, less those whom the model's card lists."""
    source = LfwFaces(root)
    splits = split_listing(source.listing(), SplitConfig())
    trained_on = model.trained_on()
    unseen = {
        person
        for person, split in splits.items()
        if split != BACKGROUND and identity_hash(person) not in trained_on
    }
    return take(source, unseen, count)


def synthetic_subjects(count: int) -> Subjects | None:
    """Synthetic people of a seed of their own; None where the package has no such source."""
    try:
        from cldmray.faces.synthetic import SyntheticFaces
    except ImportError:
        return None
    source = SyntheticFaces(people=count, photos_per_person=2, seed=SYNTHETIC_SEED)
    return take(source, set(source.listing()["identity"].to_pylist()), count)


def take(source: FaceSource, people: set[str], count: int) -> Subjects:
    """Up to ``count`` pairs: one of every person, then a second, and so on."""
    listing = source.listing()
    identities = listing["identity"].to_pylist()
    pairs = paired_rows([one if one in people else None for one in identities], count)
    locations, ids = listing["location"].to_pylist(), listing["sample_id"].to_pylist()

    def pictures(rows: Sequence[int]) -> Pictures:
        contents = source.read([locations[row] for row in rows])
        return np.stack([decode(content, source.crop, source.size) for content in contents])

    given, others = zip(*pairs, strict=True)
    return Subjects(
        source.name,
        [ids[row] for row in given],
        np.array([identities[row] for row in given]),
        pictures(given),
        pictures(others),
    )


def paired_rows(identities: Sequence[str | None], count: int) -> list[tuple[int, int]]:
    """Rows of two photographs of one person, people in the order of a hash; None is nobody."""
    rows: dict[str, list[int]] = {}
    for row, person in enumerate(identities):
        if person is not None:
            rows.setdefault(person, []).append(row)
    order = sorted(rows, key=lambda person: unit_hash("quality", person))
    most = max((len(own) for own in rows.values()), default=0)
    pairs = [
        (rows[person][first], rows[person][first + 1])
        for first in range(0, most - 1, 2)
        for person in order
        if first + 1 < len(rows[person])
    ]
    if not pairs:
        raise SystemExit("nobody whom the model has not seen has two photographs")
    return pairs[:count]
