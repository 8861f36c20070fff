"""Fréchet distance of two sets of features: how far generated images are from real ones."""

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError


def frechet_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Squared Fréchet distance of the Gaussians that fit two sets of features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means m and unbiased covariances S, of Heusel
    et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    2017. Name the features beside the number: it is "FID" with those of Inception v3 only.

    Finite sets bias it upwards, the more the fewer features there are: compare sets of one size,
    and show the distance of two sets of real images beside it.

    Args:
        first, second: features, shapes (N, d) and (M, d), N, M >= 2.

    Returns:
        >= 0, in the squared unit of the features.

    Raises:
        BadInputError: the shapes do not fit, or a feature is not finite.

    >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [5.0]]), 6)
    9.0
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise BadInputError(f"features must have shapes (N, d), (M, d): {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise BadInputError("features must be finite")
    shift = a.mean(0) - b.mean(0)
    spread_a, spread_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = _square_root(spread_a)
    common = np.linalg.eigvalsh(root @ spread_b @ root)
    overlap = np.sqrt(np.maximum(common, 0.0)).sum()
    distance = shift @ shift + np.trace(spread_a) + np.trace(spread_b) - 2 * overlap
    return max(0.0, float(distance))


def _square_root(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Symmetric square root of a symmetric positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root: npt.NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return root
