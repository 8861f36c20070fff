"""Training sets of (query, photograph) pairs and the batches drawn from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.arrays import Pictures
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Embeddings

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairSet:
    """Queries and photographs of the same people.

    Attributes:
        queries: pictures (Q, height, width, 3).
        query_people: person code of each query, shape (Q,).
        query_source: row of ``photos`` that the query was made from, shape (Q,).
        photos: pictures (P, height, width, 3).
        photo_people: person code of each photo, shape (P,).
        avoid_source: whether a query prefers a photo of its person other than its source.
        taught: the teacher's embeddings of the photos, shape (P, d); None without a teacher.
    """

    queries: Pictures
    query_people: Index
    query_source: Index
    photos: Pictures
    photo_people: Index
    avoid_source: bool
    taught: Embeddings | None = None

    def __post_init__(self) -> None:
        if len(np.unique(self.query_people)) < 2:
            raise BadInputError(
                "the attacker has pictures of fewer than two people to learn from; give it more "
                "identities (splits.attacker, splits.background_share)"
            )


class PairSampler:
    """Draws batches of different people; a batch depends on (seed, step) only.

    Args:
        pairs: the training set.
        batch: people in a batch; fewer where the set has fewer.
        seed: of the draws.
        workers: most processes that share each batch.
    """

    def __init__(self, pairs: PairSet, batch: int, seed: int, workers: int = 1) -> None:
        self.pairs = pairs
        self.seed = seed
        self.people = np.unique(pairs.query_people)
        self.batch = min(batch, len(self.people))
        if self.batch < max(2, workers):
            raise BadInputError(
                f"{len(self.people)} attacker people are too few for {workers} training workers"
            )
        self._queries = _rows_of(pairs.query_people)
        self._photos = _rows_of(pairs.photo_people)

    def draw(self, step: int) -> tuple[Index, Index]:
        """Rows of queries and of their photographs for a step, each of shape (batch,)."""
        random = np.random.default_rng([self.seed, step])
        chosen = random.choice(self.people, self.batch, replace=False)
        queries = np.empty(self.batch, np.int64)
        photos = np.empty(self.batch, np.int64)
        for row, person in enumerate(chosen.tolist()):
            query = self._queries[person][random.integers(len(self._queries[person]))]
            candidates = self._photos[person]
            source = self.pairs.query_source[query]
            if self.pairs.avoid_source and len(candidates) > 1:
                candidates = candidates[candidates != source]
            queries[row] = query
            photos[row] = candidates[random.integers(len(candidates))]
        return queries, photos


class Validation(NamedTuple):
    """Validation people: queries, their person codes and sources, and the gallery photos.

    ``taught`` holds the teacher's embeddings of the photos; without a teacher it is None, and the
    encoder embeds the photos itself.
    """

    queries: Pictures
    query_people: Index
    query_source: Index
    photos: Pictures
    photo_people: Index
    taught: Embeddings | None = None

    def rank_1(self, embed: Callable[[Pictures], Embeddings]) -> float:
        """Rank-1 rate of queries against the photos, each query's own source left out.

        Queries of people with a single photo are not counted; NaN where none is left.

        Args:
            embed: the encoder's embeddings of pictures, of unit norm.
        """
        gallery = embed(self.photos) if self.taught is None else self.taught
        scores = embed(self.queries) @ gallery.T
        scores[np.arange(len(scores)), self.query_source] = -np.inf
        counts = np.bincount(self.photo_people)
        usable = counts[self.query_people] > 1
        if not usable.any():
            return math.nan
        best = self.photo_people[scores.argmax(1)]
        return float((best == self.query_people)[usable].mean())


def _rows_of(people: Index) -> dict[int, Index]:
    order = np.argsort(people, kind="stable")
    codes, starts = np.unique(people[order], return_index=True)
    return dict(zip(codes.tolist(), np.split(order, starts[1:]), strict=True))
