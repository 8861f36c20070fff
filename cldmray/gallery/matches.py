"""Best matches of probes, and search by image, with FAISS."""

from typing import Protocol

import numpy as np

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.gallery.index import GalleryIndex, Matches, ShardedGallery, reordered
from cldmray.gallery.protocols import EmbeddingSet, Vectors
from cldmray.gallery.scores import EmbeddingScores


class ImageEncoder(Protocol):
    """What embeds images, such as a recognizer."""

    @property
    def name(self) -> str:
        """The encoder's name."""

    def embed(self, images: Images) -> Vectors:
        """Unit vectors of images of shape (N, h, w, 3) and uint8, shape (N, d)."""


def best_matches(
    probes: EmbeddingSet, references: EmbeddingSet, k: int, exclude_source: bool = True
) -> Matches:
    """The k references that are most like each probe, whosever they are.

    >>> ids = np.array(["a1", "b1", "b2"])
    >>> views = EmbeddingSet(ids, np.array(["ann", "bob", "bob"]), np.eye(3, dtype=np.float32))
    >>> best_matches(views, views, 1, exclude_source=False).identities.ravel().tolist()
    ['ann', 'bob', 'bob']

    Args:
        probes: P samples.
        references: those that may match, of the same encoder.
        k: at least 1.
        exclude_source: whether the reference with the probe's own ``sample_id`` is passed over.

    Returns:
        Shape (P, k); k is capped at the references that may match.

    Raises:
        BadInputError: the two have different dimensions.
    """
    gallery = GalleryIndex.build(
        references.vectors, references.identities, references.sample_ids, "flat"
    )
    if not exclude_source:
        return gallery.search(probes.vectors, k)
    matches = gallery.search(probes.vectors, k + 1)
    # (P, k + 1): the probe's own source goes behind all others, then the last column is dropped.
    is_source = matches.sample_ids == probes.sample_ids[:, None]
    order = np.argsort(is_source, axis=1, kind="stable")[:, : min(k, max(0, len(references) - 1))]
    return reordered(matches, order)


def best_identities(scores: EmbeddingScores, sample_id: str, k: int) -> Matches | None:
    """The k identities that score best with one probe of an attack, each by its best reference.

    Args:
        scores: of the attack; its protocol and gallery say which references count.
        sample_id: of the probe.
        k: at least 1; capped at the identities of the gallery.

    Returns:
        Shape (1, k); None where the sample is no probe of the attack.
    """
    rows = np.flatnonzero(scores.sample_ids == sample_id)
    if not len(rows):
        return None
    row = int(rows[0])
    references = scores.references_of(row)
    probe = scores.probe(row)
    # All references, best first; the first one of an identity is its best.
    matches = best_matches(probe, references, len(references), exclude_source=False)
    _, first = np.unique(matches.identities[0], return_index=True)
    return reordered(matches, np.sort(first)[None, :k])


def search_images(
    gallery: GalleryIndex | ShardedGallery, images: Images, recognizer: ImageEncoder, k: int
) -> Matches:
    """The k references of a saved gallery that are most like the faces in some images.

    Args:
        gallery: see :func:`cldmray.gallery.index.open_gallery`.
        images: shape (N, h, w, 3), uint8, aligned as those of the gallery were.
        recognizer: the encoder that the gallery was built with.

    Returns:
        Shape (N, k); k is capped at the size of the gallery.

    Raises:
        BadInputError: the gallery was built with another encoder.
    """
    built_with = gallery.recognizer
    if built_with and built_with != recognizer.name:
        raise BadInputError(
            f"the gallery was built with the recognizer {built_with}, not with {recognizer.name}; "
            f"search it with --recognizer {built_with}"
        )
    return gallery.search(recognizer.embed(images), k)
