"""What a reconstruction has won over the anonymized image that it was made of.

Whoever rebuilds a face can win in pixels without winning the person, and the other way round: the
measures here keep the two apart, and compare with the anonymized images as they are, on the same
probes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.metrics.confidence import Labels, paired_bootstrap
from cldmray.metrics.image_similarity import Floats, Images, psnr, ssim


class Fidelity(NamedTuple):
    """How near reconstructions are to the images, shape (P,), means over the guesses.

    Attributes:
        psnr: in dB; infinite where a guess equals the image.
        ssim: structural similarity, in -1..1.
    """

    psnr: Floats
    ssim: Floats


def fidelity(originals: Images, guesses: Images, peak: float = 255.0) -> Fidelity:
    """Likeness of each probe's guesses to its original: ``psnr`` and ``ssim``.

    The mean over the guesses, never the best of them: to know the best, the attacker would need the
    image.

    Args:
        images: shape (P, h, w, channels).
        guesses: shape (P, guesses, h, w, channels); for the anonymized images themselves,
            ``images[:, None]``.
        peak: the largest value a pixel can have.

    Raises:
        BadInputError: the shapes do not fit, there are no guesses, or the images are too small.
    """
    shape = np.shape(guesses)
    if len(shape) != 5 or not shape[1] or (shape[0], *shape[2:]) != np.shape(originals):
        raise BadInputError(
            f"guesses must have shape (P, guesses, h, w, channels) for images "
            f"{np.shape(originals)}, not {shape}"
        )
    columns = [np.asarray(guesses)[:, number] for number in range(shape[1])]
    return Fidelity(
        np.mean([psnr(originals, column, peak) for column in columns], axis=0),
        np.mean([ssim(originals, column, peak) for column in columns], axis=0),
    )


def rank_1_gain(
    reconstruction_correct: npt.ArrayLike,
    raw_correct: npt.ArrayLike,
    identities: Labels,
    *,
    confidence_level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Rank-1 rate on reconstructions minus that on the anonymized images as they are.

    Both by the same held-out recognizer, which the reconstruction model must never have seen: only
    then does a lower bound above 0 say that the model has brought the person back, rather than
    learnt what that recognizer likes. Compare the gain of a control (mean face, shuffled pairs),
    too: a recognizer may like any clean face better than an anonymized one.

    Args:
        reconstruction_correct, raw_correct: whether, or with which probability, each probe's
            person came first (:func:`~cldmray.metrics.identification.success_at_rank` at 1), in
            0..1, shape (P,); row i is the same probe in both.
        identities, confidence_level, n_bootstrap, seed: see
            :func:`~cldmray.metrics.confidence.paired_bootstrap`.

    Returns:
        The gain in -1..1 with its paired bootstrap interval over identities.

    Raises:
        BadInputError: the shapes differ, or a value or an argument is out of range.
    """
    return paired_bootstrap(
        reconstruction_correct,
        raw_correct,
        identities,
        confidence_level=confidence_level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
