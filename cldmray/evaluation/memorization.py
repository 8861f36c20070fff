"""Whether an anonymizer gives back images that it was trained on."""

import numpy as np

from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.index import GalleryIndex
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.metrics.rates import rate_interval
from cldmray.metrics.verification import threshold_at
from cldmray.results.content import Memorization, NearestTrainingImage

EXPECTED = 0.01
"""Share of originals that may lie nearer to a training image than the threshold."""
MOST_LISTED = 10


def memorization(
    anonymizer: str,
    recognizer: str,
    anonymized: EmbeddingSet,
    originals: EmbeddingSet,
    training: GalleryIndex,
    settings: EvaluationSettings,
) -> Memorization | None:
    """How many images of an anonymizer lie nearer to a training image than real strangers do.

    The nearest training image of each original sets the null: nobody who is evaluated was trained
    on. The threshold is the lowest that at most one original in 100 exceeds. Source: the
    comparison of generated and held-out images with training images of Meehan, Chaudhuri, Dasgupta,
    "A Non-Parametric Test to Detect Data-Copying in Generative Models" (2020), as a rate.

    Args:
        anonymizer: its name in tables.
        recognizer: name of the attacker that has embedded all images.
        anonymized: the anonymizer's images of evaluated people.
        originals: of evaluated people.
        training: images that the anonymizer was trained on.

    Returns:
        None where there are too few originals for the threshold, or no image of the anonymizer.

    >>> circle = lambda *angles: np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    >>> names = np.array([f"p{row}" for row in range(100)])
    >>> originals = EmbeddingSet(names, names, circle(*np.linspace(1, 2, 100)))
    >>> training = GalleryIndex.build(circle(0.0), ["trained"], ["t0"])
    >>> copies = EmbeddingSet(names[:4], names[:4], circle(0.0, 0.1, 1.5, 1.6))
    >>> record = memorization("copier", "sface", copies, originals, training, EvaluationSettings())
    >>> record.value, record.nearest[0].training_sample
    (0.5, 't0')
    """
    if not len(anonymized) or len(originals) < 1 / EXPECTED or not len(training):
        return None
    null = training.search(originals.vectors, 1).scores[:, 0]
    threshold = threshold_at(np.sort(null), EXPECTED)
    matches = training.search(anonymized.vectors, 1)
    scores = matches.scores[:, 0]
    near = scores > threshold
    share, expected = (
        rate_interval(hits, views.identities, confidence_level=settings.confidence_level)
        for hits, views in ((near, anonymized), (null > threshold, originals))
    )
    first = np.argsort(-scores, kind="stable")[:MOST_LISTED]
    return Memorization(
        anonymizer,
        recognizer,
        value=share.value,
        low=share.low,
        high=share.high,
        chance=expected.value,
        chance_high=expected.high,
        threshold=threshold,
        n_images=len(anonymized),
        n_identities=len(np.unique(anonymized.identities)),
        n_training_images=len(training),
        nearest=[
            NearestTrainingImage(
                str(anonymized.sample_ids[row]),
                str(matches.sample_ids[row, 0]),
                float(scores[row]),
            )
            for row in first.tolist()
        ],
    )
