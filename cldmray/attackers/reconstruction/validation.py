"""The attacker's own measure of a reconstruction model: on validation identities."""

import math

import numpy as np

from cldmray.arrays import Images
from cldmray.attackers.reconstruction.base import Reconstructor
from cldmray.attackers.reconstruction.pairs import ReconstructionPairs
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Embeddings, Recognizer


def embed_guesses(recognizer: Recognizer, guesses: Images) -> Embeddings:
    """One embedding for all guesses of an image: their mean, brought to unit norm.

    What the guesses share comes from the image. What the model has added differs from one guess to
    the next and averages out.

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
    count, n_samples = guesses.shape[:2]
    vectors = recognizer.embed(guesses.reshape(-1, *guesses.shape[2:]))
    means = vectors.reshape(count, n_samples, -1).astype(np.float64).mean(1)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(norms, 1e-12), np.float32)


def validation_point(
    reconstructor: Reconstructor, pairs: ReconstructionPairs, recognizer: Recognizer
) -> dict[str, float]:
    """A point of the learning curve, on the attacker's validation identities.

    Args:
        reconstructor: has learnt from other identities.
        pairs: of validation identities; the row numbers are the reconstructions' seeds.
        recognizer: embeds reconstructions and originals. It is the attacker's own, since the
            held-out recognizer must not select among models.

    Returns:
        ``difference``: mean absolute difference from the original, over all guesses, in 0..1;
        ``cosine``: mean cosine of the guesses' embedding and the original's, in -1..1;
        ``margin``: the same less the mean cosine to originals of other identities, which the
        average face has in common with all, in -2..2; NaN where there are no others;
        ``rank_1``: share of the images whose best match among all originals, their own source
        left out, is of the same identity, in 0..1; NaN where no identity has a second image.
    """
    guesses = reconstructor.reconstruct(pairs.anonymized, np.arange(pairs.queries))
    originals = pairs.originals[pairs.source]
    difference = np.abs(guesses.astype(np.int16) - originals[:, None]).mean() / 255
    vectors, gallery = embed_guesses(recognizer, guesses), recognizer.embed(pairs.originals)
    scores = vectors @ gallery.T
    rows = np.arange(pairs.queries)
    cosine = float(scores[rows, pairs.source].mean())
    # Which originals are of other identities, shape (Q, P).
    impostors = pairs.identities[:, None] != pairs.original_identities[None, :]
    margin = math.nan
    if impostors.any(1).all():
        margin = cosine - float(np.mean(scores, axis=1, where=impostors).mean())
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
