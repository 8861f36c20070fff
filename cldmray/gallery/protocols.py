"""Whose images a probe is compared with: the protocols and galleries of DESIGN section 4."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.gallery.index import Floats
from cldmray.hashing import unit_hash

Protocol = Literal["full_ref", "few_ref", "single_ref"]
Gallery = Literal["source_excluded", "source_included", "anonymized_only"]
REFERENCES: dict[str, int | None] = {"full_ref": None, "few_ref": 5, "single_ref": 1}

Strings = npt.NDArray[np.str_]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EmbeddingSet:
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
                f"the embeddings of {len(broken)} of {len(self.vectors)} images are not finite, "
                f"for example of sample {self.sample_ids[broken[0]]}"
            )


class References(NamedTuple):
    """Which images stand for whom.

    Attributes:
        people: candidate identities, sorted, shape (N,).
        kept: rows of the probes that have a reference of their own person, shape (P,).
        own: column of each kept probe's identity, shape (P,).
        mated: rows of the references of its own person, one array a kept probe.
        shown: rows of everybody's references as other people's probes see them, those of one
            person together, in the order of ``people``, shape (S,).
        codes: column of each of them, rising, shape (S,).
    """

    gallery_identities: Strings
    kept: Index
    own: Index
    mated: list[Index]
    shown: Index
    codes: Index


def choose_references(
    probes: EmbeddingSet, known: EmbeddingSet, protocol: Protocol, gallery: Gallery
) -> References:
    """The references of every candidate for every probe.

    References of a person are its images in the order of a hash. ``single_ref`` takes the first
    one, ``few_ref`` the first five, ``full_ref`` all of them. For the probe's own person,
    *source excluded* first removes the image that the probe was made from, *source included* puts
    it first, and *anonymized only*, whose references are anonymized images themselves, removes
    the probe. A probe whose person has no other image is left out, but for *source included*.

    Args:
        probes: anonymized images; their ``sample_ids`` name the source images.
        known: all images of the candidate people: the original images, or for *anonymized only*
            the view that the probes are of.

    Raises:
        BadInputError: no probe is left, a probe's sample is not among its person's images, a
            sample is there twice, or there are fewer than two people.
    """
    gallery_identities, codes = np.unique(known.identities, return_inverse=True)
    if len(gallery_identities) < 2:
        raise BadInputError("the gallery holds fewer than two people; there is nobody to confuse")
    order = np.array([unit_hash("reference", sample) for sample in known.sample_ids.tolist()])
    sorted_rows = np.lexsort((order, codes))
    by_identity = np.split(sorted_rows, np.cumsum(np.bincount(codes))[:-1])
    limit = REFERENCES[protocol]
    code_of = {name: code for code, name in enumerate(gallery_identities.tolist())}
    row_of = {sample: row for row, sample in enumerate(known.sample_ids.tolist())}
    if len(row_of) != len(codes):
        twice = Counter(known.sample_ids.tolist()).most_common(1)[0][0]
        raise BadInputError(f"image {twice} is in the gallery more than once")
    mated, kept, own = [], [], []
    for probe, (sample, identity) in enumerate(
        zip(probes.sample_ids.tolist(), probes.identities.tolist(), strict=True)
    ):
        if sample not in row_of or codes[row_of[sample]] != code_of.get(identity):
            raise BadInputError(f"probe {sample} of {identity!r} has no source in the gallery")
        code, source = code_of[identity], row_of[sample]
        chosen = by_identity[code][by_identity[code] != source]
        if gallery == "source_included":
            chosen = np.concatenate([[source], chosen])
        if len(chosen):
            kept.append(probe)
            own.append(code)
            mated.append(chosen[:limit])
    if not kept:
        raise BadInputError(
            "no probe has another image of its person; give people at least two images"
        )
    shown = np.concatenate([rows[:limit] for rows in by_identity])
    return References(gallery_identities, np.array(kept), np.array(own), mated, shown, codes[shown])
