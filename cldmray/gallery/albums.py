"""Scores of albums: all anonymized images of one identity against each candidate."""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

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
