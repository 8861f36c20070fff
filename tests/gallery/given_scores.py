"""Scores that a test writes down; tests of galleries and of evaluation read them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cldmray.gallery.scores import ScoreBlock, Scores


class Given(Scores):
    """Scores (P, N) of probes of the people p0, p1, ... in blocks of some rows."""

    def __init__(self, own: list[int], scores: npt.ArrayLike, rows: int = 1000) -> None:
        self.table = np.asarray(scores, np.float32)
        self.mated_columns = np.array(own)
        self.gallery_identities = np.array([f"p{column}" for column in range(self.table.shape[1])])
        self.identities = self.gallery_identities[self.mated_columns]
        self.sample_ids = np.array([f"s{row}" for row in range(len(own))])
        self.step = rows

    def blocks(self) -> Iterator[ScoreBlock]:
        for start in range(0, len(self.mated_columns), self.step):
            rows = np.arange(start, min(start + self.step, len(self.mated_columns)))
            yield ScoreBlock(rows, self.table[rows])
