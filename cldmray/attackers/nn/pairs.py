"""Training sets of (query, image) pairs and the batches drawn from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Embeddings

Index = npt.NDArray[np.int64]
CELLS = 8_000_000
"""Validation scores that are held at once."""


@dataclass(frozen=True)
class PairSet:
    """Queries and originals of the same identities.

    Attributes:
        queries: images (Q, height, width, 3).
        query_identities: identity code of each query, shape (Q,).
        query_source: row of ``originals`` that the query was made from, shape (Q,).
        originals: images (P, height, width, 3).
        original_identities: identity code of each original, shape (P,).
        avoid_source: whether a query prefers an original of its identity other than its source.
        teacher_embeddings: of the originals, shape (P, d); None without a teacher.
    """

    queries: Images
    query_identities: Index
    query_source: Index
    originals: Images
    original_identities: Index
    avoid_source: bool
    teacher_embeddings: Embeddings | None = None

    def __post_init__(self) -> None:
        if len(np.unique(self.query_identities)) < 2:
            raise BadInputError(
                "the attacker has images of fewer than two people to learn from; give it more "
                "identities (splits.attacker, splits.auxiliary_fraction)"
            )


class PairSampler:
    """Samples batches of different identities; a batch depends on (seed, step) only.

    Args:
        pairs: the training set.
        batch: identities in a batch; fewer where the set has fewer.
        seed: of the draws.
        workers: most processes that share each batch.
    """

    def __init__(self, pairs: PairSet, batch: int, seed: int, workers: int = 1) -> None:
        self.pairs = pairs
        self.seed = seed
        self.identities = np.unique(pairs.query_identities)
        self.batch = min(batch, len(self.identities))
        if self.batch < max(2, workers):
            raise BadInputError(
                f"{len(self.identities)} attacker people are too few for {workers} training workers"
            )
        self._queries = _rows_of(pairs.query_identities)
        self._images = _rows_of(pairs.original_identities)

    def draw(self, step: int) -> tuple[Index, Index]:
        """Rows of queries and of their images for a step, each of shape (batch,)."""
        random = np.random.default_rng([self.seed, step])
        identities = random.choice(self.identities, self.batch, replace=False)
        queries = np.empty(self.batch, np.int64)
        originals = np.empty(self.batch, np.int64)
        for row, identity in enumerate(identities.tolist()):
            query = self._queries[identity][random.integers(len(self._queries[identity]))]
            candidates = self._images[identity]
            source = self.pairs.query_source[query]
            if self.pairs.avoid_source and len(candidates) > 1:
                candidates = candidates[candidates != source]
            queries[row] = query
            originals[row] = candidates[random.integers(len(candidates))]
        return queries, originals


class Validation(NamedTuple):
    """Validation identities: queries, their identities and sources, and the gallery of originals.

    ``teacher_embeddings`` holds the teacher's embeddings of the originals; without a teacher it is
    None, and the encoder embeds the originals itself.
    """

    queries: Images
    query_identities: Index
    query_source: Index
    originals: Images
    original_identities: Index
    teacher_embeddings: Embeddings | None = None

    @property
    def n_identities(self) -> int:
        """Identities of the queries that count: those with more than one original."""
        counts = np.bincount(self.original_identities)
        own = np.unique(self.query_identities)
        return int((counts[own] > 1).sum())

    def rank_1(self, embed: Callable[[Images], Embeddings]) -> float:
        """Rank-1 rate of queries against the originals, each query's own source left out.

        Queries of identities with a single original are not counted; NaN where none is left.

        Args:
            embed: the encoder's embeddings of images, of unit norm.
        """
        gallery = (
            embed(self.originals) if self.teacher_embeddings is None else self.teacher_embeddings
        )
        queries = embed(self.queries)
        nearest = np.empty(len(queries), np.int64)
        step = max(1, CELLS // len(gallery))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            # (b, G) scores; a query's own source is not in its gallery.
            scores = queries[part] @ gallery.T
            scores[np.arange(len(scores)), self.query_source[part]] = -np.inf
            nearest[part] = scores.argmax(1)
        counts = np.bincount(self.original_identities)
        usable = counts[self.query_identities] > 1
        if not usable.any():
            return math.nan
        best = self.original_identities[nearest]
        return float((best == self.query_identities)[usable].mean())


def _rows_of(identities: Index) -> dict[int, Index]:
    order = np.argsort(identities, kind="stable")
    codes, starts = np.unique(identities[order], return_index=True)
    return dict(zip(codes.tolist(), np.split(order, starts[1:]), strict=True))
