"""Scores of albums: anonymized images of one identity together, against each candidate.

Albums are given (:class:`AlbumScores`), or the attacker finds them (:class:`LinkedScores`).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cldmray.gallery.score_fusion import normalized
from cldmray.gallery.scores import CELLS, ScoreBlock, Scores, tie_resolved_blocks


class AlbumScores(Scores):
    """Mean score of all probes of each identity with each candidate.

    An attacker who knows, or finds out, that several anonymized images show one person adds up what
    each of them says. The mean works for the scores of every attacker; for inner products with
    single references it is the inner product with the mean of the embeddings. Probes keep the
    references that the protocol and the gallery gave them: where the source is excluded each image
    is scored without its own source.

    ``sample_ids`` are the identities. The scores of all albums, (I, N), are held at once.

    Args:
        scores: of the single probes, of I identities with N candidates.

    >>> from cldmray.gallery.protocols import EmbeddingSet
    >>> from cldmray.gallery.scores import EmbeddingScores
    >>> names = np.array(["ann", "ann", "bob"])
    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    >>> views = EmbeddingSet(np.array(["a1", "a2", "b1"]), names, vectors)
    >>> scores = EmbeddingScores(views, views, "full_ref", "source_included")
    >>> (block,) = AlbumScores(scores).blocks()
    >>> block.scores.astype(float).round(2).tolist()
    [[1.0, 0.3], [0.6, 1.0]]
    """

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self.gallery_identities = scores.gallery_identities
        self.mated_columns, self._albums = np.unique(scores.mated_columns, return_inverse=True)
        self.identities = scores.gallery_identities[self.mated_columns]
        self.sample_ids = self.identities

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        albums, candidates = len(self.mated_columns), len(self.gallery_identities)
        total = np.zeros((albums, candidates))
        for rows, block in tie_resolved_blocks(self._scores):
            # (I, b) with a 1 where a probe belongs to an album, times (b, N) scores.
            members = sparse.csr_array(
                (np.ones(len(rows)), (self._albums[rows], np.arange(len(rows)))),
                shape=(albums, len(rows)),
            )
            total += members @ block.astype(np.float64)
        total /= np.bincount(self._albums)[:, None]
        step = max(1, CELLS // candidates)
        for start in range(0, albums, step):
            part = total[start : start + step].astype(np.float32)
            yield ScoreBlock(np.arange(start, start + len(part)), part)


class LinkedScores(Scores):
    """Mean score of each probe and of the probes that an attacker links with it.

    Nobody tells the attacker which anonymized images show one person. Two images of one person
    score alike with all candidates, so the attacker compares these profiles. Two probes are linked
    where each is among the ``n_links`` probes whose profile is most like the other's. Where the
    source is excluded each linked image is scored without its own source only, as in given albums.

    The scores of all probes, (P, N), are held at once, and P^2 profiles are compared.

    Args:
        scores: of the single probes.
        n_links: probes that one may be linked with at most, >= 0; 0 links none.

    >>> from cldmray.gallery.protocols import EmbeddingSet
    >>> from cldmray.gallery.scores import EmbeddingScores
    >>> names = np.array(["ann", "ann", "bob"])
    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    >>> views = EmbeddingSet(np.array(["a1", "a2", "b1"]), names, vectors)
    >>> scores = EmbeddingScores(views, views, "full_ref", "source_included")
    >>> (block,) = LinkedScores(scores, 1).blocks()
    >>> block.scores.astype(float).round(2).tolist()
    [[1.0, 0.3], [1.0, 0.3], [0.6, 1.0]]
    """

    def __init__(self, scores: Scores, n_links: int) -> None:
        self.gallery_identities = scores.gallery_identities
        self.mated_columns = scores.mated_columns
        self.identities = scores.identities
        self.sample_ids = scores.sample_ids
        self._scores = scores
        self._n_links = n_links

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        if not self._n_links:
            yield from self._scores.blocks()
            return
        table = np.concatenate([block for _, block in tie_resolved_blocks(self._scores)])
        members = linked_probes(table, self._n_links)
        members += sparse.eye_array(len(table), format="csr")
        # (P, P) with a 1 where two probes are linked, times (P, N) scores.
        total = members @ table.astype(np.float64) / members.sum(axis=1)[:, None]
        step = max(1, CELLS // table.shape[1])
        for start in range(0, len(table), step):
            part = total[start : start + step].astype(np.float32)
            yield ScoreBlock(np.arange(start, start + len(part)), part)


def linked_probes(table: npt.NDArray[np.floating], n_links: int) -> sparse.csr_array:
    """Which probes are each among the ``n_links`` most alike of the other, (P, P) of 0 and 1.

    Args:
        table: scores of P probes with N candidates, (P, N).
        n_links: at least 1.

    >>> linked_probes(np.array([[3.0, 0, 0], [9, 1, 0], [0, 4, 0], [0, 0, 2]]), 1).toarray()[:2]
    array([[0., 1., 0., 0.],
           [1., 0., 0., 0.]])
    """
    # Candidates that everybody scores high with tell no two probes apart: off with their means.
    profiles = normalized(normalized(table.T).T)
    count = len(profiles)
    n_links = min(n_links, count - 1)
    step = max(1, CELLS // count)
    nearest = np.empty((count, n_links), np.int64)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        likeness = profiles[rows] @ profiles.T
        likeness[np.arange(len(rows)), rows] = -np.inf
        nearest[rows] = np.argsort(-likeness, axis=1, kind="stable")[:, :n_links]
    cells = np.repeat(np.arange(count), n_links), nearest.ravel()
    neighbors = sparse.csr_array((np.ones(nearest.size), cells), shape=(count, count))
    return neighbors.multiply(neighbors.T).tocsr()
