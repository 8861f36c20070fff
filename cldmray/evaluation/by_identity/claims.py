"""Singling out: how often an attacker is right where he is most confident.

An attacker need not name everybody. He claims an identity where he is sure of it, and a data set
from which a few people can be singled out is not anonymous, however low the rate over all images
is.

Source: Article 29 Data Protection Working Party, Opinion 05/2014 on anonymisation techniques
(WP216), section 2.2 (singling out).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.evaluation.measures import Measured, probe_counts
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import Strings
from cldmray.gallery.scores import SAME_SCORE, Scores, tie_resolved_blocks
from cldmray.metrics.rates import rate_interval

Floats = npt.NDArray[np.float64]
SHARES: Mapping[str, float] = {"1pct": 0.01, "5pct": 0.05, "10pct": 0.1}
"""Shares of the claims, the most confident first, by their names in measures."""


class Claims(NamedTuple):
    """What an attacker claims of each probe: that it shows the best candidate.

    Attributes:
        correct: probability that the claim is right, ties broken at random, (P,).
        permuted: the same with the identity of another probe: the measured chance, (P,).
        confidence: score of the best candidate less that of the second best, (P,), >= 0.
        identities, sample_ids: of the probes, (P,).
    """

    correct: Floats
    permuted: Floats
    confidence: Floats
    identities: Strings
    sample_ids: Strings

    def take(self, rows: npt.NDArray[np.bool_]) -> "Claims":
        """The claims of some probes."""
        return Claims(
            self.correct[rows],
            self.permuted[rows],
            self.confidence[rows],
            self.identities[rows],
            self.sample_ids[rows],
        )


def collect_claims(scores: Scores) -> Claims:
    """The claims of one training of an attacker; the scores are read once."""
    probes, candidates = len(scores.mated_columns), len(scores.gallery_identities)
    share = np.bincount(scores.mated_columns, minlength=candidates) / probes
    correct, permuted, confidence = np.empty((3, probes))
    for rows, block in tie_resolved_blocks(scores):
        # (b, 2) second best and best score; candidates that tie with the best share the claim.
        second, best = np.partition(block, (-2, -1), axis=1)[:, -2:].T
        first = block >= best[:, None] - SAME_SCORE
        correct[rows] = first[np.arange(len(rows)), scores.mated_columns[rows]] / first.sum(1)
        permuted[rows] = first @ share / first.sum(1)
        confidence[rows] = np.where(first.sum(1) > 1, 0.0, best - second)
    return Claims(correct, permuted, confidence, scores.identities, scores.sample_ids)


def most_confident(confidence: Floats, share: float) -> npt.NDArray[np.bool_]:
    """Which claims are among the most confident; claims as confident as the last are, too.

    Args:
        confidence: shape (P,).
        share: in (0, 1]; at least one claim is taken.

    >>> most_confident(np.array([0.3, 0.1, 0.2, 0.2]), 0.5).tolist()
    [True, False, True, True]
    """
    count = max(1, round(share * len(confidence)))
    least: float = np.partition(confidence, -count)[-count]
    return confidence >= least


def precision_measures(trainings: Sequence[Claims], settings: EvaluationSettings) -> list[Measured]:
    """``precision_top_1pct``, ``_5pct``, ``_10pct``: how many of the most confident claims hold.

    Each training has its own most confident claims. All claims weigh alike, 1 / T with T trainings,
    so that an image which all of them name weighs more than one that a single training names.
    There is no value where the share is less than one claim.
    """
    measured = []
    for word, share in SHARES.items():
        name, probes = f"precision_top_{word}", len(trainings[0].correct)
        if share * probes < 1:
            reason = f"{share:.0%} of {probes} images is less than one claim"
            measured.append(Measured(name, None, None, reason=reason))
            continue
        parts = [claims.take(most_confident(claims.confidence, share)) for claims in trainings]
        correct, permuted, _, identities, samples = map(np.concatenate, zip(*parts, strict=True))
        rate = rate_interval(
            correct,
            identities,
            weight=1 / len(trainings),
            confidence_level=settings.confidence_level,
        )
        counts = probe_counts(samples, identities)
        measured.append(Measured(name, rate, float(permuted.mean()), n_claims=counts))
    return measured
