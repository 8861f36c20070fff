"""The nearest training image of every anonymized one, against a null of originals."""

import numpy as np
import pytest

from cldmray.evaluation.memorization import memorization
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.index import GalleryIndex
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.metrics.rates import rate_interval
from cldmray.results.content import Memorization

SETTINGS = EvaluationSettings()


def embeddings(vectors: np.ndarray, prefix: str, per_identity: int = 4) -> EmbeddingSet:
    rows = np.arange(len(vectors))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return EmbeddingSet(
        np.array([f"{prefix}{row:04d}" for row in rows]),
        np.array([f"person {row // per_identity}" for row in rows]),
        unit.astype(np.float32),
    )


def measured(copied: int, seed: int, n_identities: int = 50) -> Memorization:
    """Of 4 images each of so many people, some are noisy copies of training images."""
    random = np.random.default_rng(seed)
    originals = embeddings(random.normal(size=(4 * n_identities, 16)), "s")
    training = random.normal(size=(300, 16))
    anonymized = random.normal(size=(4 * n_identities, 16))
    anonymized[:copied] = training[:copied] + 0.05 * random.normal(size=(copied, 16))
    references = embeddings(training, "t")
    index = GalleryIndex.build(references.vectors, references.identities, references.sample_ids)
    made = embeddings(anonymized, "s")
    record = memorization("copier", "sface", made, originals, index, SETTINGS)
    assert record is not None
    return record


def test_copies_are_counted_and_named() -> None:
    record = measured(copied=100, seed=0)
    assert record.value == pytest.approx(0.5, abs=0.03)
    assert record.is_suspicious and record.low > 0.3
    assert record.chance == 2 / 200 and record.n_training_images == 300
    assert len(record.nearest) == 10 and record.nearest[0].score > 0.99
    assert all(pair.sample_id[1:] == pair.training_sample[1:] for pair in record.nearest)


def test_rate_and_threshold_are_those_of_a_brute_force_search() -> None:
    random = np.random.default_rng(1)
    originals, references, made = (
        embeddings(random.normal(size=(n, 8)), prefix)
        for n, prefix in ((120, "s"), (40, "t"), (60, "s"))
    )
    index = GalleryIndex.build(references.vectors, references.identities, references.sample_ids)
    record = memorization("x", "sface", made, originals, index, SETTINGS)
    null = sorted((originals.vectors @ references.vectors.T).max(axis=1).tolist())
    hits = (made.vectors @ references.vectors.T).max(axis=1) > null[-2]
    share = rate_interval(hits, made.identities, confidence_level=0.95)
    assert record is not None
    assert record.threshold == pytest.approx(null[-2], abs=1e-6)
    assert (record.value, record.low, record.high) == (share.value, share.low, share.high)
    assert record.chance == pytest.approx(1 / 120)


def test_inventors_are_rarely_suspected() -> None:
    suspected = [measured(copied=0, seed=seed).is_suspicious for seed in range(2, 102)]
    assert sum(suspected) <= 2


@pytest.mark.parametrize(
    ("originals", "made", "references"), [(99, 5, 5), (100, 0, 5), (100, 5, 0)]
)
def test_too_little_is_no_measurement(originals: int, made: int, references: int) -> None:
    random = np.random.default_rng(3)
    sets = [
        embeddings(random.normal(size=(n, 8)), prefix)
        for n, prefix in ((made, "s"), (originals, "s"), (references, "t"))
    ]
    index = GalleryIndex.build(sets[2].vectors, sets[2].identities, sets[2].sample_ids)
    assert memorization("x", "sface", sets[0], sets[1], index, SETTINGS) is None
