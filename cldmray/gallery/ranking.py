"""Who stands before the true identity: ranks of probes under the protocols of DESIGN section 4."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.gallery.index import Floats, GalleryIndex
from cldmray.hashing import unit_hash

Protocol = Literal["full_ref", "few_ref", "single_ref"]
Gallery = Literal["source_excluded", "source_included"]
REFERENCES: dict[str, int | None] = {"full_ref": None, "few_ref": 5, "single_ref": 1}
SAME_SCORE = 1e-6
"""Inner products of unit float32 vectors that differ by no more are equal but for rounding."""

CELLS = 20_000_000
"""Scores that are held in memory at once."""

Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of samples: ids and identities of shape (N,), unit vectors of shape (N, d).

    Raises:
        BadInputError: their numbers differ, or a vector is not finite, whose rivals would all seem
            to stand behind it.
    """

    sample_ids: Strings
    identities: Strings
    vectors: Floats

    def __post_init__(self) -> None:
        if not len(self.sample_ids) == len(self.identities) == len(self.vectors):
            raise BadInputError("sample ids, identities and vectors differ in number")
        broken = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(broken):
            raise BadInputError(
                f"the embeddings of {len(broken)} of {len(self.vectors)} pictures are not finite, "
                f"for example of sample {self.sample_ids[broken[0]]}"
            )


class Ranks(NamedTuple):
    """Standing of each probe's true identity.

    Attributes:
        better: other identities with a higher score, shape (P,).
        ties: other identities with exactly the same score, shape (P,).
        identities: of the probes, shape (P,).
        sample_ids: of the probes, shape (P,).
        gallery_size: candidate identities.
    """

    better: npt.NDArray[np.int64]
    ties: npt.NDArray[np.int64]
    identities: Strings
    sample_ids: Strings
    gallery_size: int


def rank_probes(
    probes: Embedded,
    photos: Embedded,
    protocol: Protocol,
    gallery: Gallery,
    depth: int | None = None,
) -> Ranks:
    """Rank the true identity of each probe by its best reference's inner product.

    References of a person are its photos in the order of a hash. ``single_ref`` takes the first
    one, ``few_ref`` the first five, ``full_ref`` all of them. For the probe's own person,
    *source excluded* first removes the photo that the probe was made from, and *source included*
    puts it first. A probe whose person has no other photo is left out of *source excluded*.

    Args:
        probes: anonymized pictures; their ``sample_ids`` name the source photos.
        photos: all original photos of the candidate people.
        depth: neighbours fetched from the index for each probe; None fetches all, which is exact.
            With a limit, people beyond it are not counted, so ranks above it are optimistic.

    Raises:
        BadInputError: no probe is left, a probe's source photo is not among its person's photos, a
            photo is there twice, or there are fewer than two people.
    """
    people, codes = np.unique(photos.identities, return_inverse=True)
    if len(people) < 2:
        raise BadInputError("the gallery holds fewer than two people; there is nobody to confuse")
    order = np.array([unit_hash("reference", sample) for sample in photos.sample_ids.tolist()])
    by_person = [
        rows[np.argsort(order[rows], kind="stable")]
        for rows in (np.flatnonzero(codes == code) for code in range(len(people)))
    ]
    limit = REFERENCES[protocol]
    code_of = {name: code for code, name in enumerate(people.tolist())}
    row_of = {sample: row for row, sample in enumerate(photos.sample_ids.tolist())}
    if len(row_of) != len(codes):
        twice = Counter(photos.sample_ids.tolist()).most_common(1)[0][0]
        raise BadInputError(f"photo {twice} is in the gallery more than once")
    mated: list[npt.NDArray[np.int64]] = []
    kept: list[int] = []
    for probe, (sample, identity) in enumerate(
        zip(probes.sample_ids.tolist(), probes.identities.tolist(), strict=True)
    ):
        if sample not in row_of or codes[row_of[sample]] != code_of.get(identity):
            raise BadInputError(f"probe {sample} of {identity!r} has no source in the gallery")
        references = _mated_references(by_person[code_of[identity]], row_of[sample], gallery, limit)
        if len(references):
            kept.append(probe)
            mated.append(references)
    if not kept:
        raise BadInputError(
            "no probe has another photo of its person; give people at least two photos"
        )
    vectors = probes.vectors[kept]
    own = np.array([code_of[name] for name in probes.identities[kept].tolist()])
    true_scores = _best_scores(vectors, photos.vectors, mated)
    shown = np.concatenate([rows[:limit] for rows in by_person])
    index = GalleryIndex(photos.vectors[shown], codes[shown].astype(np.int64))
    better, ties = _count_rivals(index, vectors, own, true_scores, depth or len(index), len(people))
    return Ranks(better, ties, probes.identities[kept], probes.sample_ids[kept], len(people))


def _mated_references(
    own_photos: npt.NDArray[np.int64], source: int, gallery: Gallery, limit: int | None
) -> npt.NDArray[np.int64]:
    others: npt.NDArray[np.int64] = own_photos[own_photos != source]
    if gallery == "source_included":
        others = np.concatenate([[source], others])
    return others[:limit]


def _best_scores(
    probes: Floats, photos: Floats, references: list[npt.NDArray[np.int64]]
) -> npt.NDArray[np.float32]:
    """Highest inner product of each probe with its own references."""
    best = [(photos[rows] @ probe).max() for probe, rows in zip(probes, references, strict=True)]
    return np.array(best, np.float32)


def _count_rivals(
    index: GalleryIndex,
    probes: Floats,
    own: npt.NDArray[np.int64],
    true_scores: npt.NDArray[np.float32],
    depth: int,
    people: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    better = np.empty(len(probes), np.int64)
    ties = np.empty(len(probes), np.int64)
    step = max(1, CELLS // max(depth, people))
    for start in range(0, len(probes), step):
        part = slice(start, start + step)
        scores, labels = index.search(probes[part], depth)
        best = np.full((len(scores), people), -np.inf, np.float32)
        rows = np.repeat(np.arange(len(scores)), scores.shape[1])
        np.maximum.at(best, (rows, labels.ravel()), scores.ravel())
        best[np.arange(len(scores)), own[part]] = -np.inf
        true = true_scores[part, None]
        equal = np.abs(best - true) <= SAME_SCORE
        better[part] = ((best > true) & ~equal).sum(1)
        ties[part] = equal.sum(1)
    return better, ties
