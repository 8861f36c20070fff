"""Near-duplicates among many images: pairs by perceptual hash, and ids that they share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cldmray.faces.near_duplicates import (
    HASH_BYTES,
    MAX_DISTANCE,
    MIN_LIKENESS,
    Fingerprints,
    likeness,
    mirrored,
)
from cldmray.gallery.vector_index import load_faiss

MOST_COMPARED = 65_536
"""Candidates whose thumbnails are compared at once."""


class NearDuplicate(NamedTuple):
    """Two rows of the same content.

    Attributes:
        row, other: of the images, ``row < other``.
        likeness: of their details, at least ``MIN_LIKENESS``.
        is_mirrored: whether one shows the other in a mirror.
    """

    row: int
    other: int
    likeness: float
    is_mirrored: bool


def near_duplicates(
    fingerprints: Fingerprints, start: int = 0, stop: int | None = None
) -> list[NearDuplicate]:
    """Pairs of near-duplicates among N images, sorted by their rows; all, unless rows are given.

    Every image is compared with all others, in time that grows with their square.

    >>> from cldmray.faces.near_duplicates import fingerprint
    >>> noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    >>> noise[2] = noise[0, :, ::-1]
    >>> [(pair.row, pair.other, pair.is_mirrored) for pair in near_duplicates(fingerprint(noise))]
    [(0, 2, True)]

    Args:
        fingerprints: see :func:`cldmray.faces.near_duplicates.fingerprint`.
        start, stop: of the pairs whose ``row`` is from ``start`` to before ``stop``.
    """
    index = load_faiss().IndexBinaryFlat(8 * HASH_BYTES)
    index.add(np.ascontiguousarray(fingerprints.hashes))
    # A pair that is both, as an image of a symmetric face may be, counts as not mirrored.
    pairs: dict[tuple[int, int], NearDuplicate] = {}
    for is_mirrored in (True, False):
        hashes = mirrored(fingerprints.hashes) if is_mirrored else fingerprints.hashes
        own = np.ascontiguousarray(hashes[start:stop])
        limits, _, columns = index.range_search(own, MAX_DISTANCE + 1)
        rows = start + np.repeat(np.arange(len(own)), np.diff(limits.astype(np.int64)))
        above = rows < columns
        rows, columns = rows[above], columns[above]
        for first in range(0, len(rows), MOST_COMPARED):
            part = slice(first, first + MOST_COMPARED)
            others = fingerprints.thumbnails[columns[part]]
            alike = likeness(
                fingerprints.thumbnails[rows[part]], others[..., ::-1] if is_mirrored else others
            )
            for place in np.flatnonzero(alike >= MIN_LIKENESS).tolist():
                key = int(rows[first + place]), int(columns[first + place])
                pairs[key] = NearDuplicate(*key, float(alike[place]), is_mirrored)
    return [pairs[key] for key in sorted(pairs)]


def content_ids(pairs: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """One id for all samples that are near-duplicates of each other, directly or by a third one.

    Args:
        pairs: samples of each pair of near-duplicates.

    Returns:
        For each sample of a pair the smallest id among those that it is connected with.

    >>> content_ids([("c", "b"), ("b", "a"), ("x", "y")])
    {'a': 'a', 'b': 'a', 'c': 'a', 'x': 'x', 'y': 'x'}
    """
    samples = sorted({sample for pair in pairs for sample in pair})
    if not samples:
        return {}
    place = {sample: row for row, sample in enumerate(samples)}
    rows, columns = zip(*[(place[first], place[second]) for first, second in pairs], strict=True)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(samples), len(samples)))
    _, labels = connected_components(graph, directed=False)
    # Labels of components by row; the first row of each is its smallest sample id.
    _, first = np.unique(labels, return_index=True)
    return {sample: samples[first[label]] for sample, label in zip(samples, labels, strict=True)}
