"""Agreement of two edge maps, forgiving small shifts.

Source: the boundary measure of Martin, Fowlkes and Malik, "Learning to Detect Natural Image
Boundaries Using Local Brightness, Color, and Texture Cues", PAMI 2004, with every pixel within
the tolerance counted as a match instead of a one-to-one assignment.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[Any]
"""Edge maps, shape (N, h, w), any dtype; pixels other than 0 are edges."""

ROUNDING = 1e-4


class EdgeAgreement(NamedTuple):
    """Of each picture, shape (N,), all in 0..1.

    Attributes:
        precision: share of found edge pixels near a given one; 1 where none is found.
        recall: share of given edge pixels near a found one; 1 where none is given.
        f1: harmonic mean of both, 0 where both are 0.
    """

    precision: Floats
    recall: Floats
    f1: Floats


def edge_agreement(given: Maps, found: Maps, tolerance: float = 2.0) -> EdgeAgreement:
    """Precision, recall and F1 of found edges, picture by picture.

    Two pixels match when the Euclidean distance of their centres is at most the tolerance.

    Args:
        given: the edges that should be there.
        found: the edges that are there, of the same shape.
        tolerance: in pixels, >= 0.

    Raises:
        BadInputError: the shapes differ or are not (N, h, w), or the tolerance is negative.
    """
    if given.shape != found.shape or given.ndim != 3:
        raise BadInputError(f"edge maps must share a shape (N, h, w): {given.shape}, {found.shape}")
    if not tolerance >= 0:
        raise BadInputError(f"tolerance must be at least 0, not {tolerance}")
    precision = np.array([_near(b, a, tolerance) for a, b in zip(given, found, strict=True)])
    recall = np.array([_near(a, b, tolerance) for a, b in zip(given, found, strict=True)])
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(given)), where=total > 0)
    return EdgeAgreement(precision.astype(np.float64), recall.astype(np.float64), f1)


def edge_f1(given: Maps, found: Maps, tolerance: float = 2.0) -> Floats:
    """F1 of :func:`edge_agreement`, shape (N,), in 0..1; 1 where both maps are empty.

    Raises:
        BadInputError: see :func:`edge_agreement`.
    """
    return edge_agreement(given, found, tolerance).f1


def _near(edges: Maps, others: Maps, tolerance: float) -> float:
    """Share of the edge pixels of one map (h, w) that have an edge of the other near."""
    mine, theirs = edges != 0, others != 0
    if not mine.any():
        return 1.0
    if not theirs.any():
        return 0.0
    distance = cv2.distanceTransform((~theirs).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[mine] <= tolerance + ROUNDING).mean())
