"""Best matches and search by image, against brute force."""

from typing import get_args

import numpy as np
import pytest

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.gallery.index import GalleryIndex
from cldmray.gallery.matches import best_identities, best_matches, search_images
from cldmray.gallery.protocols import EmbeddingSet, Gallery, Protocol, Vectors
from cldmray.gallery.scores import EmbeddingScores


def embedded(rows: int, seed: int, prefix: str = "s") -> EmbeddingSet:
    values = np.random.default_rng(seed).normal(size=(rows, 8))
    vectors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    samples = np.array([f"{prefix}{number}" for number in range(rows)])
    return EmbeddingSet(samples, np.array([f"p{number // 2}" for number in range(rows)]), vectors)


def test_best_matches_leave_the_source_out() -> None:
    probes, references = embedded(20, 0), embedded(20, 1)
    products = probes.vectors @ references.vectors.T
    np.fill_diagonal(products, -np.inf)
    rows = np.argsort(-products, axis=1, kind="stable")[:, :5]
    matches = best_matches(probes, references, 5)
    np.testing.assert_array_equal(matches.sample_ids, references.sample_ids[rows])
    np.testing.assert_array_equal(matches.identities, references.identities[rows])
    everything = best_matches(probes, probes, 1, exclude_source=False)
    np.testing.assert_array_equal(everything.sample_ids[:, 0], probes.sample_ids)
    assert best_matches(probes, references, 100).sample_ids.shape == (20, 19)


class Encoder:
    """Embeds an image as its first eight values."""

    name = "first-eight"

    def embed(self, images: Images) -> Vectors:
        values = images.reshape(len(images), -1)[:, :8].astype(np.float32)
        vectors: Vectors = values / np.linalg.norm(values, axis=1, keepdims=True)
        return vectors


def test_images_are_searched_with_the_gallery_s_own_encoder() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    encoder = Encoder()
    gallery = GalleryIndex.build(
        encoder.embed(images), list("aabbcc"), list("123456"), recognizer="first-eight"
    )
    assert search_images(gallery, images, encoder, 1).sample_ids.ravel().tolist() == list("123456")
    other = GalleryIndex.build(encoder.embed(images), list("aabbcc"), list("123456"))
    other.recognizer = "sface"
    with pytest.raises(BadInputError, match="--recognizer sface"):
        search_images(other, images, encoder, 1)


@pytest.mark.parametrize("protocol", get_args(Protocol))
@pytest.mark.parametrize("gallery", get_args(Gallery))
def test_the_best_identities_are_those_of_the_scores(protocol: Protocol, gallery: Gallery) -> None:
    probes = embedded(20, 0)
    references = probes if gallery == "anonymized_only" else embedded(20, 1)
    scores = EmbeddingScores(probes, references, protocol, gallery)
    (block,) = scores.blocks()
    for row, sample in enumerate(scores.sample_ids.tolist()):
        matches = best_identities(scores, sample, 4)
        assert matches is not None
        order = np.argsort(-block.scores[row], kind="stable")[:4]
        np.testing.assert_array_equal(matches.identities[0], scores.gallery_identities[order])
        np.testing.assert_allclose(matches.scores[0], block.scores[row, order], atol=1e-6)
    assert best_identities(scores, "nosuch", 4) is None
