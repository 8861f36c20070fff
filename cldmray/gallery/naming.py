"""Ranks of any named person for each probe, with chosen photographs left out of its gallery."""

from collections.abc import Sequence

import numpy as np

from cldmray.errors import BadInputError
from cldmray.gallery.ranking import Ranks
from cldmray.gallery.references import Embedded
from cldmray.gallery.scores import CELLS, SAME_SCORE


def rank_named(
    probes: Embedded, photos: Embedded, left_out: Sequence[Sequence[str]] | None = None
) -> Ranks:
    """Rank the person that each probe is said to show, against all photographs (Full-Ref).

    Unlike :func:`cldmray.gallery.ranking.rank_probes` the person need not be the one whose
    photograph the probe was made from, and several photographs can be left out of a probe's
    gallery, whosever they are. Scores are best inner products, counted as there.

    Args:
        probes: ``identities`` are the people to be ranked.
        photos: all photographs of the candidates.
        left_out: samples that are not in the gallery of each probe; None: all photographs are.

    Returns:
        Ranks of the probes whose person has a photograph left, in their order.

    Raises:
        BadInputError: there are fewer than two people, a person or a sample that is left out has
            no photograph, or no probe is left.
    """
    order = np.argsort(photos.identities, kind="stable")
    people, starts = np.unique(photos.identities[order], return_index=True)
    if len(people) < 2:
        raise BadInputError("the gallery holds fewer than two people; there is nobody to confuse")
    column = {sample: place for place, sample in enumerate(photos.sample_ids[order].tolist())}
    code = {name: place for place, name in enumerate(people.tolist())}
    absent = {*probes.identities.tolist()} - {*code}
    absent |= {sample for samples in left_out or () for sample in samples} - {*column}
    if absent:
        raise BadInputError(f"{min(absent)!r} is not in the gallery of {len(order)} photographs")
    own = np.array([code[name] for name in probes.identities.tolist()], np.int64)
    better, ties = np.empty(len(own), np.int64), np.empty(len(own), np.int64)
    named = np.ones(len(own), bool)
    vectors = np.ascontiguousarray(photos.vectors[order].T)
    step = max(1, CELLS // len(order))
    for start in range(0, len(own), step):
        part = slice(start, start + step)
        scores = probes.vectors[part] @ vectors
        for row, samples in enumerate(left_out[part] if left_out is not None else ()):
            scores[row, [column[sample] for sample in samples]] = -np.inf
        best = np.maximum.reduceat(scores, starts, axis=1)
        rows = np.arange(len(best))
        true = best[rows, own[part], None]
        named[part] = np.isfinite(true[:, 0])
        true[~named[part]] = 0.0
        best[rows, own[part]] = -np.inf
        equal = np.abs(best - true) <= SAME_SCORE
        better[part], ties[part] = ((best > true) & ~equal).sum(1), equal.sum(1)
    if not named.any():
        raise BadInputError("no probe's person has a photograph left in the gallery")
    return Ranks(
        better[named], ties[named], probes.identities[named], probes.sample_ids[named], len(people)
    )
