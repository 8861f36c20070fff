"""Ranks of any named person for each probe, with chosen photographs left out of its gallery."""

from collections.abc import Iterator, Sequence

import numpy as np

from cldmray.errors import BadInputError
from cldmray.gallery.ranking import Ranks, rank_scores
from cldmray.gallery.references import Embedded
from cldmray.gallery.scores import CELLS, ScoreBlock, Scores


class NamedScores(Scores):
    """Best inner product of each probe with each person's photographs (Full-Ref).

    Unlike in :class:`cldmray.gallery.scores.EmbeddingScores` a probe's own identity need not be the
    one whose photograph it was made from, and several photographs can be left out of a probe's
    gallery, whosever they are. A person without any left scores -inf.

    Args:
        probes: ``identities`` are the people to be ranked. Those whose person has no photograph
            left are passed over.
        photos: all photographs of the candidates.
        left_out: samples that are not in the gallery of each probe; None: all photographs are.

    Raises:
        BadInputError: there are fewer than two people, a person or a sample that is left out has
            no photograph, or no probe is left.
    """

    def __init__(
        self, probes: Embedded, photos: Embedded, left_out: Sequence[Sequence[str]] | None
    ) -> None:
        order = np.argsort(photos.identities, kind="stable")
        self.people, self._starts, codes = np.unique(
            photos.identities[order], return_index=True, return_inverse=True
        )
        if len(self.people) < 2:
            raise BadInputError(
                "the gallery holds fewer than two people; there is nobody to confuse"
            )
        column = {sample: place for place, sample in enumerate(photos.sample_ids[order].tolist())}
        code = {name: place for place, name in enumerate(self.people.tolist())}
        absent = {*probes.identities.tolist()} - {*code}
        absent |= {sample for samples in left_out or () for sample in samples} - {*column}
        if absent:
            raise BadInputError(
                f"{min(absent)!r} is not in the gallery of {len(order)} photographs"
            )
        own = np.array([code[name] for name in probes.identities.tolist()], np.int64)
        hidden = [sorted({column[sample] for sample in samples}) for samples in left_out or ()]
        hidden = hidden or [[] for _ in own]
        sizes = np.bincount(codes)
        kept = [
            row
            for row, (person, columns) in enumerate(zip(own, hidden, strict=True))
            if np.count_nonzero(codes[columns] == person) < sizes[person]
        ]
        if not kept:
            raise BadInputError("no probe's person has a photograph left in the gallery")
        self.own = own[kept]
        self.sample_ids = probes.sample_ids[kept]
        self.identities = probes.identities[kept]
        self._probes = probes.vectors[kept]
        self._hidden = [hidden[row] for row in kept]
        self._photos = np.ascontiguousarray(photos.vectors[order].T)

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        step = max(1, CELLS // self._photos.shape[1])
        for start in range(0, len(self.own), step):
            part = slice(start, start + step)
            scores = self._probes[part] @ self._photos
            for row, columns in enumerate(self._hidden[part]):
                scores[row, columns] = -np.inf
            best = np.maximum.reduceat(scores, self._starts, axis=1)
            yield ScoreBlock(np.arange(start, start + len(best)), best)


def rank_named(
    probes: Embedded, photos: Embedded, left_out: Sequence[Sequence[str]] | None = None
) -> Ranks:
    """Rank the person that each probe is said to show, against all photographs.

    Args:
        probes, photos, left_out: see :class:`NamedScores`, also for the errors.

    Returns:
        Ranks of the probes whose person has a photograph left, in their order.
    """
    return rank_scores(NamedScores(probes, photos, left_out))
