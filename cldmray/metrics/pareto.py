"""Which of several trade-offs nothing else beats."""

import numpy as np
import numpy.typing as npt

from cldmray.errors import BadInputError


def pareto_front(costs: npt.ArrayLike, gains: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points no other one beats (Pareto's optimum).

    A point beats another if it costs at most as much and gains at least as much, with one of the
    two better. Of equal points all are kept.

    Args:
        costs, gains: shape (N,), finite.

    Returns:
        Shape (N,).

    Raises:
        BadInputError: the shapes differ, or a value is not finite.

    >>> pareto_front(costs=[1, 2, 2], gains=[5, 9, 4])
    array([ True,  True, False])
    """
    cost, gain = np.asarray(costs, np.float64), np.asarray(gains, np.float64)
    if cost.ndim != 1 or cost.shape != gain.shape:
        raise BadInputError(f"costs {cost.shape} and gains {gain.shape} must have one shape (N,)")
    if not (np.isfinite(cost).all() and np.isfinite(gain).all()):
        raise BadInputError("costs and gains must be finite")
    at_most = cost[None] <= cost[:, None]
    at_least = gain[None] >= gain[:, None]
    n_higher = (cost[None] < cost[:, None]) | (gain[None] > gain[:, None])
    beaten: npt.NDArray[np.bool_] = np.any(at_most & at_least & n_higher, axis=1)
    return np.logical_not(beaten)
