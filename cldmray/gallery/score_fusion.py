"""Score fusion: weighted sums of several attackers' scores of the same probes and identities.

Scores that an attacker gives alike but for rounding are made equal before they are scaled and
summed, because scaling makes a difference of rounding as large as a real one.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError
from cldmray.gallery.scores import ScoreBlock, Scores, tie_resolved_blocks

Floats = npt.NDArray[np.float64]


def _check_alike(parts: Sequence[Scores]) -> None:
    first = parts[0]
    for part in parts[1:]:
        same = np.array_equal(part.gallery_identities, first.gallery_identities) and np.array_equal(
            part.sample_ids, first.sample_ids
        )
        if not same:
            raise BadInputError("attackers whose scores are fused saw different probes or people")


def stack_scores(parts: Sequence[Scores]) -> Floats:
    """All normalized scores at once, shape (P, N, R), of R attackers.

    Raises:
        BadInputError: they saw different probes or identities.
    """
    _check_alike(parts)
    layers = [
        np.concatenate([normalized(block.scores) for block in tie_resolved_blocks(part)])
        for part in parts
    ]
    return np.stack(layers, axis=2)


class WeightedScores(Scores):
    """Weighted sum of normalized scores, see :func:`cldmray.gallery.score_fusion.normalized`.

    An identity that ties with a probe's own one for every attacker ties with it in the sum.

    Args:
        parts: scores of R attackers.
        weights: shape (R,).

    Raises:
        BadInputError: the attackers saw different probes or identities.
    """

    def __init__(self, parts: Sequence[Scores], weights: Floats) -> None:
        _check_alike(parts)
        self._parts = list(parts)
        self._weights = weights
        self.gallery_identities = parts[0].gallery_identities
        self.mated_columns = parts[0].mated_columns
        self.sample_ids = parts[0].sample_ids
        self.identities = parts[0].identities

    def blocks(self) -> Iterator[ScoreBlock]:
        """See :meth:`Scores.blocks`."""
        for blocks in zip(*map(tie_resolved_blocks, self._parts), strict=True):
            total = sum(
                weight * normalized(block.scores)
                for weight, block in zip(self._weights, blocks, strict=True)
            )
            yield ScoreBlock(blocks[0].rows, np.asarray(total, np.float32))


def normalized(scores: npt.NDArray[np.floating]) -> Floats:
    """Scores (P, N) with mean 0 and standard deviation 1 over the N identities of each probe.

    A probe that scores the same with all identities gets zeros.

    >>> normalized(np.array([[1.0, 3.0], [2.0, 2.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    values = np.asarray(scores, np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    return np.where(spread > SAME_SPREAD, centred / np.maximum(spread, SAME_SPREAD), 0.0)


SAME_SPREAD = 1e-6
"""Standard deviation of scores below which all identities count as equally near."""
