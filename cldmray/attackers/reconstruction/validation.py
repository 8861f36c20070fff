"""How well an reconstruction model does on people it has not learnt from, as the attacker can see it."""

import math

import numpy as np

from cldmray.arrays import Images
from cldmray.attackers.reconstruction.base import Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Embeddings, Recognizer


def embed_guesses(recognizer: Recognizer, guesses: Images) -> Embeddings:
    """One embedding for all guesses of an image: their mean, brought to unit norm.

    What the guesses share is what the image gave away; what the reconstruction model has added differs from
    one to the next and averages out.

    Args:
        recognizer: embeds each guess.
        guesses: uint8 (N, guesses, h, w, 3).

    Returns:
        Float32, shape (N, d).

    Raises:
        BadInputError: the guesses are of another shape, or see :meth:`Recognizer.embed`.
    """
    if guesses.ndim != 5 or not guesses.shape[1]:
        raise BadInputError(f"guesses must have shape (N, guesses, h, w, 3), not {guesses.shape}")
    count, draws = guesses.shape[:2]
    vectors = recognizer.embed(guesses.reshape(-1, *guesses.shape[2:]))
    means = vectors.reshape(count, draws, -1).astype(np.float64).mean(1)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(norms, 1e-12), np.float32)


def validation_point(
    reconstructor: Reconstructor, pairs: ReconstructionPairs, recognizer: Recognizer
) -> dict[str, float]:
    """A point of the learning curve, on the attacker's validation people.

    Args:
        reconstruction model: has learnt from other people.
        pairs: of validation people; the row numbers are the reconstructions' seeds.
        recognizer: embeds reconstructions and images. The attacker's own, as the one that
            judges must not choose among attackers.

    Returns:
        ``difference``: mean absolute difference from the image, over all guesses, in 0..1;
        ``cosine``: mean cosine of the fused embedding and the image's, in -1..1;
        ``margin``: the same less the mean cosine to images of other people, which the average
        face has in common with all, in -2..2; NaN where there is nobody else;
        ``rank_1``: share of the images whose best match among all images, their own source
        left out, is of the same person, in 0..1; NaN where nobody has a second image.
    """
    guesses = reconstructor.reconstruct(pairs.anonymized, np.arange(pairs.queries))
    wanted = pairs.originals[pairs.source]
    difference = np.abs(guesses.astype(np.int16) - wanted[:, None]).mean() / 255
    vectors, gallery = embed_guesses(recognizer, guesses), recognizer.embed(pairs.originals)
    scores = vectors @ gallery.T
    rows = np.arange(pairs.queries)
    cosine = float(scores[rows, pairs.source].mean())
    strangers = pairs.identities[:, None] != pairs.original_identities[None, :]
    margin = math.nan
    if strangers.any(1).all():
        margin = cosine - float(np.mean(scores, axis=1, where=strangers).mean())
    scores[rows, pairs.source] = -np.inf
    usable = np.isin(pairs.identities, _with_two(pairs))
    rank_1 = math.nan
    if usable.any():
        best = pairs.original_identities[scores.argmax(1)]
        rank_1 = float((best == pairs.identities)[usable].mean())
    return {"difference": float(difference), "cosine": cosine, "margin": margin, "rank_1": rank_1}


def _with_two(pairs: ReconstructionPairs) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    identities, counts = np.unique(pairs.original_identities, return_counts=True)
    return identities[counts > 1]
