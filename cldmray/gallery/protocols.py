"""Whose images a probe is compared with: protocols (how many references) and galleries (which)."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, AUXILIARY
from cldmray.hashing import identity_hash, unit_hash
from cldmray.settings import checked_dataclass

Protocol = Literal["full_ref", "few_ref", "single_ref"]
Gallery = Literal["source_excluded", "source_included", "anonymized_only"]
Distractors = Literal["none", "attacker", "auxiliary", "all"]
REFERENCES: dict[str, int | None] = {"full_ref": None, "few_ref": 5, "single_ref": 1}
"""References of an identity at most, by protocol; None: all."""

REFERENCE_SALT = "reference"
"""Salt of the hash that orders an identity's references; results depend on it."""

Strings = npt.NDArray[np.str_]
IntArray = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@checked_dataclass
class GallerySettings:
    """Who stands in the galleries beside the people who are evaluated.

    Attributes:
        distractors: identities that are in the galleries of originals and never probed, so that
            claims of k-anonymity above the number of evaluated people can be tested. ``none``;
            ``attacker``: all attacker people; ``auxiliary``: all auxiliary people; ``all``: both.
            An attacker that was trained on them knows their originals, and may tell them apart
            better than other strangers.
        faces: a source of one's own whose people are distractors as well; None: there is none.
        references: a source of one's own whose images are the references, in place of the
            originals of evaluated people: what an attacker knows from elsewhere, such as passport
            images. People are the same where their names are. Those of the source who are not
            evaluated stand in the galleries, too; evaluated people who are not in it are no
            probes there. None: the originals are the references.

    Raises:
        ValueError: a value is unknown; the message begins with the key.
    """

    distractors: Distractors = "none"
    faces: FaceSource | None = None
    references: FaceSource | None = None

    @property
    def distractor_splits(self) -> tuple[str, ...]:
        """Splits of the audited source whose people are distractors.

        >>> GallerySettings("all").distractor_splits
        ('attacker', 'attacker_validation', 'auxiliary')
        """
        of_attacker = (ATTACKER, ATTACKER_VALIDATION) if self.distractors != "auxiliary" else ()
        auxiliary = (AUXILIARY,) if self.distractors != "attacker" else ()
        return () if self.distractors == "none" else (*of_attacker, *auxiliary)


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of samples: ids and identities of shape (N,), unit vectors of shape (N, d).

    Attributes:
        content_ids: equal where two samples are near-duplicates of each other, see
            :func:`cldmray.gallery.near_duplicates.content_ids`, shape (N,); None: no two are.

    Raises:
        BadInputError: their numbers differ, or a vector is not finite, before which no other
            identity would seem to rank.
    """

    sample_ids: Strings
    identities: Strings
    vectors: Vectors
    content_ids: Strings | None = None

    def __post_init__(self) -> None:
        if not len(self.sample_ids) == len(self.identities) == len(self.vectors):
            raise BadInputError("sample ids, identities and vectors differ in number")
        if len(self.contents) != len(self):
            raise BadInputError("sample ids and content ids differ in number")
        broken = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(broken):
            raise BadInputError(
                f"the embeddings of {len(broken)} of {len(self.vectors)} images are not finite, "
                f"for example of sample {self.sample_ids[broken[0]]}"
            )

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def contents(self) -> Strings:
        """The content ids, which are the sample ids where no two are near-duplicates."""
        return self.sample_ids if self.content_ids is None else self.content_ids

    def take(self, rows: IntArray) -> "EmbeddingSet":
        """Some of the samples, in the order of their rows."""
        contents = None if self.content_ids is None else self.content_ids[rows]
        return EmbeddingSet(
            self.sample_ids[rows], self.identities[rows], self.vectors[rows], contents
        )


class References(NamedTuple):
    """Which images stand for which identity.

    A score is *mated* where probe and references show the same identity, else *non-mated*.

    Attributes:
        gallery_identities: sorted, shape (N,).
        probe_rows: rows of the probes that have a reference of their own identity, shape (P,).
        mated_columns: place of each of these probes' identity among the N, shape (P,).
        mated_rows: rows of the references of its own identity, one array a probe.
        reference_rows: rows of everybody's references as probes of other identities see them,
            those of one identity together, in the order of ``gallery_identities``, shape (S,).
        reference_columns: place of each of them among the N, rising, shape (S,).
    """

    gallery_identities: Strings
    probe_rows: IntArray
    mated_columns: IntArray
    mated_rows: list[IntArray]
    reference_rows: IntArray
    reference_columns: IntArray


def choose_references(
    probes: EmbeddingSet, references: EmbeddingSet, protocol: Protocol, gallery: Gallery
) -> References:
    """The references of every identity for every probe.

    References of an identity are its images in the order of a hash. ``single_ref`` takes the first
    one, ``few_ref`` the first five, ``full_ref`` all of them. For the probe's own identity,
    *source excluded* first removes the image that the probe was made from, *source included* puts
    it first, and *anonymized only*, whose references are anonymized images themselves, removes
    the probe. Whatever is removed takes its near-duplicates with it: a recompressed copy of the
    source is the source. A probe whose identity has no other image is left out, but for *source
    included*. Where the references are from elsewhere, so that no probe's source is among them,
    its near-duplicates are the source, and probes of identities without a reference are left out.

    >>> names = np.array(["ann", "ann", "bob"])
    >>> views = EmbeddingSet(np.array(["a1", "a2", "b1"]), names, np.eye(3, dtype=np.float32))
    >>> chosen = choose_references(views, views, "full_ref", "source_excluded")
    >>> chosen.probe_rows.tolist(), [rows.tolist() for rows in chosen.mated_rows]
    ([0, 1], [[1], [0]])

    Args:
        probes: anonymized images; their ``sample_ids`` name the source images.
        references: all images of the gallery's identities: the original images, or for
            *anonymized only* the view that the probes are of.

    Raises:
        BadInputError: no probe is left, the sources of some probes are among their identity's
            images and those of others are not, a sample is there twice, or there are fewer than
            two identities.
    """
    names, columns = np.unique(references.identities, return_inverse=True)
    check_gallery_size(len(names))
    order = np.array(
        [unit_hash(REFERENCE_SALT, sample) for sample in references.sample_ids.tolist()]
    )
    sorted_rows = np.lexsort((order, columns))
    by_identity = np.split(sorted_rows, np.cumsum(np.bincount(columns))[:-1])
    limit = REFERENCES[protocol]
    column_of = {name: column for column, name in enumerate(names.tolist())}
    row_of = {sample: row for row, sample in enumerate(references.sample_ids.tolist())}
    if len(row_of) != len(columns):
        twice = Counter(references.sample_ids.tolist()).most_common(1)[0][0]
        raise BadInputError(f"image {twice} is in the gallery more than once")
    contents = references.contents
    elsewhere = not any(sample in row_of for sample in probes.sample_ids.tolist())
    mated_rows, probe_rows, mated_columns = [], [], []
    for probe, (sample, identity, content) in enumerate(
        zip(
            probes.sample_ids.tolist(),
            probes.identities.tolist(),
            probes.contents.tolist(),
            strict=True,
        )
    ):
        column, source = column_of.get(identity), row_of.get(sample)
        if column is None and elsewhere:
            continue
        if column is None or not (elsewhere or (source is not None and columns[source] == column)):
            raise BadInputError(
                f"probe {sample} of person {identity_hash(identity)} has no source in the gallery"
            )
        rows = by_identity[column]
        is_copy = contents[rows] == (content if source is None else contents[source])
        is_source = is_copy if source is None else rows == source
        if gallery == "source_included":
            rows = np.concatenate([rows[is_source], rows[~is_source]])
        else:
            rows = rows[~is_copy]
        if len(rows):
            probe_rows.append(probe)
            mated_columns.append(column)
            mated_rows.append(rows[:limit])
    if not probe_rows:
        raise BadInputError(
            "no probe has another image of its person; give people at least two images that are "
            "no near-duplicates of each other"
        )
    shared = np.concatenate([rows[:limit] for rows in by_identity])
    return References(
        names, np.array(probe_rows), np.array(mated_columns), mated_rows, shared, columns[shared]
    )


def check_gallery_size(n_identities: int) -> None:
    """Raise ``BadInputError`` unless a probe could be confused with another identity."""
    if n_identities < 2:
        raise BadInputError("the gallery holds fewer than two people; there is nobody to confuse")
