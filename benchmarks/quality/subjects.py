"""Images of people whom the model never saw, two at a time of each person."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cldmray.anonymizers.diffusion import Diffusion
from cldmray.arrays import Images
from cldmray.faces import LfwFaces
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode
from cldmray.faces.records import AUXILIARY
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.hashing import identity_hash, unit_hash

SYNTHETIC_SEED = 20_261_123
"""Of the synthetic people measured here; none of the package's trainings uses it."""


class Subjects(NamedTuple):
    """Pairs of images; the images are uint8, shape (N, h, w, 3).

    Attributes:
        name: of the source.
        sample_ids: of the given images.
        people: identity of each pair, shape (N,).
        given: images that the model anonymizes.
        others: another image of the same person; no image is used twice.
    """

    name: str
    sample_ids: list[str]
    identities: np.ndarray
    given: Images
    others: Images


def lfw_subjects(root: str, count: int, models: Sequence[Diffusion], size: int) -> Subjects:
    """People of LFW's evaluation and attacker splits, less those whom a model's card lists."""
    source = LfwFaces(root, size=size)
    splits = split_listing(source.listing(), SplitConfig())
    trained_on = {identity for model in models for identity in model.trained_on()}
    unseen = {
        identity
        for identity, split in splits.items()
        if split != AUXILIARY and identity_hash(identity) not in trained_on
    }
    return take(source, unseen, count)


def synthetic_subjects(count: int, size: int) -> Subjects:
    """Synthetic people of a seed of their own."""
    source = SyntheticFaces(
        n_identities=count, images_per_identity=2, seed=SYNTHETIC_SEED, size=size
    )
    return take(source, set(source.listing()["identity"].to_pylist()), count)


def mixture(first: Subjects, second: Subjects) -> Subjects:
    """Both together: what a model that was trained on both draws where nothing conditions it."""
    return Subjects(
        f"{first.name} and {second.name}",
        [*first.sample_ids, *second.sample_ids],
        np.concatenate([first.identities, second.identities]),
        np.concatenate([first.given, second.given]),
        np.concatenate([first.others, second.others]),
    )


def take(source: FaceSource, unique_identities: set[str], count: int) -> Subjects:
    """Up to ``count`` pairs: one of every person, then a second, and so on."""
    listing = source.listing()
    identities = listing["identity"].to_pylist()
    pairs = paired_rows(
        [identity if identity in unique_identities else None for identity in identities], count
    )
    locations, ids = listing["location"].to_pylist(), listing["sample_id"].to_pylist()

    def images(rows: Sequence[int]) -> Images:
        contents = source.read([locations[row] for row in rows])
        return np.stack([decode(content, source.crop, source.size) for content in contents])

    given, others = zip(*pairs, strict=True)
    return Subjects(
        source.name,
        [ids[row] for row in given],
        np.array([identities[row] for row in given]),
        images(given),
        images(others),
    )


def paired_rows(identities: Sequence[str | None], count: int) -> list[tuple[int, int]]:
    """Rows of two images of one person, people in the order of a hash; None is nobody."""
    rows: dict[str, list[int]] = {}
    for row, identity in enumerate(identities):
        if identity is not None:
            rows.setdefault(identity, []).append(row)
    order = sorted(rows, key=lambda identity: unit_hash("quality", identity))
    most = max((len(own) for own in rows.values()), default=0)
    pairs = [
        (rows[identity][first], rows[identity][first + 1])
        for first in range(0, most - 1, 2)
        for identity in order
        if first + 1 < len(rows[identity])
    ]
    if not pairs:
        raise SystemExit("nobody whom the model has not seen has two images")
    return pairs[:count]
