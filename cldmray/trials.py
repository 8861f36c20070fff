"""What the measures of one attack need of its scores, read in one pass with bounded memory."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.gallery.references import Strings
from cldmray.gallery.scores import SAME_SCORE, Float32, Scores, settled_blocks
from cldmray.hashing import unit_hash

Floats = npt.NDArray[np.float64]

NON_MATED_SCORES = 200_000
"""Most non-mated scores of an attack. Where there are more, they are those of the probes whose
sample ids come first by a hash."""


class Trials(NamedTuple):
    """What the measures need of the scores of one attack.

    Attributes:
        shuffled: per probe, share of all probes that belong to its best candidate, (P,).
        mated: score of each probe with its own identity, (P,).
        labels: identity of each probe, (P,).
        non_mated: scores of some probes with all other candidates, (Q, N - 1).
        non_mated_labels: identity of each of these probes, (Q,).
        enrolled_people: candidates in the half of the gallery that stays.
        enrolled: whether the probe's person is one of them, (P,).
        rival: best score of each probe among the others of that half, (P,); -inf if there are none.
    """

    shuffled: Floats
    mated: Float32
    labels: Strings
    non_mated: Float32
    non_mated_labels: Strings
    enrolled_people: int
    enrolled: npt.NDArray[np.bool_]
    rival: Float32


def collect(scores: Scores, most: int = NON_MATED_SCORES) -> Trials:
    """Read the scores of an attack once.

    Args:
        most: non-mated scores that are kept, but at least those of one probe.
    """
    people, probes = len(scores.people), len(scores.own)
    share = np.bincount(scores.own, minlength=people) / probes
    stays = enrolled_people(scores.people)
    sampled = _sampled(scores.sample_ids, max(1, most // (people - 1)))
    shuffled = np.empty(probes)
    mated, rival = np.empty(probes, np.float32), np.empty(probes, np.float32)
    non_mated = []
    for rows, found in settled_blocks(scores):
        own = np.zeros(found.shape, bool)
        own[np.arange(len(rows)), scores.own[rows]] = True
        first = found >= found.max(1, keepdims=True) - SAME_SCORE
        shuffled[rows] = first @ share / first.sum(1)
        mated[rows] = found[own]
        chosen = sampled[rows]
        non_mated.append(found[chosen][~own[chosen]].reshape(-1, people - 1))
        rival[rows] = np.where(own | ~stays, -np.inf, found).max(1)
    return Trials(
        shuffled,
        mated,
        scores.identities,
        np.concatenate(non_mated),
        scores.identities[sampled],
        int(stays.sum()),
        stays[scores.own],
        rival,
    )


def enrolled_people(people: Strings) -> npt.NDArray[np.bool_]:
    """Which candidates stay in the gallery when half of them, rounded down, are left out by hash.

    Args:
        people: identities, shape (N,).
    """
    order = np.argsort([unit_hash("open_set", person) for person in people.tolist()])
    stays = np.ones(len(people), bool)
    stays[order[: len(people) // 2]] = False
    return stays


def _sampled(sample_ids: Strings, most: int) -> npt.NDArray[np.bool_]:
    if len(sample_ids) <= most:
        return np.ones(len(sample_ids), bool)
    hashes = [unit_hash("non_mated", sample) for sample in sample_ids.tolist()]
    chosen = np.zeros(len(sample_ids), bool)
    chosen[np.argsort(hashes, kind="stable")[:most]] = True
    return chosen
